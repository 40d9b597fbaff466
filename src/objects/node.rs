//! Node and Namespace: only their metadata matters.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

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
