//! Ports of a Service without an endpoint, beside others that have some.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{
    fixtures::{failing_probe, manual},
    report::{assert_nothing_false, assert_root_cause, stage},
    walkthrough::*,
};

/// A second port, `tls`, of the Service and of the container, which no EndpointSlice has.
fn with_tls(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "ports": [
            { "name": "default", "protocol": "TCP", "port": 80, "targetPort": 9376 },
            { "name": "tls", "protocol": "TCP", "port": 443, "targetPort": "tls" },
        ] } }),
    );
    each_pod(facts, |p| {
        p.spec.containers[0]
            .ports
            .push(object(json!({ "name": "tls", "containerPort": 8443 })))
    });
}

#[track_caller]
fn dead(facts: &Facts, impact: &str) -> (String, String) {
    let diagnosis = diagnose(facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::PortHasNoEndpoints);
    let cause = diagnosis.root_cause.unwrap();
    assert_eq!(cause.impact.as_str(), impact);
    (cause.message, cause.remediation)
}

#[track_caller]
fn served(facts: &Facts) -> Diagnosis {
    let diagnosis = assert_nothing_false(facts);
    assert_eq!(stage(&diagnosis, C::EndpointsPopulated).reason, R::EndpointsReady);
    diagnosis
}

/// A rollout that adds the port: old Pods without it serve, and one new Pod that has it is not ready.
fn rollout(facts: &mut Facts, container: Value, progressing: &str) {
    with_tls(facts);
    for pod in facts.pods.iter_mut().take(2) {
        Arc::make_mut(pod).spec.containers[0].ports.truncate(1);
    }
    let new = Arc::make_mut(&mut facts.pods[2]);
    owned(new, "uid-rs-new");
    not_ready(new, 100, container);
    let mut set = (*facts.replica_sets[0]).clone();
    set.metadata.uid = Some("uid-rs-new".into());
    set.metadata.name = Some("hostnames-new".into());
    facts.replica_sets.push(Arc::new(set));
    patch(
        Arc::make_mut(&mut facts.deployments[0]),
        json!({ "status": { "conditions": [
            { "type": "Progressing", "status": "True", "reason": progressing, "lastUpdateTime": ago(100) },
        ] } }),
    );
    resync(facts);
}

#[test]
fn a_port_that_only_new_pods_have_waits_for_the_rollout() {
    let running = json!({ "name": "app", "started": true, "state": { "running": { "startedAt": ago(90) } } });
    let mut facts = healthy();
    rollout(&mut facts, running, "ReplicaSetUpdated");
    let diagnosis = served(&facts);
    let endpoints = stage(&diagnosis, C::EndpointsPopulated);
    assert!(
        endpoints
            .message
            .contains("Service port \"tls\" (443/TCP) has no ready endpoint yet"),
        "{}",
        endpoints.message
    );
    assert!(endpoints.recheck_at.is_some());
}

#[test]
fn a_port_that_only_pods_of_a_stuck_rollout_have_is_dead() {
    let mut facts = healthy();
    rollout(&mut facts, failing_probe(), "NewReplicaSetAvailable");
    let (message, remediation) = dead(&facts, "Some");
    assert!(
        message.contains("Service port \"tls\" (443/TCP) has no ready endpoint, while other ports have one: hostnames-632524106-tlaok, the only Pod that has it, is not ready")
            && message.contains("readiness probe fails"),
        "{message}"
    );
    assert!(
        remediation.contains("describe pod hostnames-632524106-tlaok"),
        "{remediation}"
    );
    // Clients that use the other port only lose nothing.
    patch(&mut facts.spec, json!({ "ports": ["default"] }));
    served(&facts);
}

#[test]
fn a_port_whose_pods_are_all_ready_is_in_the_slices() {
    let mut facts = healthy();
    with_tls(&mut facts);
    let late = facts.clone();
    facts.slices.push(slice(
        "hostnames",
        &facts.pods[..3],
        json!({ "name": "tls", "port": 8443 }),
    ));
    served(&facts);
    let (message, _) = dead(&late, "Some");
    assert!(message.contains("the EndpointSlices do not list it"), "{message}");
    // The endpoints controller needs a moment after the port was added.
    let mut just_added = late;
    service(
        &mut just_added,
        json!({ "metadata": { "managedFields": [{ "time": ago(5) }] } }),
    );
    served(&just_added);
}

#[test]
fn numbers_may_differ_from_pod_to_pod() {
    let mut facts = healthy();
    with_tls(&mut facts);
    facts.slices.push(slice(
        "hostnames",
        &facts.pods[..2],
        json!({ "name": "tls", "port": 8443 }),
    ));
    facts.slices.push(slice(
        "hostnames",
        &facts.pods[2..3],
        json!({ "name": "tls", "port": 8444 }),
    ));
    served(&facts);
}

#[test]
fn the_port_of_a_native_sidecar_says_so() {
    let mut facts = healthy();
    with_tls(&mut facts);
    each_pod(&mut facts, |p| {
        p.spec.containers[0].ports.truncate(1);
        patch(
            p,
            json!({
                "spec": { "initContainers": [{ "name": "proxy", "restartPolicy": "Always", "ports": [{ "name": "tls", "containerPort": 8443 }] }] },
                "status": { "initContainerStatuses": [{ "name": "proxy", "ready": true, "started": true, "state": { "running": { "startedAt": ago(3660) } } }] },
            }),
        );
    });
    let (message, remediation) = dead(&facts, "Some");
    assert!(
        message.contains("\"tls\" is a port of proxy, an init container that keeps running"),
        "{message}"
    );
    assert!(
        remediation.contains("Set targetPort to the number 8443"),
        "{remediation}"
    );
}

#[test]
fn the_slice_of_a_port_holds_nothing_ready() {
    let mut facts = healthy();
    manual(&mut facts, "default", &[true]);
    service(
        &mut facts,
        json!({ "spec": { "ports": [{ "name": "default", "port": 80 }, { "name": "tls", "port": 443 }] } }),
    );
    let mut second = (*facts.slices[0]).clone();
    second.metadata.name = Some("hostnames-tls".into());
    second.ports[0].name = Some("tls".into());
    second.endpoints[0].conditions.ready = Some(false);
    facts.slices.push(Arc::new(second));
    let (message, _) = dead(&facts, "Some");
    assert!(
        message.contains("no EndpointSlice has a ready endpoint for it"),
        "{message}"
    );
    Arc::make_mut(&mut facts.slices[1]).endpoints[0].conditions.ready = Some(true);
    served(&facts);
}

#[test]
fn a_second_family_that_the_pods_lack_is_no_dead_port() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.1.175", "fd00:10:96::7"] } }),
    );
    served(&facts);
    // The slice of the second family that the endpoints controller keeps may be empty.
    let mut second = (*facts.slices[0]).clone();
    second.address_type = "IPv6".into();
    second.endpoints.clear();
    facts.slices.push(Arc::new(second));
    served(&facts);
}

#[test]
fn published_pods_that_are_not_ready_serve_a_port() {
    let mut facts = healthy();
    with_tls(&mut facts);
    service(
        &mut facts,
        json!({ "spec": { "publishNotReadyAddresses": true } }),
    );
    each_pod(&mut facts, |p| not_ready(p, 60, failing_probe()));
    resync(&mut facts);
    facts.slices.push(slice(
        "hostnames",
        &facts.pods[..3],
        json!({ "name": "tls", "port": 8443 }),
    ));
    for slice in &mut facts.slices {
        for endpoint in &mut Arc::make_mut(slice).endpoints {
            endpoint.conditions.ready = Some(true);
        }
    }
    served(&facts);
}

#[test]
fn a_named_port_that_a_rollout_is_about_to_bring_is_a_hint() {
    let named = |progressing: &str| {
        let mut facts = healthy();
        patch(
            Arc::make_mut(&mut facts.deployments[0]),
            json!({ "status": { "conditions": [
                { "type": "Progressing", "status": "True", "reason": progressing, "lastUpdateTime": ago(20) },
            ] } }),
        );
        crate::fixtures::target_port(&mut facts, json!("web"));
        diagnose(&facts)
    };
    let waiting = named("ReplicaSetUpdated");
    let definition = stage(&waiting, C::DefinitionValid);
    assert_eq!(definition.reason, R::ValidWithHints);
    assert!(definition.recheck_at.is_some() && definition.message.contains("while a rollout is under way"));
    assert_root_cause(
        &named("NewReplicaSetAvailable"),
        C::DefinitionValid,
        R::NamedPortNotFound,
    );
}

#[test]
fn pods_of_one_operator_are_of_no_one_revision() {
    let mut facts = healthy();
    crate::fixtures::target_port(&mut facts, json!("web"));
    for (i, pod) in facts.pods.iter_mut().take(3).enumerate() {
        let pod = Arc::make_mut(pod);
        patch(
            pod,
            json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "example.com/v1", "kind": "Database", "name": "db", "uid": "uid-db", "controller": true },
        ] } }),
        );
        pod.spec.containers[0].ports[0].name = (i > 0).then(|| "web".into());
    }
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::DefinitionValid).reason, R::Valid);
}
