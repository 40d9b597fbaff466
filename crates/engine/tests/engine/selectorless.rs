//! Services without a selector whose endpoints somebody else writes: a leader election, an operator, a person.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{
    fixtures::default_deny,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

/// The Service selects nothing, and its slice names the Pods.
fn selectorless(facts: &mut Facts) {
    service(facts, json!({ "spec": { "selector": null } }));
}

/// The slice names the Pods by name, without UID.
fn without_uids(facts: &mut Facts) {
    for endpoint in &mut Arc::make_mut(&mut facts.slices[0]).endpoints {
        endpoint.target_ref.as_mut().unwrap().uid = None;
    }
}

fn without_references(facts: &mut Facts) {
    for endpoint in &mut Arc::make_mut(&mut facts.slices[0]).endpoints {
        endpoint.target_ref = None;
    }
}

#[test]
fn policies_are_those_of_the_pods_that_the_endpoints_name() {
    for change in [|_: &mut Facts| (), without_uids, without_references] {
        let mut facts = healthy();
        selectorless(&mut facts);
        change(&mut facts);
        default_deny(&mut facts);
        let diagnosis = diagnose(&facts);
        assert_root_cause(&diagnosis, C::NetworkPolicyAllows, R::IngressDenied);
        assert_eq!(diagnosis.root_cause.unwrap().impact.as_str(), "All");

        let mut facts = healthy();
        selectorless(&mut facts);
        change(&mut facts);
        policy(
            &mut facts,
            "client",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }] }),
        );
        let diagnosis = assert_nothing_false(&facts);
        assert_eq!(stage(&diagnosis, C::NetworkPolicyAllows).reason, R::Allowed);
    }
}

#[test]
fn the_endpoints_are_no_clients() {
    let mut facts = healthy();
    selectorless(&mut facts);
    // Only others may come in: the Pods behind the Service are not taken for clients.
    policy(
        &mut facts,
        "others",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }] }),
    );
    let diagnosis = assert_nothing_false(&facts);
    let message = &stage(&diagnosis, C::NetworkPolicyAllows).message;
    assert!(
        message.contains("does not admit traffic from Pod shop/client"),
        "{message}"
    );
}

#[test]
fn a_slice_without_uids_is_not_stale() {
    for change in [without_uids, without_references] {
        let mut facts = healthy();
        change(&mut facts);
        let diagnosis = assert_nothing_false(&facts);
        assert_eq!(stage(&diagnosis, C::EndpointsPopulated).reason, R::EndpointsReady);
    }
    // One that names a Pod of the same name and another address is: that Pod was made again.
    let mut facts = healthy();
    without_uids(&mut facts);
    Arc::make_mut(&mut facts.slices[0]).endpoints[0].addresses = vec!["10.244.1.77".into()];
    assert_root_cause(&diagnose(&facts), C::EndpointsPopulated, R::EndpointSlicesStale);
}

/// What is said of a Service whose endpoints somebody writes, after it was written that they were there.
fn endpoints_said(facts: &mut Facts, seconds: i64) -> R {
    facts.now += SignedDuration::from_secs(seconds);
    let diagnosis = diagnose(facts);
    let previous = facts.previous.take();
    let status = diagnosis.status(previous.as_deref(), Some(1), facts.now);
    facts.previous = Some(Box::new(status));
    let finding = stage(&diagnosis, C::EndpointsPopulated);
    if finding.reason == R::Pending {
        assert_eq!(diagnosis.root_cause, None);
        assert!(finding.recheck_at.is_some());
    }
    finding.reason
}

#[test]
fn endpoints_written_by_hand_may_be_gone_for_a_moment() {
    let mut facts = healthy();
    selectorless(&mut facts);
    let slices = facts.slices.clone();
    assert_eq!(endpoints_said(&mut facts, 0), R::EndpointsReady);
    // As default/kubernetes while its API server restarts.
    facts.slices.clear();
    for seconds in [60, 1, 28] {
        assert_eq!(endpoints_said(&mut facts, seconds), R::Pending);
    }
    let mut back = facts.clone();
    back.slices = slices;
    assert_eq!(endpoints_said(&mut back, 0), R::EndpointsReady);
    assert_eq!(endpoints_said(&mut facts, 1), R::NoSelectorAndNoEndpoints);
    assert_eq!(endpoints_said(&mut facts, 60), R::NoSelectorAndNoEndpoints);
}

#[test]
fn endpoints_written_by_hand_come_after_the_service_and_after_an_election() {
    let mut facts = healthy();
    selectorless(&mut facts);
    let mut empty = facts.slices[0].clone();
    facts.slices.clear();
    let just_now = json!({ "metadata": { "managedFields": [{ "time": ago(5) }] } });
    let mut of_new_service = facts.clone();
    service(&mut of_new_service, just_now.clone());
    // A slice that its writer has just emptied: there is no leader.
    patch(Arc::make_mut(&mut empty), just_now);
    patch(Arc::make_mut(&mut empty), json!({ "endpoints": [] }));
    let mut without_leader = facts;
    without_leader.slices.push(empty);
    for facts in [&mut of_new_service, &mut without_leader] {
        assert_eq!(endpoints_said(facts, 0), R::Pending);
        assert_eq!(endpoints_said(facts, 24), R::Pending);
        // Half a minute after they were first missed.
        assert_eq!(endpoints_said(facts, 6), R::NoSelectorAndNoEndpoints);
    }
}

#[test]
fn nobody_is_told_to_add_a_selector() {
    let mut facts = healthy();
    selectorless(&mut facts);
    facts.slices.clear();
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::NoSelectorAndNoEndpoints);
    let remediation = diagnosis.root_cause.unwrap().remediation;
    assert!(
        !remediation.contains("set selector") && remediation.contains("Endpoints object hostnames"),
        "{remediation}"
    );
}

#[test]
fn a_stateful_set_says_whom_its_headless_service_should_select() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "selector": null, "clusterIP": "None", "clusterIPs": ["None"] } }),
    );
    facts.slices.clear();
    facts.stateful_sets.push(Arc::new(object(json!({
        "metadata": { "name": "queue", "namespace": NS, "creationTimestamp": ago(3700) },
        "spec": { "serviceName": "hostnames", "replicas": 3, "template": { "metadata": { "labels": { "app": "queue" } } } },
    }))));
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::NoSelectorAndNoEndpoints);
    let cause = diagnosis.root_cause.unwrap();
    assert!(cause.message.contains("StatefulSet queue"), "{}", cause.message);
    assert!(
        cause.remediation.contains("app=queue") && !cause.remediation.contains("patch"),
        "{}",
        cause.remediation
    );
}

#[test]
fn a_headless_service_that_only_holds_a_name_is_right() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "selector": null, "clusterIP": "None", "clusterIPs": ["None"], "ports": [] } }),
    );
    facts.slices.clear();
    let diagnosis = assert_nothing_false(&facts);
    for condition in [
        C::EndpointsPopulated,
        C::EndpointsReachable,
        C::DNSResolves,
        C::HairpinOK,
    ] {
        assert_eq!(
            stage(&diagnosis, condition).reason,
            R::NotApplicable,
            "{}",
            report(&diagnosis)
        );
    }
    assert_eq!(diagnosis.ready.reason, R::ServiceWorks, "{}", report(&diagnosis));
}
