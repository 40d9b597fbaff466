//! Messages claim no more than was observed: what holds for some is not said of all.

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialCount, DialPath, IpFamily, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{
    agents::*,
    report::{assert_root_cause, lookalike, stage},
    walkthrough::*,
};

/// The root cause's message.
#[track_caller]
fn message(condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> String {
    let mut facts = with_agents();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    diagnosis.root_cause.unwrap().message
}

/// Another client, on the third node, reaches endpoints of other nodes.
fn another_client(facts: &mut Facts, path: DialPath, same_node: Option<bool>) {
    on(facts, "n3", |n| {
        n.dials.push(DialCount {
            from: Some("shop/other".into()),
            path,
            port: "80/TCP".parse().unwrap(),
            family: IpFamily::V4,
            same_node,
            made: 2,
            failed: 0,
        });
    });
}

#[test]
fn endpoints_that_fail_for_some_are_not_among_those_that_answer() {
    let some = |inject: fn(&mut Facts)| message(C::EndpointsReachable, R::SomeEndpointsFailing, inject);
    let clear = some(|f| fail_direct(f, &[2], Answer::Refused));
    assert!(clear.contains("while the others answer"), "{clear}");
    let mixed = some(|f| {
        fail_direct(f, &[2], Answer::Refused);
        fail_from_clients(f, &[1], Answer::Refused);
    });
    assert!(mixed.contains("while others answer"), "{mixed}");
}

#[test]
fn an_endpoint_that_one_other_node_reaches_is_not_lost_to_all() {
    let lost = |f: &mut Facts| fail_from_clients(f, &[1], Answer::TimedOut);
    let clear = message(C::EndpointsReachable, R::CrossNodeUnreachable, lost);
    assert!(
        clear.contains("on their own node but not from other nodes"),
        "{clear}"
    );
    let mixed = message(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        lost(f);
        another_client(f, DialPath::Endpoint, Some(false));
    });
    assert!(mixed.contains("not from every other node"), "{mixed}");
}

#[test]
fn dials_that_fail_for_one_client_are_not_said_of_all() {
    let lost = |f: &mut Facts| fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    let clear = message(C::ServiceReachable, R::TimedOut, lost);
    assert!(
        clear.starts_with("The Service does not answer client Pods, "),
        "{clear}"
    );
    let mixed = message(C::ServiceReachable, R::TimedOut, |f| {
        lost(f);
        another_client(f, DialPath::Service, None);
    });
    assert!(
        mixed.starts_with("The Service does not answer some dials from client Pods, "),
        "{mixed}"
    );
    let nodes = message(C::ProxyForwards, R::TimedOut, |f| {
        fail_service(f, "n1", None, Answer::TimedOut)
    });
    assert!(
        nodes.starts_with("The Service does not answer some dials from nodes, "),
        "{nodes}"
    );
}

#[test]
fn a_client_that_has_nothing_to_dial_is_not_said_to_be_an_endpoint() {
    let d = lookalike(|f| {
        f.pods.remove(0);
        resync(f);
        service(f, json!({ "spec": { "internalTrafficPolicy": "Local" } }));
        look(f);
        on(f, "n1", |n| n.dials.retain(|d| d.path == DialPath::Endpoint));
    });
    let finding = stage(&d, C::ServiceReachable);
    assert_eq!(finding.reason, R::NoClientPods);
    assert!(
        finding.message.contains("none has an endpoint"),
        "{}",
        finding.message
    );
}

#[test]
fn agents_that_report_and_are_not_asked_are_not_said_to_be_missing() {
    let ready = |inject: fn(&mut Facts)| {
        let mut facts = healthy();
        inject(&mut facts);
        diagnose(&facts).ready
    };
    let none = ready(|_| ());
    assert!(none.message.contains("no node agent reports"), "{}", none.message);
    let unasked = ready(|f| {
        f.nodes = vec![agent("n1")];
        patch(
            &mut f.spec,
            json!({ "nodes": { "selector": { "matchLabels": { "zone": "z" } } } }),
        );
    });
    assert_eq!(unasked.reason, R::NoVantagePoint);
    assert!(
        !unasked.message.contains("no node agent reports"),
        "{}",
        unasked.message
    );
}
