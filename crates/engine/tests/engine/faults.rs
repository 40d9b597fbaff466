//! Every A row of the fault catalogue: its root cause, and a snapshot of all that it says.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{ClientNamespace, Diagnosis, Facts, diagnose};
use svcdiag_objects::StatefulSet;

use crate::{
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

/// Breaks the walk-through and expects this root cause; keeps all that is said as a snapshot.
#[track_caller]
fn fault(id: &str, condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = healthy();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    insta::assert_snapshot!(id, report(&diagnosis));
    diagnosis
}

#[test]
fn a01_the_service_does_not_exist() {
    fault("A01", C::ServiceExists, R::ServiceNotFound, |f| {
        f.service = None;
        f.slices.clear();
        f.other_services = ["hostname", "kubernetes"]
            .map(|name| other_service(name, json!({})))
            .into();
    });
}

#[test]
fn a02_the_service_exists_only_in_another_namespace() {
    fault("A02", C::ServiceExists, R::ServiceNotFound, |f| {
        f.service = None;
        f.slices.clear();
        f.namesakes = vec!["staging".into(), "prod".into()];
    });
}

#[test]
fn a03_clients_use_a_port_that_is_not_listed() {
    fault("A03", C::DefinitionValid, R::PortNotListed, |f| {
        patch(&mut f.spec, json!({ "ports": [8080] }))
    });
}

#[test]
fn a04_no_pod_has_the_port_that_target_port_names() {
    fault("A04", C::DefinitionValid, R::NamedPortNotFound, |f| {
        target_port(f, json!("web"))
    });
}

#[test]
fn a05_some_pods_of_one_revision_lack_the_named_port() {
    let d = fault("A05", C::DefinitionValid, R::NamedPortMissingOnSomePods, |f| {
        target_port(f, json!("web"));
        each_pod(f, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
        Arc::make_mut(&mut f.pods[1]).spec.containers[0].ports[0].name = None;
    });
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "Some");
}

#[test]
fn a06_target_port_is_a_number_in_quotes() {
    fault("A06", C::DefinitionValid, R::NumericTargetPortName, |f| {
        target_port(f, json!("9376"))
    });
}

#[test]
fn a07_a_udp_service_over_a_port_declared_tcp_is_a_hint() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "ports": [{ "name": "default", "protocol": "UDP", "port": 80, "targetPort": 9376 }] } }),
    );
    facts.slices = vec![slice(
        "hostnames",
        &facts.pods[..3],
        json!({ "name": "default", "port": 9376, "protocol": "UDP" }),
    )];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::DefinitionValid).reason, R::ValidWithHints);
    insta::assert_snapshot!("A07", report(&diagnosis));
}

#[test]
fn a08_the_selector_matches_no_pods() {
    let d = fault("A08", C::EndpointsPopulated, R::SelectorMatchesNoPods, |f| {
        service(
            f,
            json!({ "spec": { "selector": { "app": null, "run": "hostnames" } } }),
        );
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause
            .message
            .contains("app=hostnames where the selector wants run=hostnames"),
        "{}",
        cause.message
    );
    assert!(
        cause
            .remediation
            .contains(r#"'{"spec":{"selector":{"app":"hostnames","run":null}}}'"#),
        "{}",
        cause.remediation
    );
    fault(
        "A08-typing-error",
        C::EndpointsPopulated,
        R::SelectorMatchesNoPods,
        |f| {
            service(f, json!({ "spec": { "selector": { "app": "hostname" } } }));
            f.slices.clear();
        },
    );
    fault(
        "A08-no-near-miss",
        C::EndpointsPopulated,
        R::SelectorMatchesNoPods,
        |f| {
            service(
                f,
                json!({ "spec": { "selector": { "app": null, "tier": "backend" } } }),
            );
            f.slices.clear();
        },
    );
}

#[test]
fn a09_the_workload_is_scaled_to_zero() {
    fault("A09", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 0 } }),
        );
    });
    fault("A09-statefulset", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices.clear();
        f.deployments.clear();
        f.stateful_sets.push(Arc::new(object::<StatefulSet>(json!({
            "metadata": { "name": "hostnames", "namespace": NS },
            "spec": { "replicas": 0, "template": { "metadata": { "labels": { "app": "hostnames" } } } },
        }))));
    });
    // A Pod that was evicted stays behind, and is not why there is none.
    fault("A09-evicted", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.drain(1..3);
        Arc::make_mut(&mut f.pods[0]).status.phase = Some("Failed".into());
        f.slices.clear();
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 0 } }),
        );
    });
}

/// Running and once ready, but no longer.
pub fn failing_probe() -> Value {
    json!({ "name": "app", "ready": false, "started": true, "state": { "running": { "startedAt": ago(3650) } } })
}

#[test]
fn a10_the_readiness_probes_fail() {
    fault("A10", C::PodsHealthy, R::ReadinessProbeFailing, |f| {
        each_pod(f, |p| not_ready(p, 60, failing_probe()));
        resync(f);
    });
}

#[test]
fn a11_the_image_cannot_be_pulled() {
    fault("A11", C::PodsHealthy, R::ImagePullFailed, |f| {
        each_pod(f, |p| {
            p.spec.containers[0].image = Some("registry.invalid/hostnames:v1".into());
            not_ready(
                p,
                60,
                json!({ "name": "app", "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } } }),
            );
        });
        resync(f);
    });
}

#[test]
fn a12_the_containers_crash_loop() {
    let container = json!({ "name": "app", "restartCount": 7, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "exitCode": 1, "reason": "Error", "finishedAt": ago(20) } } });
    fault("A12", C::PodsHealthy, R::CrashLooping, |f| {
        each_pod(f, |p| not_ready(p, 600, container.clone()));
        resync(f);
    });
    // Between two ends the container runs for a moment; the verdict must not flap.
    let running = json!({ "name": "app", "restartCount": 7, "started": true, "state": { "running": { "startedAt": ago(2) } },
        "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled", "finishedAt": ago(100) } } });
    fault("A12-running", C::PodsHealthy, R::CrashLooping, |f| {
        each_pod(f, |p| not_ready(p, 600, running.clone()));
        resync(f);
    });
}

#[test]
fn a13_no_node_takes_the_pods() {
    fault("A13", C::PodsHealthy, R::PodsUnschedulable, |f| {
        each_pod(f, |p| {
            patch(
                p,
                json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending", "podIP": null, "podIPs": null,
                "containerStatuses": null, "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector." }] } }),
            );
        });
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
    });
}

#[test]
fn a14_the_endpoint_slices_do_not_follow_the_pods() {
    fault("A14", C::EndpointsPopulated, R::EndpointSlicesStale, |f| {
        f.slices.clear()
    });
    let d = fault("A14-some", C::EndpointsPopulated, R::EndpointSlicesStale, |f| {
        Arc::make_mut(&mut f.slices[0]).endpoints.truncate(2);
    });
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "Some");
}

#[test]
fn a15_neither_selector_nor_endpoint_slice() {
    fault("A15", C::EndpointsPopulated, R::NoSelectorAndNoEndpoints, |f| {
        service(f, json!({ "spec": { "selector": null } }));
        f.slices.clear();
    });
}

/// An EndpointSlice that somebody wrote by hand, with this port and readiness.
pub fn manual(facts: &mut Facts, port: &str, ready: &[bool]) {
    service(facts, json!({ "spec": { "selector": null } }));
    let endpoint = |(i, ready): (usize, &bool)| json!({ "addresses": [format!("192.0.2.{i}")], "conditions": { "ready": ready } });
    facts.slices = vec![Arc::new(object(json!({
        "metadata": { "name": "hostnames-manual", "namespace": NS, "labels": { "kubernetes.io/service-name": "hostnames" } },
        "addressType": "IPv4",
        "endpoints": ready.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": port, "port": 9376, "protocol": "TCP" }],
    })))];
}

#[test]
fn a16_the_port_of_a_manual_slice_has_another_name() {
    fault("A16", C::DefinitionValid, R::ManualEndpointsPortMismatch, |f| {
        manual(f, "http", &[true])
    });
}

#[test]
fn a17_external_name_is_an_address() {
    fault("A17", C::DefinitionValid, R::ExternalNameIsIP, |f| {
        external_name(f, "192.0.2.1")
    });
}

/// Makes the Service an alias.
pub fn external_name(facts: &mut Facts, name: &str) {
    service(
        facts,
        json!({ "spec": { "type": "ExternalName", "externalName": name, "selector": null, "ports": null,
        "clusterIP": null, "clusterIPs": null, "ipFamilies": null } }),
    );
    facts.slices.clear();
}

#[test]
fn a18_service_and_pods_share_no_ip_family() {
    fault("A18", C::DefinitionValid, R::IPFamilyMismatch, |f| {
        service(
            f,
            json!({ "spec": { "ipFamilies": ["IPv6"], "clusterIP": "fd00:10:96::7", "clusterIPs": ["fd00:10:96::7"] } }),
        );
        f.slices.clear();
    });
}

#[test]
fn a19_default_deny_admits_nobody() {
    let d = fault("A19", C::NetworkPolicyAllows, R::IngressDenied, |f| {
        policy(
            f,
            "default-deny",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        );
    });
    assert!(d.root_cause.unwrap().message.contains("default-deny"));
    fault(
        "A19-service-port",
        C::NetworkPolicyAllows,
        R::IngressDenied,
        |f| {
            let rule = json!({ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] });
            policy(
                f,
                "allow-80",
                json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "ingress": [rule] }),
            );
        },
    );
    fault(
        "A19-named-clients",
        C::NetworkPolicyAllows,
        R::IngressDenied,
        |f| {
            name_clients(f);
            let rule = json!({ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] });
            policy(
                f,
                "only-web",
                json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule] }),
            );
        },
    );
}

#[test]
fn a20_the_clients_may_not_ask_dns() {
    fault("A20", C::NetworkPolicyAllows, R::EgressToDNSDenied, |f| {
        name_clients(f);
        policy(f, "client-egress", egress_to_app());
    });
}

/// Clients may talk to the Service's Pods and to nobody else.
pub fn egress_to_app() -> Value {
    let rule = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "hostnames" } } }], "ports": [{ "port": 9376 }] });
    json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [rule] })
}

/// Traffic of the cluster stays on its node; the Pods of the Service are on n2 and n3 only.
pub fn local(facts: &mut Facts) {
    service(facts, json!({ "spec": { "internalTrafficPolicy": "Local" } }));
    facts.pods.remove(0);
    resync(facts);
}

#[test]
fn a21_a_local_policy_shuts_out_every_client() {
    fault("A21", C::EndpointsPopulated, R::NoLocalEndpoints, |f| {
        local(f);
        name_clients(f);
    });
}

#[test]
fn a22_no_pod_of_cluster_dns_is_ready() {
    fault("A22", C::DNSResolves, R::ClusterDNSNotReady, |f| {
        for pod in &mut f.cluster_dns.as_mut().unwrap().pods {
            not_ready(Arc::make_mut(pod), 60, failing_probe());
        }
    });
}

#[test]
fn a23_pods_that_are_starting_are_given_time() {
    let mut facts = healthy();
    each_pod(&mut facts, |p| {
        patch(
            p,
            json!({ "metadata": { "creationTimestamp": ago(20) }, "status": { "phase": "Pending", "startTime": ago(20), "podIP": null, "podIPs": null } }),
        );
        not_ready(
            p,
            20,
            json!({ "name": "app", "state": { "waiting": { "reason": "ContainerCreating" } } }),
        );
    });
    facts.slices = vec![slice(
        "hostnames",
        &[],
        json!({ "name": "default", "port": 9376 }),
    )];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::PodsHealthy).reason, R::PodsStarting);
    assert!(diagnosis.stalled.is_none() && diagnosis.reconciling.is_some());
    insta::assert_snapshot!("A23", report(&diagnosis));
}

#[test]
fn a24_the_clients_may_not_go_to_the_service() {
    let deny = json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"] });
    fault("A24", C::NetworkPolicyAllows, R::EgressDenied, |f| {
        name_clients(f);
        policy(f, "client-deny", deny.clone());
    });
    fault("A24-named", C::NetworkPolicyAllows, R::EgressDenied, |f| {
        name_clients(f);
        let rule = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] });
        policy(
            f,
            "only-db",
            json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [rule] }),
        );
    });
}

#[test]
fn a25_pods_are_not_ready_for_an_unknown_cause() {
    fault("A25", C::PodsHealthy, R::PodsNotReady, |f| {
        each_pod(f, |p| {
            let ready = p
                .status
                .conditions
                .iter_mut()
                .find(|c| c.type_ == "Ready")
                .unwrap();
            ready.status = "False".into();
            ready.last_transition_time = Some(ago(60).parse().unwrap());
        });
        resync(f);
    });
}

#[test]
fn a26_a_suspended_diagnosis_judges_nothing() {
    let mut facts = healthy();
    facts.service = None;
    facts.spec.suspend = true;
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(diagnosis.ready.reason, R::Suspended);
    insta::assert_snapshot!("A26", report(&diagnosis));
}

#[test]
fn a27_no_endpoint_of_a_manual_slice_is_ready() {
    fault("A27", C::EndpointsPopulated, R::NoReadyEndpoints, |f| {
        manual(f, "default", &[false, false])
    });
}

#[test]
fn a28_the_clients_namespace_does_not_lend_its_pods() {
    let mut facts = healthy();
    patch(&mut facts.spec, json!({ "clients": { "namespace": "web" } }));
    facts.client_namespace = Some(ClientNamespace {
        name: "web".into(),
        granted: false,
        pods: vec![],
    });
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(
        stage(&diagnosis, C::ServiceReachable).reason,
        R::ClientNamespaceNotGranted
    );
    assert_eq!(
        stage(&diagnosis, C::DNSResolves).reason,
        R::ClientNamespaceNotGranted
    );
    insta::assert_snapshot!("A28", report(&diagnosis));
}

#[test]
fn the_healthy_walk_through_waits_for_a_node_agent() {
    let diagnosis = assert_nothing_false(&healthy());
    assert_eq!(diagnosis.ready.reason, R::NoVantagePoint);
    insta::assert_snapshot!("healthy", report(&diagnosis));
}

/// Sets the Service's targetPort.
pub fn target_port(facts: &mut Facts, target: Value) {
    service(
        facts,
        json!({ "spec": { "ports": [{ "name": "default", "protocol": "TCP", "port": 80, "targetPort": target }] } }),
    );
}
