//! Node and Namespace: only their metadata matters.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::Object;

/// A Node.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Node")]
pub struct Node {
    /// Metadata.
    pub metadata: ObjectMeta,
}

/// A Namespace.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Namespace")]
pub struct Namespace {
    /// Metadata.
    pub metadata: ObjectMeta,
}

/// Whether the owner of a Namespace lends its Pods as clients to the diagnoses of another one.
#[must_use]
pub fn grants_clients_to(namespace: &Namespace, other: &str) -> bool {
    let granted = namespace
        .annotation(crate::api::CLIENTS_FOR_ANNOTATION)
        .unwrap_or_default();
    granted.split(',').any(|name| name.trim() == other)
}
