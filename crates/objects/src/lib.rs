//! The objects of the cluster, cut down to the fields that a verdict can depend on.
//!
//! A cluster has many Pods and the controller keeps all of them in memory, so these types hold a
//! tenth of what `k8s_openapi`'s hold. They parse straight from the API's JSON: what they do not
//! name is skipped without being stored. The engine's `Facts` is made of them, so
//! that a verdict can be replayed from a file.

#![forbid(unsafe_code)]

mod endpoints;
mod event;
mod lease;
mod networkpolicy;
mod node;
mod pod;
mod policy_kinds;
mod selector;
mod service;
mod workload;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize};

pub use endpoints::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, Hint, TargetRef,
};
pub use event::{Event, EventSeries, InvolvedObject};
pub use lease::{Lease, LeaseSpec};
pub use networkpolicy::{
    EgressRule, IngressRule, IpBlock, NetworkPolicy, NetworkPolicySpec, Peer, PolicyPort,
};
pub use node::{Namespace, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, grants_clients_to};
pub use pod::{
    Container, ContainerPort, ContainerState, ContainerStatus, Pod, PodCondition, PodIp, PodSpec, PodStatus,
    Probe, ProbeTarget, ReadinessGate, Running, SchedulingGate, Terminated, Waiting,
};
pub use policy_kinds::{POLICY_KINDS, has_policy_kinds, policy_kind};
pub use selector::{LabelSelector, Operator, Requirement, matches_labels};
pub use service::{Ingress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus};
pub use svcdiag_api::{IpFamily, Open, Protocol};
pub use workload::{
    Deployment, PodTemplate, ReplicaSet, StatefulSet, WorkloadCondition, WorkloadSpec, WorkloadStatus,
};

/// Labels or annotations of an object, or a label map selector.
pub type Labels = BTreeMap<String, String>;

/// A port number or the name of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// Number.
    Int(i32),
    /// Name.
    String(String),
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::String(s) => f.write_str(s),
        }
    }
}

/// Reads `null` like an absent field: the API server may send either for an empty list or map.
///
/// # Errors
/// When the value is of another type.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Shorthands that every object has.
pub trait Object: Resource {
    /// metadata.name, empty when absent.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// metadata.namespace, empty for objects without one.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// metadata.labels; `None` is an empty map.
    fn labels(&self) -> &Labels {
        static EMPTY: Labels = Labels::new();
        self.meta().labels.as_ref().unwrap_or(&EMPTY)
    }

    /// The value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// When anybody last changed the object, as the API server noted it; it is what a grace
    /// period for things that follow the object counts from.
    fn changed_at(&self) -> Option<Timestamp> {
        let meta = self.meta();
        let managed = meta
            .managed_fields
            .iter()
            .flatten()
            .filter_map(|f| f.time.as_ref());
        managed
            .chain(meta.creation_timestamp.as_ref())
            .chain(meta.deletion_timestamp.as_ref())
            .map(|t| t.0)
            .max()
    }

    /// Whether the object is being deleted.
    fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
}

impl<K: Resource> Object for K {}

/// Annotation of a static Pod, and of its mirror in the API: the hash that its cgroup carries in place
/// of the UID.
pub const STATIC_POD_HASH: &str = "kubernetes.io/config.hash";

/// Annotation that marks the mirror of a static Pod.
pub const STATIC_POD_MIRROR: &str = "kubernetes.io/config.mirror";

/// Annotations that something depends on: those of ours that have a meaning, and those by which a static Pod's
/// processes are found.
const ANNOTATIONS: [&str; 5] = [
    svcdiag_api::CLIENTS_FOR_ANNOTATION,
    svcdiag_api::AUTO,
    svcdiag_api::REFRESH_ANNOTATION,
    STATIC_POD_HASH,
    STATIC_POD_MIRROR,
];

/// Longest value of an annotation that is kept: whoever may write one Pod may write 256 KiB of them.
const ANNOTATION_MAX: usize = 1024;

/// Cuts a list between two of its items: half the name of a Namespace may be that of another one.
fn cut(value: &mut String) {
    if value.len() > ANNOTATION_MAX {
        let end = value.as_bytes()[..=ANNOTATION_MAX]
            .iter()
            .rposition(|b| *b == b',');
        let end = end.unwrap_or(0);
        value.truncate(end);
        value.shrink_to_fit();
    }
}

/// Drops the metadata that nothing depends on: of managedFields only the latest time stays, of the
/// annotations those that something depends on.
pub fn trim_metadata(meta: &mut ObjectMeta) {
    if let Some(managed) = &mut meta.managed_fields {
        managed.sort_by(|a, b| b.time.cmp(&a.time));
        managed.truncate(1);
        for entry in managed {
            *entry = k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry {
                time: entry.time.take(),
                ..Default::default()
            };
        }
    }
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
        annotations.values_mut().for_each(cut);
    }
}
