//! Agents that are dead, late or not asked: nothing is False, and Ready says what is missing.

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{
    agents::*,
    report::{assert_nothing_false, keep, report, stage},
    walkthrough::*,
};

fn kill(facts: &mut Facts, node: &str) {
    let report = facts.nodes.iter_mut().find(|n| *n.name == *node).unwrap();
    report.alive_until = Some(now() - SignedDuration::from_secs(1));
}

#[track_caller]
fn expect(facts: &Facts, reason: R) -> Diagnosis {
    let diagnosis = assert_nothing_false(facts);
    assert_eq!(diagnosis.ready.reason, reason, "{}", report(&diagnosis));
    diagnosis
}

#[test]
fn n33_a_dead_agent_leaves_the_question_open() {
    let mut facts = with_agents();
    kill(&mut facts, "n2");
    let d = expect(&facts, R::AgentNotResponding);
    let message = &stage(&d, C::EndpointsReachable).message;
    assert!(message.contains("node n2"), "{message}");
    keep("N33-dead", &with_agents(), &d);
    for node in ["n1", "n3"] {
        kill(&mut facts, node);
    }
    expect(&facts, R::AgentNotResponding);
}

/// `svcdiag check` reads what was asked and does not ask itself.
#[test]
fn a_silent_node_of_the_sample_is_left_out_where_nobody_is_asked_anew() {
    let mut facts = with_agents();
    facts.nodes.push(agent("n4"));
    look(&mut facts);
    let n4 = facts.nodes.iter().find(|n| *n.name == *"n4").unwrap();
    let sampled = &n4.probe.as_ref().unwrap().asked;
    assert!(sampled.clients.is_empty() && sampled.endpoints.is_empty());
    kill(&mut facts, "n4");
    expect(&facts, R::ServiceWorks);
    kill(&mut facts, "n2");
    expect(&facts, R::AgentNotResponding);
}

#[test]
fn what_a_dead_agent_saw_does_not_count() {
    let mut facts = with_agents();
    fail_direct(&mut facts, &[1], Answer::TimedOut);
    fail_service(&mut facts, "n2", None, Answer::TimedOut);
    kill(&mut facts, "n1");
    kill(&mut facts, "n2");
    expect(&facts, R::AgentNotResponding);
}

#[test]
fn a_living_agent_still_finds_faults() {
    let mut facts = with_agents();
    fail_direct(&mut facts, &[0, 1, 2], Answer::TimedOut);
    kill(&mut facts, "n2");
    let d = diagnose(&facts);
    assert_eq!(d.root_cause.unwrap().condition, "EndpointsReachable");
}

#[test]
fn the_first_round_is_waited_for() {
    let mut facts = with_agents();
    facts.nodes[1].probe.as_mut().unwrap().facts = None;
    let d = expect(&facts, R::Pending);
    assert!(d.reconciling.is_some());
    assert!(
        stage(&d, C::EndpointsReachable)
            .message
            .contains("Waiting for the first round on node n2.")
    );
    let mut facts = with_agents();
    facts.nodes[0].probe.as_mut().unwrap().is_current = false;
    fail_service(&mut facts, "n1", Some(CLIENT), Answer::TimedOut);
    expect(&facts, R::Pending);
}

#[test]
fn what_a_pod_does_not_get_from_itself_waits_for_what_clients_see() {
    let mut facts = with_agents();
    on(&mut facts, "n2", |n| {
        n.hairpins[0].answer = Some(Answer::TimedOut)
    });
    facts.nodes[0].probe.as_mut().unwrap().is_current = false;
    expect(&facts, R::Pending);
}

#[test]
fn agents_that_will_be_asked_are_waited_for() {
    let mut facts = healthy();
    facts.nodes = ["n1", "n2"].map(agent).to_vec();
    expect(&facts, R::Pending);
}

#[test]
fn nobody_to_ask_is_no_vantage_point() {
    let mut facts = healthy();
    facts.nodes = ["n1", "n2"].map(agent).to_vec();
    patch(
        &mut facts.spec,
        json!({ "nodes": { "selector": { "matchLabels": { "zone": "z" } } } }),
    );
    expect(&facts, R::NoVantagePoint);
}

#[test]
fn silence_comes_with_time_alone() {
    let facts = with_agents();
    let first = diagnose(&facts);
    assert_eq!(first.silent_at, Some(now() + SignedDuration::from_secs(40)));
    let then = Facts {
        now: first.silent_at.unwrap(),
        ..facts
    };
    expect(&then, R::AgentNotResponding);
}

#[test]
fn a_suspended_diagnosis_asks_nobody() {
    let mut facts = with_agents();
    facts.spec.suspend = true;
    let d = expect(&facts, R::Suspended);
    assert!(d.recheck_at.is_none() && d.silent_at.is_none() && d.observations.is_empty());
    assert!(svcdiag_engine::plan(&facts, &diagnosis_ref()).is_empty());
}

#[test]
fn who_may_not_be_asked_is_not_waited_for() {
    let mut facts = with_agents();
    facts.nodes.iter_mut().for_each(|n| n.probe = None);
    expect(&facts, R::Pending);
    facts.are_probes_withheld = true;
    let d = expect(&facts, R::NoVantagePoint);
    let message = &stage(&d, C::ServiceReachable).message;
    assert!(message.contains("its limit of NodeProbes"), "{message}");
}
