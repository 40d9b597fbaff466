//! What was said of a Pod by Events, as far as it is still true.

use crate::{
    Facts,
    pods::{events, state::runs},
};
use svcdiag_objects::{Event, Pod};

/// The last Warning about a Pod that is still true of it.
pub(super) fn said_of(facts: &Facts, pod: &Pod) -> Option<String> {
    last_said(facts, pod, |event| {
        // What a running program does not answer is told by the probe; that an image's secret is missing does not
        // matter where the image is there.
        !matches!(
            event.reason.as_str(),
            "Unhealthy" | "BackOff" | "FailedToRetrieveImagePullSecret"
        )
    })
}

/// The last Warning of some kind about a Pod, unless things went on after it.
pub(super) fn last_said(facts: &Facts, pod: &Pod, matters: impl Fn(&Event) -> bool) -> Option<String> {
    let started = runs::last_start(pod);
    let is_placed = pod.spec.node_name.is_some();
    let event = events::last_about_pod(facts, pod, |event| {
        let is_past = started.is_some_and(|at| event.last_seen().is_none_or(|seen| seen < at))
            || is_placed && event.reason == "FailedScheduling";
        !is_past && matters(event)
    })?;
    Some(events::describe(event))
}
