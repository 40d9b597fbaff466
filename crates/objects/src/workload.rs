//! Deployment, ReplicaSet and StatefulSet: the same few fields matter of each.

use jiff::Timestamp;
use k8s_openapi::{api::apps::v1 as apps, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{Labels, null_is_default};

/// Declares a workload kind.
macro_rules! workload {
    ($(#[$meta:meta])* $kind:ident, $inherit:literal) => {
        $(#[$meta])*
        #[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[resource(inherit = $inherit)]
        pub struct $kind {
            /// Metadata.
            pub metadata: ObjectMeta,
            /// What is asked for.
            #[serde(default, deserialize_with = "null_is_default")]
            pub spec: WorkloadSpec,
            /// What there is.
            #[serde(default, deserialize_with = "null_is_default")]
            pub status: WorkloadStatus,
        }
    };
}

workload! {
    /// A Deployment.
    Deployment, "apps::Deployment"
}
workload! {
    /// A ReplicaSet: one revision of a Deployment.
    ReplicaSet, "apps::ReplicaSet"
}
workload! {
    /// A StatefulSet.
    StatefulSet, "apps::StatefulSet"
}

/// Spec of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// How many Pods; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What the Pods look like.
    #[serde(deserialize_with = "null_is_default")]
    pub template: PodTemplate,
    /// How long a rollout may make no progress, in seconds; 600 when absent (Deployments only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i32>,
    /// The headless Service under which the Pods have names (StatefulSets only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

/// Pod template; only the metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Metadata of the Pods to be.
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: TemplateMeta,
}

/// Metadata of a Pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels of the Pods to be.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: Labels,
}

/// Status of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadStatus {
    /// Conditions.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<WorkloadCondition>,
}

/// A condition of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadCondition {
    /// Type, for example Progressing.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the controller last saw progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
}
