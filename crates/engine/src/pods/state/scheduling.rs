//! Pods that are not placed on a node.

use crate::{
    Facts,
    pods::{
        events::one_line,
        state::{
            deadlines,
            trouble::{Hold, Trouble},
        },
    },
};
use svcdiag_objects::Pod;

/// Parts of the scheduler's messages about volumes (plugins VolumeBinding, VolumeZone, VolumeRestrictions and
/// NodeVolumeLimits).
const OF_VOLUMES: [&str; 6] = [
    "persistentvolumeclaim",
    "persistent volumes to bind",
    "persistentvolume",
    "volume node affinity",
    "volume zone",
    "max volume count",
];

/// The scheduler says that it cannot place the Pod. A cluster that grows on demand takes minutes for a node, and so
/// does a volume, so that the Pod has the time to start that every other has.
pub(crate) fn trouble(facts: &Facts, pod: &Pod) -> Option<Trouble> {
    let condition = pod.condition("PodScheduled").filter(|c| c.status == "False")?;
    let said = condition.message.as_deref().or(condition.reason.as_deref());
    let said = one_line(said.unwrap_or_default());
    let (hold, text) = if condition.reason.as_deref() == Some("SchedulingGated") {
        let gates: Vec<&str> = pod
            .spec
            .scheduling_gates
            .iter()
            .map(|g| g.name.as_str())
            .collect();
        let named = if gates.is_empty() {
            String::new()
        } else {
            format!(" {}", gates.join(", "))
        };
        (
            Hold::Gate,
            format!("it is not scheduled until its scheduling gates{named} are removed"),
        )
    } else if OF_VOLUMES.iter().any(|part| said.to_lowercase().contains(part)) {
        (
            Hold::Volume,
            format!("it cannot be scheduled because it waits for a volume: {said}"),
        )
    } else if said.is_empty() {
        (Hold::NoNode, "the scheduler finds no node for it".to_owned())
    } else {
        (
            Hold::NoNode,
            format!("the scheduler finds no node for it: {said}"),
        )
    };
    Some(deadlines::patience(
        facts,
        deadlines::start(facts, pod),
        Trouble::Unschedulable(hold, text),
    ))
}
