//! What is wrong with objects of built-in kinds beyond their types, as far as clients can meet it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    cause::Cause,
    edit::items,
    metadata::label_error,
    resources::Resource,
    service::{self, protocol_error},
};

/// Longest text of an Event, in characters.
const NOTE_LENGTH: usize = 1024;

/// Everything that is wrong with an object, its metadata apart.
pub(crate) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.kind.as_str() {
        "Service" => service::validate(object, old, &mut causes),
        "Pod" => {
            containers(&object["spec"], "spec", &mut causes);
            causes.extend(old.and_then(|old| pod_changed(&object["spec"], &old["spec"])));
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(&object["spec"], &mut causes),
        "EndpointSlice" => slice(object, old, &mut causes),
        "Lease" => {
            let seconds = &object["spec"]["leaseDurationSeconds"];
            if seconds.as_i64().is_some_and(|seconds| seconds <= 0) {
                causes.push(Cause::invalid(
                    "spec.leaseDurationSeconds",
                    seconds,
                    "must be greater than 0",
                ));
            }
        }
        _ => {}
    }
    causes
}

/// What is wrong with an Event in the form of events.k8s.io; the old form is hardly checked.
pub(crate) fn new_event(stored: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if stored["eventTime"].is_null() {
        causes.push(Cause::required("eventTime"));
    }
    if stored["message"]
        .as_str()
        .is_some_and(|note| note.chars().count() > NOTE_LENGTH)
    {
        let why = format!("can have at most {NOTE_LENGTH} characters");
        causes.push(Cause::invalid("message", &json!(""), why));
    }
    causes
}

fn workload(spec: &Value, causes: &mut Vec<Cause>) {
    if !spec["selector"].is_object() {
        causes.push(Cause::required("spec.selector"));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let wanted = spec["selector"]["matchLabels"].as_object();
    if wanted.is_some_and(|w| w.iter().any(|(k, v)| labels[k] != *v)) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    containers(&spec["template"]["spec"], "spec.template.spec", causes);
}

fn containers(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.containers")));
    }
}

/// Of a Pod only few fields change; a binding gives it a node, once.
fn pod_changed(new: &Value, old: &Value) -> Option<Cause> {
    let free = [
        "activeDeadlineSeconds",
        "schedulingGates",
        "terminationGracePeriodSeconds",
        "tolerations",
    ];
    let bound = old["nodeName"].is_string();
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !free.contains(&name.as_str()) && (bound || name != "nodeName"));
        }
        for list in ["containers", "initContainers"] {
            for container in items(&mut spec, list) {
                container["image"] = Value::Null;
            }
        }
        spec
    };
    let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    (fixed(new) != fixed(old)).then(|| Cause::forbidden("spec", why))
}

fn slice(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = &object["addressType"];
    if family.as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("addressType"));
    }
    if old.is_some_and(|old| old["addressType"] != *family) {
        causes.push(Cause::invalid("addressType", family, "field is immutable"));
        return;
    }
    let list = |name: &str| object[name].as_array().cloned().unwrap_or_default();
    for (i, endpoint) in list("endpoints").iter().enumerate() {
        let path = format!("endpoints[{i}].addresses");
        let addresses: Vec<&Value> = endpoint["addresses"].as_array().into_iter().flatten().collect();
        if addresses.is_empty() {
            let why = "Required value: must contain at least 1 address";
            causes.push(Cause::new(path.clone(), "FieldValueRequired", why));
        }
        for (j, address) in addresses.into_iter().enumerate() {
            causes.extend(address_error(family, address, &path, j));
        }
    }
    for (i, port) in list("ports").iter().enumerate() {
        let name = &port["name"];
        if let Some(why) = name
            .as_str()
            .filter(|name| !name.is_empty())
            .and_then(label_error)
        {
            causes.push(Cause::invalid(format!("ports[{i}].name"), name, why));
        }
        causes.extend(protocol_error(format!("ports[{i}].protocol"), &port["protocol"]));
    }
}

/// Where an endpoint cannot be.
fn address_error(family: &Value, value: &Value, path: &str, index: usize) -> Option<Cause> {
    if family != "IPv4" && family != "IPv6" {
        return None;
    }
    let invalid = |why: &str| Some(Cause::invalid(format!("{path}[{index}]"), value, why));
    let Ok(address) = value.as_str().unwrap_or_default().parse::<IpAddr>() else {
        return invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    };
    if address.is_ipv4() != (family == "IPv4") {
        let wanted = if family == "IPv4" {
            "must be an IPv4 address"
        } else {
            "must be an IPv6 address"
        };
        return Some(Cause::invalid(path, value, wanted));
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        invalid("may not be unspecified")
    } else if address.is_loopback() {
        invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else {
        None
    }
}
