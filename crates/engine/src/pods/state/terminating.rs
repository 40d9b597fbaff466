//! Pods that are being deleted and do not go away.

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts,
    pods::node::{self, NodeTrouble},
    time::later,
};
use svcdiag_objects::{Object, Pod};

/// How long the kubelet may take to clean up after the grace period of a Pod: containers are killed, volumes
/// unmounted and the sandbox torn down.
const CLEAN_UP: SignedDuration = SignedDuration::from_secs(60);

/// By when a Pod that is being deleted should be gone.
pub(crate) fn gone_by(pod: &Pod) -> Option<Timestamp> {
    // The API server sets it to the end of the grace period.
    let end = pod.metadata.deletion_timestamp.as_ref()?;
    Some(later(end.0, CLEAN_UP))
}

/// Since when, where, and what may hold the Pod.
pub(crate) fn describe(facts: &Facts, pod: &Pod) -> String {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let since = pod.metadata.deletion_timestamp.as_ref().map(|end| {
        let asked = end.0.checked_sub(SignedDuration::from_secs(grace.max(0)));
        format!(" since {}", asked.unwrap_or(end.0))
    });
    let node = pod
        .spec
        .node_name
        .as_deref()
        .map(|node| match node::trouble(facts, pod) {
            Some(NodeTrouble::NotReady(condition)) => {
                format!(" on node {}", node::describe_aside(node, condition))
            }
            Some(NodeTrouble::Gone) => {
                format!(" on node {node}, which is not among the Nodes of the cluster")
            }
            None => format!(" on node {node}"),
        });
    let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
    let held = match finalizers.is_empty() {
        true => String::new(),
        false => format!(", with finalizers {}", finalizers.join(", ")),
    };
    format!(
        "{} has been terminating{}{}{held}",
        pod.name(),
        since.unwrap_or_default(),
        node.unwrap_or_default()
    )
}
