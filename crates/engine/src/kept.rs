//! Endpoints that change are no fault: while nothing but them changes (a rollout, scaling) a stage keeps its last
//! answer until the agents have looked again.
//!
//! Nor is it one that the sample of nodes moves on: a node that has come into it is waited for in the same way.
//!
//! A node that fails takes endpoints away as a rollout does. Where the cluster says that a node is not Ready, its agent is
//! not waited for longer than one that lives takes.
//!
//! Only the wait for agents is bridged. What is found anew counts at once, be it good or bad.

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts, Finding, ProbeReport,
    evidence::Evidence,
    plan::approval,
    pods::state::{self, trouble::Trouble},
    time::later,
};
use svcdiag_api::{
    ConditionStatus, ConditionType, NodeProbeSpec, Observation, Reason, ServiceDiagnosisStatus,
};
use svcdiag_objects::{Node, Object};

/// How long after the last change of the endpoints an answer from before it may stand.
const KEPT_FOR: SignedDuration = SignedDuration::from_secs(30);

/// How long an agent may owe its answer. Endpoints that change more often than it can look leave it no time for one,
/// and what nobody has looked at for longer is not known.
const OWED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// How long it may owe its answer where its Node is not Ready and has Pods of the Service or its clients: then a node has
/// probably failed, and not only endpoints changed. An agent that lives takes three seconds and a few dials to answer.
const OWED_BY_UNREADY_FOR: SignedDuration = SignedDuration::from_secs(10);

/// How long an agent that has nothing to wait for takes to answer.
pub(crate) const ANSWERED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// For so long nothing happens to the endpoints when a rollout is over.
const QUIET_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Until when answers from before stand in for those of the nodes that are waited for: after a change of the endpoints, or
/// where none of these nodes was asked before and all others have answered what they are asked now.
fn until(facts: &Facts, waiting: &[&str]) -> Option<Timestamp> {
    if !facts.only_endpoints_differ {
        return None;
    }
    let owing = || {
        let nodes = facts.nodes.iter().filter(|n| waiting.contains(&&*n.name));
        nodes.filter_map(|n| n.probe.as_deref())
    };
    let owed_until = |probe: &ProbeReport| {
        let patience = match has_probably_failed(facts, &probe.asked) {
            true => OWED_BY_UNREADY_FOR,
            false => OWED_FOR,
        };
        Some(later(probe.owed_since?, patience))
    };
    let owed = owing().filter_map(owed_until).min();
    let are_all_new = !waiting.is_empty() && owing().all(|probe| probe.facts.is_none());
    let until = match facts.endpoints_settle_at(KEPT_FOR) {
        Some(kept) if kept > facts.now => owed.map_or(kept, |owed| kept.min(owed)),
        _ => owed.filter(|_| are_all_new)?,
    };
    (until > facts.now).then_some(until)
}

/// Whether the cluster has lost a node that matters to the Service beyond what is seen from there.
fn has_probably_failed(facts: &Facts, asked: &NodeProbeSpec) -> bool {
    let is_ready = |node: &Node| node.ready().is_none_or(|ready| ready.status == "True");
    let has_pods = !asked.endpoints.is_empty() || !asked.clients.is_empty();
    has_pods
        && facts
            .cluster_node(&asked.node_name)
            .is_some_and(|node| !is_ready(node))
}

/// The last answer of a stage in place of one that only waits for agents. Of the faults that is the root cause
/// alone, since nothing but its remedy was written.
pub(crate) fn instead_of(evidence: &Evidence<'_>, condition: ConditionType, fresh: Finding) -> Finding {
    let facts = evidence.facts;
    let waiting = &evidence.reports.waiting;
    // Nor are clients of another namespace asked while an endpoint comes or goes.
    let is_waited_for = !waiting.is_empty() || approval::foreign_clients_are_kept_away(facts);
    if fresh.reason != Reason::Pending || !is_waited_for {
        return fresh;
    }
    let kept = || {
        let until = until(facts, waiting)?;
        let last = last(facts.previous.as_deref()?, condition)?;
        Some(Finding {
            is_kept: true,
            ..last.recheck_at(Some(until))
        })
    };
    kept().unwrap_or(fresh)
}

fn last(written: &ServiceDiagnosisStatus, condition: ConditionType) -> Option<Finding> {
    let is_it = |name: &str| name == condition.as_str();
    let last = written.conditions.iter().find(|c| is_it(&c.type_))?;
    let reason: Reason = last.reason.parse().ok()?;
    let message = last.message.clone();
    match last.status.parse().ok()? {
        ConditionStatus::True => Some(Finding::yes(reason, message)),
        ConditionStatus::False => {
            let cause = written.root_cause.as_ref().filter(|c| is_it(&c.condition))?;
            let remediation = cause.remediation.clone();
            Some(Finding::fault(cause.impact, reason, message, remediation))
        }
        ConditionStatus::Unknown => reason.is_satisfied().then(|| Finding::unknown(reason, message)),
    }
}

/// What was seen of the stages whose answers are kept, on the nodes that are waited for.
pub(crate) fn observations(evidence: &Evidence<'_>, stages: &[(ConditionType, Finding)]) -> Vec<Observation> {
    let seen = evidence.facts.previous.iter().flat_map(|p| &p.observations);
    let is_kept = |o: &&Observation| {
        let mut stages = stages.iter().filter(|(_, finding)| finding.is_kept);
        let is_waited_for = |node: &str| evidence.reports.waiting.contains(&node);
        stages.any(|(c, _)| c.as_str() == o.condition) && o.node.as_deref().is_none_or(is_waited_for)
    };
    seen.filter(is_kept).cloned().collect()
}

/// What was said of how the nodes forward packets, while the answer about their rules is kept.
pub(crate) fn proxy<'a>(
    facts: &'a Facts,
    stages: &[(ConditionType, Finding)],
) -> Option<&'a ServiceDiagnosisStatus> {
    let mut kept = stages.iter().filter(|(_, finding)| finding.is_kept);
    let is_kept = kept.any(|(condition, _)| *condition == ConditionType::ProxyRulesPresent);
    facts.previous.as_deref().filter(|_| is_kept)
}

/// When the endpoints have come to rest, unless they change again: in the far future while Pods come or go.
pub(crate) fn settled_at(facts: &Facts) -> Option<Timestamp> {
    let is_starting = |pod| matches!(state::trouble(facts, pod), Trouble::Starting(_));
    let mut pods = facts.selected_pods().into_iter();
    if pods.any(|p| p.is_terminating() || !p.is_ready() && is_starting(p)) {
        return Some(Timestamp::MAX);
    }
    facts.endpoints_settle_at(QUIET_FOR)
}

/// Until when those that are waited for may be about to answer.
pub(crate) fn answered_at(facts: &Facts, waiting: &[&str]) -> Option<Timestamp> {
    let nodes = facts.nodes.iter().filter(|n| waiting.contains(&&*n.name));
    let owed_since = nodes.filter_map(|n| n.probe.as_ref()?.owed_since).min()?;
    Some(later(owed_since, ANSWERED_WITHIN))
}
