//! A Diagnosis as text for snapshots, and what tests ask of one.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{ConditionStatus, ConditionType, Reason};
use svcdiag_engine::{Diagnosis, Facts, Finding, Verdict, diagnose};

use crate::{
    agents::{look, with_agents},
    walkthrough::{ago, healthy, not_ready, resync},
};

/// All that a user can read of a Diagnosis.
pub(crate) fn report(diagnosis: &Diagnosis) -> String {
    report_of(diagnosis, |_| true)
}

fn report_of(diagnosis: &Diagnosis, is_told: impl Fn(ConditionType) -> bool) -> String {
    let mut lines = vec![format!(
        "Ready {} {}: {}",
        diagnosis.ready.status, diagnosis.ready.reason, diagnosis.ready.message
    )];
    if let Some(cause) = &diagnosis.root_cause {
        lines.push(format!(
            "root cause {}/{} ({})",
            cause.condition, cause.reason, cause.impact
        ));
        lines.push(format!("  remediation: {}", cause.remediation));
    }
    for (condition, f) in diagnosis.stages.iter().filter(|(c, _)| is_told(*c)) {
        lines.push(format!("{condition} {} {}: {}", f.status(), f.reason, f.message));
    }
    // Failures come first; the rest is much the same everywhere.
    for o in diagnosis.observations.iter().take(4) {
        lines.push(format!(
            "saw {:?} {:?}: {} {:?}",
            o.pod, o.target, o.result, o.detail
        ));
    }
    let s = &diagnosis.summary;
    lines.push(format!(
        "columns: endpoints {} proxy {} dns {} hairpin {}",
        s.endpoints, s.proxy, s.dns, s.hairpin
    ));
    lines.join("\n")
}

/// The finding of a stage.
pub(crate) fn stage(diagnosis: &Diagnosis, condition: ConditionType) -> &Finding {
    &diagnosis.stages.iter().find(|(c, _)| *c == condition).unwrap().1
}

/// Expects this root cause, and nothing False before it in causal order.
#[track_caller]
pub(crate) fn assert_root_cause(diagnosis: &Diagnosis, condition: ConditionType, reason: Reason) {
    let cause = diagnosis
        .root_cause
        .as_ref()
        .unwrap_or_else(|| panic!("no root cause\n{}", report(diagnosis)));
    assert_eq!(
        (cause.condition.as_str(), cause.reason.as_str()),
        (condition.as_str(), reason.as_str()),
        "\n{}",
        report(diagnosis)
    );
    assert_eq!(diagnosis.ready.status, ConditionStatus::False);
    let first = diagnosis
        .stages
        .iter()
        .find(|(_, f)| matches!(f.verdict, Verdict::False { .. }))
        .unwrap();
    assert_eq!(
        first.0,
        condition,
        "something is False before the root cause\n{}",
        report(diagnosis)
    );
}

/// Expects that nothing is False.
#[track_caller]
pub(crate) fn assert_nothing_false(facts: &Facts) -> Diagnosis {
    let diagnosis = diagnose(facts);
    let wrong = diagnosis
        .stages
        .iter()
        .any(|(_, f)| matches!(f.verdict, Verdict::False { .. }));
    assert!(
        !wrong && diagnosis.root_cause.is_none(),
        "false blame\n{}",
        report(&diagnosis)
    );
    assert_ne!(diagnosis.ready.status, ConditionStatus::False);
    diagnosis
}

/// Whether a stage, and every stage that it needs, says exactly what it says of the healthy Service.
fn reads_as_healthy(condition: ConditionType, healthy: &Diagnosis, diagnosis: &Diagnosis) -> bool {
    let [known, now] = [healthy, diagnosis].map(|d| stage(d, condition));
    (known.status(), known.reason, &known.message) == (now.status(), now.reason, &now.message)
        && condition
            .needs()
            .iter()
            .all(|need| reads_as_healthy(*need, healthy, diagnosis))
}

/// Whether a stage waits for one that it needs, which is not True.
fn waits(condition: ConditionType, diagnosis: &Diagnosis) -> bool {
    condition.needs().iter().any(|need| {
        *stage(diagnosis, condition) == Finding::blocked(*need)
            && stage(diagnosis, *need).status() != ConditionStatus::True
    })
}

/// Keeps what is said as a snapshot. Stages that say nothing of their own are left out, so that a new stage changes
/// the snapshots of its own faults alone: those that read, with all that they need, as in a diagnosis of the healthy
/// Facts, and those that wait for one that they need.
pub(crate) fn keep(id: &str, healthy: &Facts, diagnosis: &Diagnosis) {
    let healthy = diagnose(healthy);
    let kept = report_of(diagnosis, |condition| {
        !reads_as_healthy(condition, &healthy, diagnosis) && !waits(condition, diagnosis)
    });
    insta::assert_snapshot!(id, kept);
}

/// The same with all stages.
pub(crate) fn keep_whole(id: &str, diagnosis: &Diagnosis) {
    insta::assert_snapshot!(id, report(diagnosis));
}

/// Breaks the walk-through with agents and expects this root cause; keeps all that is said.
#[track_caller]
pub(crate) fn fault(
    id: &str,
    condition: ConditionType,
    reason: Reason,
    inject: impl FnOnce(&mut Facts),
) -> Diagnosis {
    broken(with_agents(), id, condition, reason, inject)
}

/// The same without agents, by objects of the API alone.
#[track_caller]
pub(crate) fn api_fault(
    id: &str,
    condition: ConditionType,
    reason: Reason,
    inject: impl FnOnce(&mut Facts),
) -> Diagnosis {
    broken(healthy(), id, condition, reason, inject)
}

#[track_caller]
fn broken(
    healthy: Facts,
    id: &str,
    condition: ConditionType,
    reason: Reason,
    inject: impl FnOnce(&mut Facts),
) -> Diagnosis {
    let mut facts = healthy.clone();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    keep(id, &healthy, &diagnosis);
    diagnosis
}

/// Something that looks like a fault and is none, in the walk-through with agents.
#[track_caller]
pub(crate) fn lookalike(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = with_agents();
    change(&mut facts);
    assert_nothing_false(&facts)
}

/// The same without agents.
#[track_caller]
pub(crate) fn api_lookalike(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = healthy();
    change(&mut facts);
    assert_nothing_false(&facts)
}

/// A lookalike that is Ready for this reason, too.
#[track_caller]
pub(crate) fn ready(reason: Reason, change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let diagnosis = lookalike(change);
    assert_eq!(diagnosis.ready.reason, reason, "{}", report(&diagnosis));
    diagnosis
}

/// A lookalike in which the Service works.
#[track_caller]
pub(crate) fn works(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    ready(Reason::ServiceWorks, change)
}

/// How much of the Service the root cause takes away.
pub(crate) fn impact(diagnosis: &Diagnosis) -> &'static str {
    diagnosis.root_cause.as_ref().unwrap().impact.as_str()
}

#[test]
fn a_stage_is_left_out_only_beside_needs_that_read_as_healthy_or_where_it_waits() {
    let healthy = with_agents();
    let omitted = |facts: &Facts, condition| {
        let (known, now) = (diagnose(&healthy), diagnose(facts));
        reads_as_healthy(condition, &known, &now) || waits(condition, &now)
    };
    for condition in ConditionType::stages() {
        assert!(omitted(&healthy, *condition), "{condition}");
    }
    // Two of three endpoints answer as all three did; a reader of the snapshot has to see that they were asked.
    let mut facts = with_agents();
    let unready = |facts: &mut Facts, which: usize| {
        let running =
            json!({ "name": "app", "started": true, "state": { "running": { "startedAt": ago(3600) } } });
        not_ready(Arc::make_mut(&mut facts.pods[which]), 60, running);
        resync(facts);
        look(facts);
    };
    unready(&mut facts, 2);
    assert!(!omitted(&facts, ConditionType::EndpointsPopulated));
    assert!(!omitted(&facts, ConditionType::EndpointsReachable));
    assert!(omitted(&facts, ConditionType::KubeProxyHealthy));
    // Nothing is ready: the dials wait, which is no news.
    unready(&mut facts, 0);
    unready(&mut facts, 1);
    assert!(omitted(&facts, ConditionType::EndpointsReachable));
    assert!(!omitted(&facts, ConditionType::PodsHealthy));
}
