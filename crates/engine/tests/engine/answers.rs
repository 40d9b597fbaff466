//! A connection that is reset or never answered is no answer.

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{
    agents::*,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

fn with_http() -> Facts {
    let mut facts = with_agents();
    patch(&mut facts.spec, json!({ "probe": { "http": { "path": "/" } } }));
    look(&mut facts);
    facts
}

#[track_caller]
fn fault(condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = with_http();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    diagnosis
}

fn says(diagnosis: &Diagnosis, words: &str) -> bool {
    report(diagnosis).contains(words)
}

#[test]
fn applications_that_hang_do_not_answer() {
    let d = fault(C::EndpointsReachable, R::TimedOut, |f| {
        fail_direct(f, &[0, 1, 2], Answer::NoAnswer);
    });
    assert!(says(&d, "connects but times out"), "{}", report(&d));
    assert!(!says(&d, "expectedStatuses"), "{}", report(&d));
}

#[test]
fn answers_that_get_lost_between_nodes_are_a_matter_of_size() {
    let check = |answer: Answer, detail: Option<&str>| {
        let d = fault(C::EndpointsReachable, R::TimedOut, |f| {
            fail_from_clients(f, &[1, 2], answer);
            on(f, "n1", |n| {
                for failure in &mut n.failures {
                    failure.detail = detail.map(str::to_owned);
                }
            });
        });
        assert!(says(&d, "MTU"), "{}", report(&d));
        assert!(!says(&d, "expectedStatuses"), "{}", report(&d));
    };
    check(Answer::NoAnswer, None);
    // As agents of before said it.
    check(Answer::Unexpected, Some("no answer to an HTTP request"));
}

#[test]
fn another_status_is_an_answer() {
    let d = fault(C::EndpointsReachable, R::UnexpectedResponse, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Unexpected);
        everywhere(f, |n| {
            for failure in &mut n.failures {
                failure.detail = Some("HTTP status 500".into());
            }
        });
    });
    assert!(says(&d, "expectedStatuses"), "{}", report(&d));
}

fn all_reset(facts: &mut Facts) {
    fail_direct(facts, &[0, 1, 2], Answer::Reset);
    fail_service(facts, "n1", Some(CLIENT), Answer::Reset);
    for node in ["n1", "n2", "n3"] {
        fail_service(facts, node, None, Answer::Reset);
    }
}

#[test]
fn connections_that_are_reset() {
    let d = fault(C::EndpointsReachable, R::UnexpectedResponse, all_reset);
    assert!(says(&d, "connects but is reset"), "{}", report(&d));
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Blocked);
}

fn sidecars(facts: &mut Facts) {
    each_pod(facts, |pod| {
        patch(
            pod,
            json!({ "spec": { "initContainers": [{ "name": "istio-proxy", "restartPolicy": "Always" }] } }),
        );
    });
}

#[test]
fn a_mesh_that_wants_its_own_tls_turns_neighbours_away() {
    let mut facts = with_http();
    sidecars(&mut facts);
    all_reset(&mut facts);
    let d = assert_nothing_false(&facts);
    for condition in [C::EndpointsReachable, C::ServiceReachable] {
        assert_eq!(
            stage(&d, condition).reason,
            R::InterceptedByMesh,
            "{}",
            report(&d)
        );
    }
    assert!(says(&d, "mTLS"), "{}", report(&d));
    assert_eq!(d.ready.reason, R::NoVantagePoint, "{}", report(&d));
}

#[test]
fn a_mesh_that_turns_the_named_clients_away() {
    let mut facts = with_http();
    name_clients(&mut facts);
    look(&mut facts);
    sidecars(&mut facts);
    all_reset(&mut facts);
    let d = diagnose(&facts);
    assert_root_cause(&d, C::EndpointsReachable, R::UnexpectedResponse);
    assert!(says(&d, "mutual TLS"), "{}", report(&d));
}

#[test]
fn what_nobody_dialled_is_not_said_to_answer() {
    let refused = |f: &mut Facts, declared: i32| {
        everywhere(f, |n| {
            n.dials
                .retain(|d| d.path == DialPath::Service && d.from.is_some())
        });
        fail_service(f, "n1", Some(CLIENT), Answer::Refused);
        each_pod(f, |pod| {
            if let Some(port) = pod.spec.containers.first_mut().and_then(|c| c.ports.first_mut()) {
                port.container_port = declared;
            }
        });
    };
    let d = fault(C::ServiceReachable, R::ConnectionRefused, |f| refused(f, 3000));
    assert!(!says(&d, "though its endpoints do"), "{}", report(&d));
    assert!(says(&d, "whose containers declare 3000"), "{}", report(&d));
    let d = fault(C::ServiceReachable, R::ConnectionRefused, |f| refused(f, 9376));
    assert!(!says(&d, "whose containers declare"), "{}", report(&d));
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "All");
}

#[test]
fn observations_say_how_far_a_dial_came() {
    let mut facts = with_http();
    fail_direct(&mut facts, &[0, 1, 2], Answer::NoAnswer);
    let d = diagnose(&facts);
    let seen = d
        .observations
        .iter()
        .any(|o| o.result == "connects but times out");
    assert!(seen, "{}", report(&d));
}
