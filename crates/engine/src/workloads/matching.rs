//! Workloads whose Pods a Service would select, whether or not they have any.

use jiff::Timestamp;

use crate::Facts;
use svcdiag_objects::{Object, Service, WorkloadSpec, WorkloadStatus, matches_labels};

/// Whether workloads would have the Service's Pods and all of them are scaled to 0. Pods that were evicted stay
/// behind then.
pub(crate) fn is_scaled_to_zero(facts: &Facts, service: &Service) -> bool {
    let workloads = matching(facts, service);
    !workloads.is_empty() && workloads.iter().all(|w| w.spec.replicas == Some(0))
}

/// A workload whose Pods the Service would select.
pub(crate) struct Matching<'a> {
    /// As `kubectl` names it.
    pub resource: String,
    pub uid: Option<&'a str>,
    pub spec: &'a WorkloadSpec,
    pub status: &'a WorkloadStatus,
    pub changed_at: Option<Timestamp>,
}

/// Workloads whose Pods the Service would select, as `kubectl` names them.
pub(crate) fn matching<'a>(facts: &'a Facts, service: &Service) -> Vec<Matching<'a>> {
    /// Makes a row of a workload.
    macro_rules! row {
        ($kind:literal, $of:expr) => {
            Matching {
                resource: format!(concat!($kind, "/{}"), $of.name()),
                uid: $of.metadata.uid.as_deref(),
                spec: &$of.spec,
                status: &$of.status,
                changed_at: $of.changed_at(),
            }
        };
    }
    let deployments = facts.deployments.iter().map(|d| row!("deployment", d));
    let stateful = facts.stateful_sets.iter().map(|s| row!("statefulset", s));
    // A ReplicaSet with an owner is a revision of a Deployment: old ones are always scaled to 0.
    let bare = facts
        .replica_sets
        .iter()
        .filter(|r| r.metadata.owner_references.as_ref().is_none_or(Vec::is_empty))
        .map(|r| row!("replicaset", r));
    let mut rows: Vec<Matching<'_>> = deployments
        .chain(stateful)
        .chain(bare)
        .filter(|w| matches_labels(&service.spec.selector, &w.spec.template.metadata.labels))
        .collect();
    rows.sort_by(|a, b| a.resource.cmp(&b.resource));
    rows
}
