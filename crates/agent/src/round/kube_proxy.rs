//! kube-proxy of the node.
//!
//! An unhealthy one is sampled again until it is healthy, or for long enough to count: kube-proxy may only be restarting,
//! or have been late once. Recovery is noticed within a second, so that no good result is delayed.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Memory, Round};
use crate::kubeproxy::{SAMPLE_INTERVAL, SAMPLE_LASTS, State};
use svcdiag_api::{KubeProxy, PortState};

/// Pause before an unhealthy one is sampled again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn probe(round: &Round<'_>, memory: &Memory) -> KubeProxy {
    let (kube_proxy, netns) = (&round.node.kube_proxy, &round.node.netns);
    let mut state = kube_proxy.state(netns, not_before(round, memory)).await;
    let is_young = |since: Instant| SAMPLE_INTERVAL.checked_sub(since.elapsed());
    while let Some(rest) = state.ill_since.and_then(is_young) {
        // A sample of another NodeProbe's round counts as well.
        let seen = Instant::now();
        tokio::time::sleep(rest.min(AGAIN)).await;
        state = kube_proxy.state(netns, seen).await;
    }
    let processes_unread = state.processes.is_err();
    let processes = state
        .processes
        .inspect_err(|error| {
            round.problem(format!("The node's processes could not be listed: {error}."));
        })
        .unwrap_or_default();
    KubeProxy {
        mode: state.sample.mode.map(|mode| mode.to_string()),
        process: processes.kube_proxy,
        replacement: processes.replacement,
        processes_unread,
        livez: state.sample.livez,
        metrics: state.sample.metrics_port,
        runs_as: processes.runs_as,
        unit: processes.unit,
        node_name: processes.node_name.filter(|name| *name != round.node.name),
        not_syncing: state.lag.not_syncing,
        sync_error: state.lag.sync_error,
        api_unreachable: state.lag.api_unreachable,
        // Its counters do not say for what.
        denied: state.lag.is_denied.then(|| "?".to_owned()),
    }
}

/// Whether kube-proxy, by its own metrics, has yet to write the change made at a time, or has not been told of it: a
/// late watch is no more a fault than a long sync. While its metrics cannot be read, that is not known, and it may.
pub(super) async fn may_still_write(round: &Round<'_>, changed: Option<Timestamp>) -> bool {
    let now = Instant::now();
    let not_before = now.checked_sub(SAMPLE_LASTS).unwrap_or(now);
    let State { sample, lag, .. } = round.node.kube_proxy.state(&round.node.netns, not_before).await;
    match &sample.metrics {
        Some(metrics) => {
            lag.changes_pending || changed.is_some_and(|at| metrics.has_heard_since(at) == Some(false))
        }
        None => may_write_unseen(sample.metrics_port),
    }
}

/// Without metrics: where nothing listens there is no kube-proxy to wait for. One that answers otherwise, or not in
/// time, may be about to write.
fn may_write_unseen(metrics_port: PortState) -> bool {
    metrics_port != PortState::Closed
}

/// A new request needs a fresh sample; at the interval, a recent shared one is enough.
fn not_before(round: &Round<'_>, memory: &Memory) -> Instant {
    let now = Instant::now();
    let mut revision = memory.revision.lock();
    if revision.as_ref() == Some(&round.spec.revision) {
        now.checked_sub(SAMPLE_LASTS).unwrap_or(now)
    } else {
        *revision = Some(round.spec.revision.clone());
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kube_proxy_whose_metrics_cannot_be_read_may_still_write() {
        for metrics_port in [PortState::Ok, PortState::Failing, PortState::Silent] {
            assert!(may_write_unseen(metrics_port), "{metrics_port}");
        }
        assert!(!may_write_unseen(PortState::Closed));
    }
}
