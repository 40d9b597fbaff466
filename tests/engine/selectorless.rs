//! Services without a selector whose endpoints somebody else writes: a leader election, an operator, a person.

use std::sync::Arc;

use serde_json::json;
use svcdiag::{
    api::{ConditionType as C, Reason as R},
    diagnosis::{Facts, diagnose},
};

use crate::{
    data_path::default_deny,
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
        message.contains("does not admit client of namespace shop"),
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
