//! Types of built-in kinds, as k8s-openapi has them: what does not fit is refused, what they lack is
//! left out.

use k8s_openapi::{
    api::{
        apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        networking::v1 as networking,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::resources::Resource;

/// Removes the fields that an object's type does not have; returns their paths. Kinds that nobody
/// writes by hand are not checked.
///
/// # Errors
/// When a value is not of its field's type.
pub(crate) fn prune(resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
    match resource.kind.as_str() {
        "ConfigMap" => prune_as::<core::ConfigMap>(object),
        "DaemonSet" => prune_as::<apps::DaemonSet>(object),
        "Deployment" => prune_as::<apps::Deployment>(object),
        "EndpointSlice" => prune_as::<discovery::EndpointSlice>(object),
        "Lease" => prune_as::<coordination::Lease>(object),
        "Namespace" => prune_as::<core::Namespace>(object),
        "NetworkPolicy" => prune_as::<networking::NetworkPolicy>(object),
        "Node" => prune_as::<core::Node>(object),
        "Pod" => prune_as::<core::Pod>(object),
        "ReplicaSet" => prune_as::<apps::ReplicaSet>(object),
        "Service" => prune_as::<core::Service>(object),
        "StatefulSet" => prune_as::<apps::StatefulSet>(object),
        _ => prune_metadata(object),
    }
}

/// The same for the metadata alone.
pub(crate) fn prune_metadata(object: &mut Value) -> Result<Vec<String>, String> {
    let unknown = prune_as::<ObjectMeta>(&mut object["metadata"])?;
    Ok(unknown
        .into_iter()
        .map(|path| format!("metadata.{path}"))
        .collect())
}

fn prune_as<T: DeserializeOwned + Serialize>(object: &mut Value) -> Result<Vec<String>, String> {
    let typed = T::deserialize(&*object).map_err(|e| e.to_string())?;
    let kept = serde_json::to_value(typed).map_err(|e| e.to_string())?;
    let mut unknown = Vec::new();
    difference(object, &kept, "", &mut unknown);
    Ok(unknown)
}

/// Takes the fields from `given` that `kept` lacks; null and empty values may stay.
fn difference(given: &mut Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
    match given {
        Value::Object(fields) => fields.retain(|name, value| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let empty = value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            match kept.get(name) {
                None if empty => true,
                None => {
                    unknown.push(path);
                    false
                }
                Some(kept) => {
                    difference(value, kept, &path, unknown);
                    true
                }
            }
        }),
        Value::Array(items) => {
            for (i, (given, kept)) in items
                .iter_mut()
                .zip(kept.as_array().into_iter().flatten())
                .enumerate()
            {
                difference(given, kept, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}
