//! Manifests, as they are kept in Git: objects that no API server has seen.

use serde_json::Value;

use super::identity::{group, text};
use crate::{
    engine::{PodTemplate, TemplatePort},
    objects::{Labels, PodSpec},
};

/// Whether an object is as somebody wrote it: an API server gives each a UID, a version and a time, and a status to those
/// that have one.
pub(super) fn is_manifest(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_unset = |field: &str| metadata.get(field).is_none_or(Value::is_null);
    ["uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .all(is_unset)
        && says_nothing(&object["status"])
}

/// `kubectl create --dry-run` writes `status: {}`, and `loadBalancer: {}` in that of a Service.
fn says_nothing(status: &Value) -> bool {
    match status {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(says_nothing),
        _ => false,
    }
}

/// What the manifest of a workload says of its Pods; None of other kinds.
pub(super) fn template(object: &Value) -> Option<PodTemplate> {
    let kind = text(object, "/kind");
    let template = match (group(object), kind) {
        ("", "Pod") => object,
        ("apps" | "extensions", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("argoproj.io", "Rollout")
        | ("", "ReplicationController") => object.pointer("/spec/template")?,
        _ => return None,
    };
    let labels = template.pointer("/metadata/labels").cloned();
    let labels: Labels = labels
        .and_then(|l| serde_json::from_value(l).ok())
        .unwrap_or_default();
    let spec = template.get("spec").cloned().unwrap_or_default();
    let spec: PodSpec = serde_json::from_value(spec).ok()?;
    let sidecars = spec.init_containers.iter().filter(|c| c.is_sidecar());
    let containers = spec.containers.iter().chain(sidecars);
    let port = |p: &crate::objects::ContainerPort| TemplatePort {
        name: p.name.clone(),
        number: p.container_port,
        protocol: p.protocol.clone(),
    };
    Some(PodTemplate {
        kind: kind.to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        labels,
        ports: containers.flat_map(|c| &c.ports).map(port).collect(),
    })
}
