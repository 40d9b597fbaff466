//! Whether and since when the containers of a Pod have run.

use jiff::Timestamp;

use svcdiag_objects::{ContainerStatus, Pod};

/// Whether a container of the Pod has ever run.
pub(crate) fn have_run(pod: &Pod) -> bool {
    statuses(pod).any(|s| {
        let states = [&s.state, &s.last_state];
        states
            .iter()
            .any(|state| state.running.is_some() || state.terminated.is_some())
    })
}

/// When the last container that runs was started.
pub(crate) fn last_start(pod: &Pod) -> Option<Timestamp> {
    statuses(pod)
        .filter_map(|s| s.state.running.as_ref()?.started_at)
        .max()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let init = pod.status.init_container_statuses.iter();
    init.chain(&pod.status.container_statuses)
}
