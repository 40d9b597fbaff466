//! Endpoints that change are no fault: while nothing but them changes (a rollout, scaling) a stage keeps its last
//! answer until the agents have looked again.
//!
//! Only the wait for agents is bridged. What is found anew counts at once, be it good or bad.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Facts, Finding, NodeReport,
    pod_state::{self, Trouble, later},
    vantage::Vantage,
};
use crate::{
    api::{ConditionStatus, ConditionType, NodeProbeSpec, ProbeService, Reason},
    objects::Object,
};

/// How long after the last change of the endpoints an answer from before it may stand.
const KEPT_FOR: SignedDuration = SignedDuration::from_secs(30);

/// For so long nothing happens to the endpoints when a rollout is over.
const QUIET_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Whether what the agents are to be asked is what they were asked last, with other endpoints. A node that comes
/// in with them was not asked yet.
pub(super) fn only_endpoints_differ(nodes: &[NodeReport], plan: &BTreeMap<String, NodeProbeSpec>) -> bool {
    let asked = |n: &NodeReport| n.probe.as_ref().map(|p| without_endpoints(&p.asked));
    let mut before = nodes
        .iter()
        .filter_map(|n| Some((asked(n)?, without_endpoints(plan.get(&n.name)?))))
        .peekable();
    before.peek().is_some() && before.all(|(asked, planned)| asked == planned)
}

/// The question without what follows from the endpoints. Who tries is no part of it, since Pods that stand for
/// clients are replaced as well; nor are the Pods of cluster DNS.
fn without_endpoints(question: &NodeProbeSpec) -> NodeProbeSpec {
    let mut dns = question.cluster_dns.clone();
    if let Some(dns) = &mut dns {
        dns.endpoints.clear();
    }
    NodeProbeSpec {
        cluster_dns: dns,
        service: ProbeService {
            is_cut: false,
            changed_time: None,
            ..question.service.clone()
        },
        subsets: Vec::new(),
        slices: Vec::new(),
        from_node: false,
        clients: Vec::new(),
        endpoints: Vec::new(),
        revision: String::new(),
        ..question.clone()
    }
}

/// Until when answers from before the change of the endpoints stand.
fn until(facts: &Facts) -> Option<Timestamp> {
    let is_recent = |at: Timestamp| facts.now.duration_since(at).abs() < KEPT_FOR;
    // A policy may be what shuts the clients out now.
    let policy_changed = facts
        .policies
        .iter()
        .filter_map(|p| p.changed_at())
        .any(is_recent);
    let changed = facts.slices.iter().filter_map(|s| s.changed_at()).max()?;
    (facts.only_endpoints_differ && is_recent(changed) && !policy_changed).then(|| later(changed, KEPT_FOR))
}

/// The last answer of a stage in place of one that only waits for agents. Of the faults that is the root cause
/// alone, since nothing but its remedy was written.
pub(super) fn instead_of(facts: &Facts, condition: ConditionType, fresh: Finding) -> Finding {
    if fresh.reason != Reason::Pending || Vantage::of(facts).waiting.is_empty() {
        return fresh;
    }
    let last = || {
        let written = facts.previous.as_ref()?;
        let last = written
            .conditions
            .iter()
            .find(|c| c.type_ == condition.as_str())?;
        let reason: Reason = last.reason.parse().ok()?;
        let message = last.message.clone();
        match last.status.parse().ok()? {
            ConditionStatus::True => Some(Finding::yes(reason, message)),
            ConditionStatus::False => {
                let cause = written.root_cause.as_ref();
                let cause = cause.filter(|c| c.condition == condition.as_str())?;
                Some(Finding::fault(
                    cause.impact,
                    reason,
                    message,
                    cause.remediation.clone(),
                ))
            }
            ConditionStatus::Unknown => reason.is_satisfied().then(|| Finding::unknown(reason, message)),
        }
    };
    match until(facts).and_then(|until| Some((until, last()?))) {
        Some((until, last)) => last.recheck_at(Some(until)),
        None => fresh,
    }
}

/// When the endpoints have come to rest, unless they change again: in the far future while Pods come or go.
pub(super) fn settled_at(facts: &Facts) -> Option<Timestamp> {
    let is_starting = |pod| matches!(pod_state::trouble(facts, pod), Trouble::Starting(_));
    let mut pods = facts.selected_pods().into_iter();
    if pods.any(|p| p.is_terminating() || !p.is_ready() && is_starting(p)) {
        return Some(Timestamp::MAX);
    }
    let changed = facts.slices.iter().filter_map(|s| s.changed_at()).max()?;
    Some(later(changed, QUIET_FOR))
}
