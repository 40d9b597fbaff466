//! Time as a value: deadlines, Stalled and Reconciling, and what a status keeps of the one before.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R, ServiceDiagnosisStatus};
use svcdiag_engine::{Facts, diagnose, is_same};

use crate::{report::stage, walkthrough::*};

fn broken() -> Facts {
    let mut facts = healthy();
    facts.service = None;
    facts
}

fn later(facts: &Facts, seconds: i64) -> Facts {
    Facts {
        now: facts.now + SignedDuration::from_secs(seconds),
        ..facts.clone()
    }
}

fn transition(status: &ServiceDiagnosisStatus, type_: &str) -> Timestamp {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == type_)
        .unwrap()
        .last_transition_time
        .0
}

#[test]
fn stalled_is_set_once_ready_has_been_false_for_long_enough() {
    let mut facts = broken();
    let first = diagnose(&facts);
    assert!(first.reconciling.is_some() && first.stalled.is_none());
    assert_eq!(first.recheck_at, Some(now() + SignedDuration::from_secs(120)));
    facts.not_ready_since = Some(now());
    assert!(diagnose(&later(&facts, 119)).stalled.is_none());
    let at_last = diagnose(&later(&facts, 120));
    assert_eq!(at_last.stalled.as_ref().unwrap().reason, R::ServiceNotFound);
    assert!(at_last.reconciling.is_none() && at_last.recheck_at.is_none());
}

#[test]
fn stalled_after_zero_seconds_is_at_once() {
    let mut facts = broken();
    facts.spec.stalled_after_seconds = 0;
    let diagnosis = diagnose(&facts);
    assert!(diagnosis.stalled.is_some() && diagnosis.reconciling.is_none());
}

#[test]
fn the_verdict_changes_at_recheck_at_and_not_before() {
    let mut facts = healthy();
    facts.slices.clear();
    each_pod(&mut facts, |p| {
        p.status
            .conditions
            .iter_mut()
            .for_each(|c| c.last_transition_time = Some(ago(2).parse().unwrap()))
    });
    let recheck = diagnose(&facts).recheck_at.unwrap();
    let before = Facts {
        now: recheck - SignedDuration::from_millis(1),
        ..facts.clone()
    };
    assert_eq!(
        stage(&diagnose(&before), C::EndpointsPopulated).reason,
        R::Pending
    );
    let then = Facts {
        now: recheck,
        ..facts
    };
    assert_eq!(
        stage(&diagnose(&then), C::EndpointsPopulated).reason,
        R::EndpointSlicesStale
    );
}

#[test]
fn a_probe_that_never_passed_fails_only_after_its_start_up_time() {
    let starting = |seconds: i64| {
        let mut facts = healthy();
        each_pod(&mut facts, |p| {
            let running = json!({ "name": "app", "started": true, "state": { "running": { "startedAt": ago(seconds) } } });
            not_ready(p, seconds + 3, running);
        });
        resync(&mut facts);
        stage(&diagnose(&facts), C::PodsHealthy).reason
    };
    // Three failures, five seconds apart, and the slack.
    assert_eq!(starting(29), R::PodsStarting);
    assert_eq!(starting(31), R::ReadinessProbeFailing);
}

#[test]
fn a_rollout_may_take_until_its_progress_deadline() {
    let rollout = |seconds: i64, reason: &str| {
        let mut facts = healthy();
        patch(
            std::sync::Arc::make_mut(&mut facts.deployments[0]),
            json!({ "spec": { "progressDeadlineSeconds": 300 }, "status": { "conditions": [
            { "type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": ago(seconds) },
        ] } }),
        );
        each_pod(&mut facts, |p| {
            let running = json!({ "name": "app", "started": true, "state": { "running": { "startedAt": ago(seconds) } } });
            not_ready(p, seconds + 3, running);
        });
        resync(&mut facts);
        stage(&diagnose(&facts), C::PodsHealthy).reason
    };
    assert_eq!(rollout(299, "ReplicaSetUpdated"), R::PodsStarting);
    assert_eq!(rollout(301, "ReplicaSetUpdated"), R::ReadinessProbeFailing);
    assert_eq!(rollout(100, "NewReplicaSetAvailable"), R::ReadinessProbeFailing);
}

#[test]
fn the_same_facts_never_write_status_twice() {
    for facts in [healthy(), broken()] {
        let first = diagnose(&facts).status(None, Some(3), facts.now);
        for seconds in [1, 60, 86_400] {
            let again = diagnose(&facts).status(
                Some(&first),
                Some(3),
                facts.now + SignedDuration::from_secs(seconds),
            );
            assert!(is_same(&first, &again));
        }
    }
}

#[test]
fn the_order_of_the_conditions_is_not_a_change() {
    let mut first = diagnose(&healthy()).status(None, Some(1), now());
    let second = first.clone();
    first.conditions.reverse();
    assert!(is_same(&first, &second));
    let again = diagnose(&healthy()).status(Some(&first), Some(1), now() + SignedDuration::from_secs(9));
    assert!(is_same(&first, &again));
}

#[test]
fn a_transition_time_moves_when_the_status_flips_and_only_then() {
    let first = diagnose(&healthy()).status(None, Some(1), now());
    let then = now() + SignedDuration::from_secs(60);
    let second = diagnose(&broken()).status(Some(&first), Some(1), then);
    assert_eq!(transition(&second, "ServiceExists"), then);
    assert_eq!(transition(&second, "Ready"), then);
    assert_eq!(transition(&second, "HairpinOK"), now(), "Unknown stays Unknown");
    assert_eq!(second.last_change_time.as_ref().unwrap().0, then);
    assert!(second.conditions.iter().all(|c| c.observed_generation == Some(1)));
}
