//! The scale subresource: a view of spec.replicas.

use serde_json::{Value, json};

use super::{cause::Cause, status::Failure};

/// An object as autoscaling/v1 Scale.
pub(crate) fn scale(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    let meta = &object["metadata"];
    let spec = match object["spec"]["replicas"].as_i64() {
        None | Some(0) => json!({}),
        Some(replicas) => json!({ "replicas": replicas }),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"] },
        "spec": spec,
        "status": { "replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",") },
    })
}

/// Changes an object by a change of its scale.
pub(crate) fn change(
    object: &mut Value,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut scale = scale(object);
    change(&mut scale)?;
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let cause = Cause::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        );
        return Err(Failure::invalid_kind("autoscaling", "Scale", name, &[cause]));
    }
    object["spec"]["replicas"] = json!(replicas);
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].take();
    Ok(())
}
