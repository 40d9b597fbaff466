//! internalTrafficPolicy Local: who is without an endpoint, and whose fault that is.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{
    fixtures::local,
    report::{assert_nothing_false, assert_root_cause, stage},
    walkthrough::*,
};

#[test]
fn a_neighbour_without_an_endpoint_is_no_fault() {
    let mut facts = healthy();
    local(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    let endpoints = stage(&diagnosis, C::EndpointsPopulated);
    assert_eq!(endpoints.reason, R::EndpointsReady);
    assert!(
        endpoints
            .message
            .contains("node n1 has no endpoint of it, so Pod client"),
        "{}",
        endpoints.message
    );
    assert!(
        endpoints.message.contains("spec.clients.podSelector"),
        "{}",
        endpoints.message
    );
}

#[test]
fn one_of_two_named_clients_without_an_endpoint_is_a_fault_of_a_part() {
    let mut facts = healthy();
    local(&mut facts);
    facts
        .pods
        .push(pod("client-2", "n2", "10.244.2.9", json!({ "app": "client" })));
    name_clients(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::NoLocalEndpoints);
    assert_eq!(diagnosis.root_cause.unwrap().impact.as_str(), "Some");
}

/// The slices changed that long ago.
fn slices_changed(facts: &mut Facts, seconds: i64) {
    let changed = json!({ "metadata": { "managedFields": [
        { "manager": "kube-controller-manager", "operation": "Update", "time": ago(seconds) },
    ] } });
    patch(Arc::make_mut(&mut facts.slices[0]), changed);
}

#[test]
fn the_pod_of_the_clients_node_is_being_replaced() {
    let mut facts = healthy();
    local(&mut facts);
    name_clients(&mut facts);
    // The last Pod of the DaemonSet is gone from there, and the next one is not there yet.
    each_pod(&mut facts, |p| {
        patch(
            p,
            json!({ "metadata": { "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "uid-ds", "controller": true },
            ] } }),
        );
    });
    slices_changed(&mut facts, 5);
    let diagnosis = assert_nothing_false(&facts);
    let endpoints = stage(&diagnosis, C::EndpointsPopulated);
    assert_eq!(endpoints.reason, R::EndpointsReady);
    assert!(
        endpoints.message.contains("may be restarting"),
        "{}",
        endpoints.message
    );
    assert!(endpoints.recheck_at.is_some());
    // A Deployment owes no Pod to the node.
    let mut deployment = facts.clone();
    each_pod(&mut deployment, |p| owned(p, "uid-rs"));
    assert_root_cause(&diagnose(&deployment), C::EndpointsPopulated, R::NoLocalEndpoints);
    // It does not come.
    slices_changed(&mut facts, 60);
    assert_root_cause(&diagnose(&facts), C::EndpointsPopulated, R::NoLocalEndpoints);
    // It is there and starts.
    let mut next = pod("hostnames-632524106-next", "n1", "10.244.1.8", app());
    let starting = Arc::make_mut(&mut next);
    patch(
        starting,
        json!({ "metadata": { "creationTimestamp": ago(20) }, "status": { "phase": "Pending", "startTime": ago(20) } }),
    );
    not_ready(
        starting,
        20,
        json!({ "name": "app", "state": { "waiting": { "reason": "ContainerCreating" } } }),
    );
    facts.pods.push(next);
    resync(&mut facts);
    slices_changed(&mut facts, 60);
    let diagnosis = assert_nothing_false(&facts);
    assert!(
        stage(&diagnosis, C::EndpointsPopulated)
            .message
            .contains("node n1 may be restarting")
    );
}
