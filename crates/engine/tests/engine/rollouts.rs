//! While nothing but endpoints changes, what was said last stands until the agents have looked again, and little is
//! written.

mod failed_node;
mod kept;

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
        match pace(self.status.as_ref(), self.written_at, &status, &verdict, now) {
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

#[test]
fn a_node_that_comes_into_the_sample_is_waited_for_a_minute_and_no_longer() {
    let mut run = Run::new();
    run.facts.nodes.push(agent("n4"));
    let verdict = run.judge();
    assert_eq!((ready(&verdict), run.writes), (ConditionStatus::True, 0));
    let asked = run.facts.nodes[3].probe.as_ref().unwrap();
    assert!(!asked.is_current, "it is asked");
    run.wait(59);
    assert_eq!((ready(&run.judge()), run.writes), (ConditionStatus::True, 0));
    run.wait(1);
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::ServiceReachable).reason, R::Pending);
    assert_eq!(verdict.ready.reason, R::Pending);
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn what_is_seen_from_a_node_that_comes_into_the_sample_is_written_once_it_is_known() {
    let mut run = Run::new();
    // What was seen from a node that has left.
    run.status.as_mut().unwrap().observations.truncate(1);
    run.facts.nodes.push(agent("n4"));
    run.judge();
    assert_eq!(run.writes, 0);
    assert!(run.due.is_some());
    run.wait(1);
    look(&mut run.facts);
    run.judge();
    assert_eq!((run.writes, run.due), (1, None));

    // Nor is that waited for without end.
    run.facts.nodes.push(agent("n5"));
    run.status.as_mut().unwrap().observations.truncate(1);
    run.judge();
    assert_eq!(run.writes, 1);
    run.wait(10);
    run.judge();
    assert_eq!(run.writes, 2);
}

#[test]
fn what_the_others_see_counts_while_a_node_comes_into_the_sample() {
    let mut run = Run::new();
    run.facts.nodes.push(agent("n4"));
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    fail_direct(&mut run.facts, &[0, 1, 2], Answer::Refused);
    assert_eq!(ready(&run.judge()), ConditionStatus::False);
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
