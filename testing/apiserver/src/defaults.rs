//! Defaults of built-in kinds, as far as anybody here depends on them.

use serde_json::{Value, json};

use super::{
    edit::{default, items},
    resources::Resource,
    service,
};

/// Fills in what the API server would.
pub(crate) fn set(resource: &Resource, object: &mut Value) {
    match resource.kind.as_str() {
        "Service" => service::set_defaults(object),
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
        "CustomResourceDefinition" => {
            let names = &mut object["spec"]["names"];
            let kind = names["kind"].as_str().unwrap_or_default().to_owned();
            default(names, "singular", json!(kind.to_lowercase()));
            default(names, "listKind", json!(format!("{kind}List")));
            default(&mut object["spec"], "conversion", json!({ "strategy": "None" }));
        }
        "Namespace" => {
            default(&mut object["spec"], "finalizers", json!(["kubernetes"]));
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
