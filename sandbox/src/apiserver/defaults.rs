//! Defaults and checks of built-in kinds, as far as anybody here depends on them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{resources::Resource, status::Cause};

/// Service addresses, and the two ranges of node ports.
const SERVICE_PREFIX_V4: &str = "10.96";
const SERVICE_PREFIX_V6: &str = "fd00:10:96::";
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

fn default(object: &mut Value, name: &str, value: Value) {
    if object[name].is_null() {
        object[name] = value;
    }
}

fn items<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    // Not by index: that would leave a null where nothing is.
    object
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Addresses and node ports that are taken.
#[derive(Default)]
pub(crate) struct Taken {
    pub addresses: BTreeSet<String>,
    pub node_ports: BTreeSet<i64>,
}

/// Fills in what the API server would.
pub(crate) fn set(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    taken: impl FnOnce() -> Taken,
) {
    match resource.kind.as_str() {
        "Service" => service(object, old, taken),
        "Pod" => {
            pod_spec(&mut object["spec"]);
            if object["status"].is_null() {
                object["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
            }
        }
        "Deployment" => {
            let spec = &mut object["spec"];
            default(spec, "replicas", json!(1));
            default(spec, "progressDeadlineSeconds", json!(600));
            default(spec, "revisionHistoryLimit", json!(10));
            default(spec, "strategy", json!({ "type": "RollingUpdate" }));
            if spec["strategy"]["type"] == "RollingUpdate" {
                default(
                    &mut spec["strategy"],
                    "rollingUpdate",
                    json!({ "maxSurge": "25%", "maxUnavailable": "25%" }),
                );
            }
            pod_spec(&mut spec["template"]["spec"]);
        }
        "ReplicaSet" | "StatefulSet" => {
            default(&mut object["spec"], "replicas", json!(1));
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        "NetworkPolicy" => network_policy(&mut object["spec"]),
        "EndpointSlice" => items(object, "ports").for_each(|port| {
            default(port, "protocol", json!("TCP"));
            default(port, "name", json!(""));
        }),
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            if object["metadata"]["labels"].is_null() {
                object["metadata"]["labels"] = json!({});
            }
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            if object["status"].is_null() {
                object["status"] = json!({ "phase": "Active" });
            }
        }
        _ => {}
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            default(container, "imagePullPolicy", json!("IfNotPresent"));
            items(container, "ports").for_each(|port| default(port, "protocol", json!("TCP")));
            for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
                if container[probe].is_object() {
                    default(&mut container[probe], "periodSeconds", json!(10));
                    default(&mut container[probe], "failureThreshold", json!(3));
                    default(&mut container[probe], "successThreshold", json!(1));
                    default(&mut container[probe], "timeoutSeconds", json!(1));
                }
            }
        }
    }
}

fn network_policy(spec: &mut Value) {
    if !spec["policyTypes"].is_array() {
        let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
        spec["policyTypes"] = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| default(port, "protocol", json!("TCP")));
        }
    }
}

fn service(object: &mut Value, old: Option<&Value>, taken: impl FnOnce() -> Taken) {
    let spec = &mut object["spec"];
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
    if object["status"].is_null() {
        object["status"] = json!({ "loadBalancer": {} });
    }
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" {
        for name in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            if let Some(fields) = spec.as_object_mut() {
                fields.remove(name);
            }
        }
        return;
    }
    default(spec, "internalTrafficPolicy", json!("Cluster"));
    let mut taken = taken();
    addresses(spec, old, &mut taken);
    if spec["type"] == "NodePort" || spec["type"] == "LoadBalancer" {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
        for port in items(spec, "ports") {
            if port["nodePort"].as_i64().unwrap_or(0) == 0 {
                let before = old.and_then(|o| {
                    o["spec"]["ports"]
                        .as_array()?
                        .iter()
                        .find(|p| p["port"] == port["port"])?["nodePort"]
                        .as_i64()
                });
                let free = before.or_else(|| NODE_PORTS.into_iter().find(|n| !taken.node_ports.contains(n)));
                if let Some(free) = free {
                    taken.node_ports.insert(free);
                    port["nodePort"] = json!(free);
                }
            }
        }
    }
}

/// Allocates the Service's addresses, one for each family; an update keeps them.
fn addresses(spec: &mut Value, old: Option<&Value>, taken: &mut Taken) {
    let before = old.map(|o| &o["spec"]).filter(|s| s["clusterIP"].is_string());
    if let Some(before) = before {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[name].is_null() {
                spec[name] = before[name].clone();
            }
        }
    }
    let dual = matches!(
        spec["ipFamilyPolicy"].as_str(),
        Some("PreferDualStack" | "RequireDualStack")
    );
    default(spec, "ipFamilyPolicy", json!("SingleStack"));
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        let given = spec["clusterIP"].as_str().is_some_and(|ip| ip.contains(':'));
        spec["ipFamilies"] = if given { json!(["IPv6"]) } else { json!(["IPv4"]) };
    }
    if let Some(families) = spec["ipFamilies"].as_array_mut().filter(|f| dual && f.len() == 1) {
        families.push(if families[0] == "IPv4" {
            json!("IPv6")
        } else {
            json!("IPv4")
        });
    }
    if spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
        return;
    }
    let families: Vec<String> = spec["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect();
    let mut ips: Vec<Value> = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
    if let (true, Some(first)) = (
        ips.is_empty(),
        spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()),
    ) {
        ips.push(json!(first));
    }
    for family in families.iter().skip(ips.len()) {
        let free = (256..65_000_u32).map(|n| match family.as_str() {
            "IPv6" => format!("{SERVICE_PREFIX_V6}{n:x}"),
            _ => format!("{SERVICE_PREFIX_V4}.{}.{}", n / 256, n % 256),
        });
        if let Some(free) = free.into_iter().find(|ip| !taken.addresses.contains(ip)) {
            taken.addresses.insert(free.clone());
            ips.push(json!(free));
        }
    }
    spec["clusterIP"] = ips.first().cloned().unwrap_or(Value::Null);
    spec["clusterIPs"] = Value::Array(ips);
}

/// What is wrong with an object of a built-in kind beyond its types.
pub(crate) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.kind.as_str() {
        "Service" => validate_service(object, old, &mut causes),
        "Pod" => validate_containers(&object["spec"], "spec", &mut causes),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            if !object["spec"]["selector"].is_object() {
                causes.push(Cause::required("spec.selector"));
            }
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            let wanted = object["spec"]["selector"]["matchLabels"].as_object();
            if wanted.is_some_and(|w| w.iter().any(|(k, v)| labels[k] != *v)) {
                let why = "`selector` does not match template `labels`";
                causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
            }
            validate_containers(
                &object["spec"]["template"]["spec"],
                "spec.template.spec",
                &mut causes,
            );
        }
        _ => {}
    }
    causes
}

fn validate_containers(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.containers")));
    }
}

fn validate_service(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let ports: Vec<&Value> = spec["ports"].as_array().into_iter().flatten().collect();
    let headless_or_alias = spec["type"] == "ExternalName" || spec["clusterIP"] == "None";
    if ports.is_empty() && !headless_or_alias {
        causes.push(Cause::required("spec.ports"));
    }
    for (i, port) in ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{i}].{field}");
        if !port["port"].as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
            causes.push(Cause::invalid(
                path("port"),
                &port["port"],
                "must be between 1 and 65535, inclusive",
            ));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(path("name")));
        }
        match &port["targetPort"] {
            Value::Number(n) if !n.as_i64().is_some_and(|n| (1..=65535).contains(&n)) => {
                causes.push(Cause::invalid(
                    path("targetPort"),
                    &port["targetPort"],
                    "must be between 1 and 65535, inclusive",
                ));
            }
            Value::String(name) => causes.extend(
                port_name_error(name).map(|why| Cause::invalid(path("targetPort"), &port["targetPort"], why)),
            ),
            _ => {}
        }
        let twin = |p: &&&Value| p["port"] == port["port"] && p["protocol"] == port["protocol"];
        if ports[..i].iter().any(|p| twin(&p)) {
            let value = json!({ "port": port["port"], "protocol": port["protocol"] });
            causes.push(Cause {
                field: format!("spec.ports[{i}]"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {value}"),
            });
        }
    }
    let before = old.map(|o| &o["spec"]["clusterIP"]).filter(|ip| ip.is_string());
    if before.is_some_and(|ip| *ip != spec["clusterIP"] && spec["type"] != "ExternalName") {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIP"],
            "may not change once set",
        ));
    }
}

/// IANA_SVC_NAME, the form of port names (validation.IsValidPortName).
fn port_name_error(name: &str) -> Option<&'static str> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > 15 {
        Some("must be no more than 15 characters")
    } else if name.is_empty() || !name.chars().all(valid) {
        Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    } else if !name.chars().any(|c| c.is_ascii_lowercase()) {
        Some("must contain at least one letter (a-z)")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Some("must not begin or end with a hyphen, or contain consecutive hyphens")
    } else {
        None
    }
}

/// Parses an object as its k8s-openapi type: types are checked, and fields that the type does not
/// have are found by what is lost. Kinds that nobody writes by hand are not checked.
pub(crate) fn unknown_fields(resource: &Resource, object: &Value) -> Result<Vec<String>, String> {
    use k8s_openapi::api::{
        apps::v1 as apps, core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
    };
    fn lost<T: serde::de::DeserializeOwned + serde::Serialize>(
        object: &Value,
    ) -> Result<Vec<String>, String> {
        let typed: T = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
        let mut lost = Vec::new();
        difference(
            object,
            &serde_json::to_value(typed).map_err(|e| e.to_string())?,
            "",
            &mut lost,
        );
        Ok(lost)
    }
    match resource.kind.as_str() {
        "ConfigMap" => lost::<core::ConfigMap>(object),
        "Deployment" => lost::<apps::Deployment>(object),
        "EndpointSlice" => lost::<discovery::EndpointSlice>(object),
        "Namespace" => lost::<core::Namespace>(object),
        "NetworkPolicy" => lost::<networking::NetworkPolicy>(object),
        "Node" => lost::<core::Node>(object),
        "Pod" => lost::<core::Pod>(object),
        "ReplicaSet" => lost::<apps::ReplicaSet>(object),
        "Service" => lost::<core::Service>(object),
        "StatefulSet" => lost::<apps::StatefulSet>(object),
        _ => Ok(Vec::new()),
    }
}

/// Fields of `given` that `kept` lacks; null and empty values may go.
fn difference(given: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), kept) => {
            for (name, value) in given {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let empty = value.is_null()
                    || value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty);
                match kept.get(name) {
                    None if empty => {}
                    None => lost.push(path),
                    Some(kept) => difference(value, kept, &path, lost),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (i, (given, kept)) in given.iter().zip(kept).enumerate() {
                difference(given, kept, &format!("{path}[{i}]"), lost);
            }
        }
        _ => {}
    }
}
