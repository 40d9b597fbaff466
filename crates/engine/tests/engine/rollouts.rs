//! While nothing but endpoints changes, what was said last stands until the agents have looked again, and little is
//! written.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use svcdiag_api::{Answer, ConditionStatus, ConditionType as C, Reason as R, ServiceDiagnosisStatus};
use svcdiag_engine::{Diagnosis, Facts, Pace, diagnose, pace, plan};

use crate::{
    agents::*,
    report::{report, stage},
    subject::lend_a_client,
    walkthrough::*,
};

/// A diagnosis as the controller goes on with it.
struct Run {
    facts: Facts,
    status: Option<ServiceDiagnosisStatus>,
    written_at: Option<Timestamp>,
    writes: usize,
    due: Option<Timestamp>,
    serial: usize,
    unanswered_since: Option<Timestamp>,
}

impl Run {
    /// At rest for an hour.
    fn new() -> Self {
        let mut run = Self {
            facts: with_agents(),
            status: None,
            written_at: None,
            writes: 0,
            due: None,
            serial: 0,
            unanswered_since: None,
        };
        run.judge();
        run.written_at = Some(now() - SignedDuration::from_hours(1));
        run.writes = 0;
        run
    }

    /// One round of the controller.
    fn judge(&mut self) -> Diagnosis {
        self.facts.previous = self.status.clone().map(Box::new);
        let plan = plan(&self.facts, &diagnosis_ref());
        self.facts.unanswered_since = self.unanswered_since;
        let is_answered_well = self.facts.is_answered_well();
        self.facts.ask(&plan);
        let is_owed = self.facts.is_unanswered() && !is_answered_well;
        let since = self.unanswered_since.or(Some(self.facts.now));
        self.unanswered_since = since.filter(|_| is_owed);
        let verdict = diagnose(&self.facts);
        let now = self.facts.now;
        let status = verdict.status(self.status.as_ref(), Some(1), now);
        self.due = None;
        match pace(
            self.status.as_ref(),
            self.written_at,
            &status,
            verdict.settled_at,
            now,
        ) {
            Pace::Never => {}
            Pace::At(time) => {
                assert!(time > now);
                self.due = Some(time);
            }
            Pace::Now => {
                self.status = Some(status);
                self.written_at = Some(now);
                self.writes += 1;
            }
        }
        verdict
    }

    fn wait(&mut self, seconds: i64) {
        let span = SignedDuration::from_secs(seconds);
        self.facts.now += span;
        for node in &mut self.facts.nodes {
            node.alive_until = Some(self.facts.now + SignedDuration::from_secs(40));
        }
    }

    /// The EndpointSlice is written anew at the present time.
    fn endpoints_change(&mut self) {
        resync(&mut self.facts);
        self.serial += 1;
        let time = self.facts.now.to_string();
        let metadata = json!({ "metadata": { "resourceVersion": self.serial.to_string(), "managedFields": [{ "time": time }] } });
        patch(Arc::make_mut(&mut self.facts.slices[0]), metadata);
    }

    fn ready_pod(&mut self, id: usize) {
        let mut new = pod(
            &format!("hostnames-79f-{id}"),
            "n2",
            &format!("10.244.2.{}", 100 + id),
            app(),
        );
        owned(Arc::make_mut(&mut new), "uid-rs");
        self.facts.pods.push(new);
        self.endpoints_change();
    }

    fn remove_pod(&mut self) {
        self.facts.pods.remove(0);
        self.endpoints_change();
    }
}

fn ready(verdict: &Diagnosis) -> ConditionStatus {
    verdict.ready.status
}

#[test]
fn ready_never_leaves_true_in_a_healthy_rolling_restart_and_little_is_written() {
    let mut run = Run::new();
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    for step in 0..3 {
        run.wait(4);
        run.ready_pod(step);
        assert_eq!(
            ready(&run.judge()),
            ConditionStatus::True,
            "before the agents answer"
        );
        run.wait(2);
        look(&mut run.facts);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run.wait(2);
        run.remove_pod();
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        // A superseded question is not answered at all.
        run.wait(1);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        look(&mut run.facts);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
    }
    while let Some(due) = run.due {
        let left = due.duration_since(run.facts.now).as_secs();
        run.wait(left);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
    }
    assert!(run.writes <= 3, "{} writes", run.writes);
    let status = run.status.clone().unwrap();
    let last = diagnose(&run.facts).status(Some(&status), Some(1), run.facts.now);
    assert!(
        svcdiag_engine::is_same(&status, &last),
        "the last state is written"
    );
}

#[test]
fn a_stage_that_does_not_apply_for_a_moment_is_not_written() {
    let mut run = Run::new();
    run.written_at = Some(run.facts.now);
    // Its slice has not followed it yet: what is no Pod's address is not dialled from nodes.
    let gone = run.facts.pods.remove(0);
    let time = run.facts.now.to_string();
    let changed = json!({ "metadata": { "resourceVersion": "77", "managedFields": [{ "time": time }] } });
    patch(Arc::make_mut(&mut run.facts.slices[0]), changed);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    look(&mut run.facts);
    everywhere(&mut run.facts, |n| n.dials.retain(|d| d.from.is_some()));
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::ProxyForwards).reason, R::NotApplicable);
    assert_eq!((ready(&verdict), run.writes), (ConditionStatus::True, 0));
    run.facts.pods.insert(0, gone);
    run.endpoints_change();
    run.judge();
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.wait(60);
    run.judge();
    assert_eq!(run.writes, 0, "all is as it was");
}

#[test]
fn an_answer_is_waited_for_half_a_minute_and_no_longer() {
    let mut run = Run::new();
    run.ready_pod(1);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::True);
    let kept = stage(&verdict, C::ServiceReachable);
    assert_eq!(kept.recheck_at, Some(now() + SignedDuration::from_secs(30)));
    run.wait(29);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.wait(1);
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::ServiceReachable).reason, R::Pending);
    assert_eq!(verdict.ready.reason, R::Pending);
    // What is not known any more does not come back without an answer.
    run.ready_pod(2);
    assert_eq!(run.judge().ready.reason, R::Pending);
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

/// Endpoints change every ten seconds, for so many minutes.
fn restless(run: &mut Run, minutes: usize, mut each: impl FnMut(&mut Run, usize)) {
    for step in 0..6 * minutes {
        run.ready_pod(step);
        each(run, 10 * step);
        run.remove_pod();
        run.wait(10);
    }
}

#[test]
fn agents_that_answer_to_none_of_many_changes_are_waited_for_a_minute() {
    let mut run = Run::new();
    restless(&mut run, 3, |run, seconds| {
        let verdict = run.judge();
        if seconds < 60 {
            assert_eq!(ready(&verdict), ConditionStatus::True, "after {seconds} s");
        } else {
            assert_eq!(verdict.ready.reason, R::Pending, "after {seconds} s");
        }
    });
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn agents_that_answer_now_and_then_keep_a_long_rollout_ready() {
    let mut run = Run::new();
    restless(&mut run, 5, |run, seconds| {
        if seconds % 40 == 0 {
            look(&mut run.facts);
        }
        assert_eq!(ready(&run.judge()), ConditionStatus::True, "after {seconds} s");
    });
}

/// Endpoints change every two seconds for so many minutes, and agents answer each time what they were asked before.
fn answered_too_late(minutes: i64, seen: impl Fn(&mut Facts)) -> Vec<Diagnosis> {
    let mut run = Run::new();
    let mut verdicts = Vec::new();
    for step in 0..30 * minutes {
        run.ready_pod(usize::try_from(step).unwrap());
        let verdict = run.judge();
        verdicts.push(verdict);
        run.wait(1);
        look(&mut run.facts);
        seen(&mut run.facts);
        run.remove_pod();
        // As the inventory says it of a question that is answered.
        for probe in run.facts.nodes.iter_mut().filter_map(|n| n.probe.as_mut()) {
            probe.owed_since = None;
        }
        run.judge();
        run.wait(1);
    }
    verdicts
}

#[test]
fn answers_that_come_too_late_keep_what_was_said_as_long_as_nothing_fails() {
    let verdicts = answered_too_late(3, |_| {});
    let left = verdicts.iter().filter(|v| ready(v) != ConditionStatus::True);
    assert_eq!(left.count(), 0);
    let verdicts = answered_too_late(3, |f| everywhere(f, |n| n.probes_failed = 3));
    let kept = verdicts.iter().take_while(|v| ready(v) == ConditionStatus::True);
    assert!((25..35).contains(&kept.count()), "a minute");
    assert_eq!(verdicts.last().unwrap().ready.reason, R::Pending);
}

#[test]
fn another_candidate_under_other_policies_is_no_other_question() {
    let mut run = Run::new();
    admitting(&mut run.facts, "of-the-client", "client");
    run.judge();
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.facts.policies.clear();
    run.ready_pod(1);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn clients_of_another_namespace_wait_while_an_endpoint_comes_or_goes() {
    let mut run = Run::new();
    lend_a_client(&mut run.facts);
    run.judge();
    look(&mut run.facts);
    assert_eq!(
        ready(&run.judge()),
        ConditionStatus::True,
        "{}",
        report(&run.judge())
    );
    let gone = run.facts.pods.remove(0);
    let time = run.facts.now.to_string();
    let changed = json!({ "metadata": { "resourceVersion": "77", "managedFields": [{ "time": time }] } });
    patch(Arc::make_mut(&mut run.facts.slices[0]), changed);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::True, "{}", report(&verdict));
    run.wait(31);
    let verdict = run.judge();
    assert_eq!(
        stage(&verdict, C::ServiceReachable).reason,
        R::ClientNamespaceNotGranted
    );
    run.facts.pods.insert(0, gone);
}

#[test]
fn what_was_seen_stays_with_what_is_kept() {
    let mut run = Run::new();
    let before = run.status.clone().unwrap();
    assert!(!before.observations.is_empty() && before.proxy_mode.is_some());
    run.ready_pod(1);
    let verdict = run.judge();
    assert_eq!(verdict.observations, before.observations);
    assert_eq!(verdict.proxy_mode, before.proxy_mode);
    assert_eq!(verdict.summary.proxy, before.summary.unwrap().proxy);
    // One node has answered, and says what it sees itself.
    let waited_for = run.facts.nodes[1..].to_vec();
    look(&mut run.facts);
    run.facts.nodes.truncate(1);
    run.facts.nodes.extend(waited_for);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::True);
    assert_eq!(verdict.proxy_mode, before.proxy_mode);
    let of_node = |observations: &[svcdiag_api::Observation], name: &str| {
        observations
            .iter()
            .filter(|o| o.node.as_deref() == Some(name))
            .count()
    };
    for name in ["n1", "n2", "n3"] {
        assert!(
            of_node(&verdict.observations, name) > 0,
            "{name}: {:?}",
            verdict.observations
        );
    }
    for name in ["n2", "n3"] {
        assert_eq!(
            of_node(&verdict.observations, name),
            of_node(&before.observations, name)
        );
    }
    // Nothing is left of it when it is kept no longer.
    run.wait(31);
    assert_eq!(run.judge().ready.reason, R::Pending);
    let verdict = run.judge();
    assert_eq!(of_node(&verdict.observations, "n2"), 0);
}

#[test]
fn new_pods_that_refuse_are_blamed_as_soon_as_agents_say_so() {
    let mut run = Run::new();
    run.ready_pod(1);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.wait(3);
    look(&mut run.facts);
    fail_direct(&mut run.facts, &[3], Answer::Refused);
    let verdict = run.judge();
    assert_eq!(
        verdict.root_cause.as_ref().unwrap().condition,
        "EndpointsReachable"
    );
    assert_eq!(run.writes, 2, "a verdict is written at once");
    // The next endpoint is no reason to take it back before anybody has looked.
    run.ready_pod(2);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::False);
    assert_eq!(verdict.root_cause.unwrap().condition, "EndpointsReachable");
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn no_endpoint_left_is_said_at_once() {
    let mut run = Run::new();
    run.facts
        .pods
        .retain(|p| !p.metadata.name.as_ref().unwrap().starts_with("hostnames-"));
    patch(
        Arc::make_mut(&mut run.facts.deployments[0]),
        json!({ "spec": { "replicas": 0 } }),
    );
    run.endpoints_change();
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::EndpointsPopulated).reason, R::ScaledToZero);
    assert_eq!(ready(&verdict), ConditionStatus::False);
}

/// Changes more than the endpoints; then nothing is kept.
#[track_caller]
fn expect_pending(change: impl FnOnce(&mut Facts)) {
    let mut run = Run::new();
    run.ready_pod(1);
    change(&mut run.facts);
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::ServiceReachable).reason, R::Pending);
    // Nor later, when that has become the question that is waited for.
    run.wait(1);
    assert_eq!(run.judge().ready.reason, R::Pending);
}

#[test]
fn what_was_said_of_another_service_or_question_is_not_kept() {
    expect_pending(|facts| service(facts, json!({ "spec": { "sessionAffinity": "ClientIP" } })));
    expect_pending(|facts| patch(&mut facts.spec, json!({ "probe": { "timeoutSeconds": 7 } })));
}

/// A policy that admits everybody to the Pods of a label.
fn admitting(facts: &mut Facts, name: &str, app: &str) {
    let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Ingress"], "ingress": [{}] });
    policy(facts, name, spec);
}

#[test]
fn nothing_is_kept_once_a_policy_has_changed() {
    expect_pending(|facts| admitting(facts, "all", "hostnames"));
}

#[test]
fn a_policy_that_is_deleted_while_endpoints_change_is_noticed_and_one_about_others_is_no_matter() {
    let with_policies = || {
        let mut run = Run::new();
        for (name, app) in [("admits", "hostnames"), ("others", "somebody-else")] {
            admitting(&mut run.facts, name, app);
        }
        run.judge();
        look(&mut run.facts);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run.wait(4);
        run.ready_pod(1);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run
    };
    let delete = |run: &mut Run, name: &str| {
        run.facts
            .policies
            .retain(|p| p.metadata.name.as_deref() != Some(name));
    };
    let mut run = with_policies();
    delete(&mut run, "others");
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    let mut run = with_policies();
    delete(&mut run, "admits");
    assert_eq!(run.judge().ready.reason, R::Pending);
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn without_a_status_on_the_present_spec_nothing_is_kept() {
    let mut run = Run::new();
    run.ready_pod(1);
    run.status = None;
    assert_eq!(run.judge().ready.reason, R::Pending);
}

#[test]
fn other_words_wait_and_other_verdicts_do_not() {
    let now = now();
    let at = |seconds| now + SignedDuration::from_secs(seconds);
    let written = diagnose(&with_agents()).status(None, Some(1), now);
    let other_words = ServiceDiagnosisStatus {
        proxy_mode: Some("ipvs".into()),
        ..written.clone()
    };
    let pace_of = |status: &ServiceDiagnosisStatus, settled, written_at| {
        pace(Some(&written), written_at, status, settled, now)
    };
    assert_eq!(pace_of(&written, Some(at(9)), Some(now)), Pace::Never);
    assert_eq!(pace_of(&other_words, Some(at(9)), Some(now)), Pace::At(at(9)));
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(-20))),
        Pace::At(at(40))
    );
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(500))),
        Pace::At(at(60))
    );
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(-60))),
        Pace::Now
    );
    for (settled, written_at) in [(None, Some(now)), (Some(now), Some(now)), (Some(at(9)), None)] {
        assert_eq!(pace_of(&other_words, settled, written_at), Pace::Now);
    }
    assert_eq!(pace(None, None, &written, Some(at(9)), now), Pace::Now);
    let mut flipped = written.clone();
    flipped.conditions[0].status = "False".into();
    let mut of_next_spec = other_words;
    of_next_spec.observed_generation = Some(2);
    for status in [flipped, of_next_spec] {
        assert_eq!(pace_of(&status, Some(at(9)), Some(now)), Pace::Now);
    }
}
