//! Does the Service work by IP, tried from client Pods? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, Reason as R};
use svcdiag_engine::{ClientNamespace, Facts};
use svcdiag_objects::Object;

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

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
    keep("A28", &healthy(), &diagnosis);
}

#[test]
fn a28_annotation_present() {
    let d = api_lookalike(|f| {
        patch(&mut f.spec, json!({ "clients": { "namespace": "web" } }));
        let mut client = pod("web-1", "n1", "10.244.1.20", json!({ "app": "web" }));
        patch(
            Arc::make_mut(&mut client),
            json!({ "metadata": { "namespace": "web" } }),
        );
        f.client_namespace = Some(ClientNamespace {
            name: "web".into(),
            granted: true,
            pods: vec![client],
        });
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::NoVantagePoint);
}

#[test]
fn n20_rules_do_not_see_bridged_packets() {
    let inject = |f: &mut Facts, setting| {
        on(f, "n1", |n| n.settings.bridge_netfilter = setting);
        fail(
            f,
            Fail {
                node: "n1",
                from: Some(CLIENT),
                path: DialPath::Service,
                endpoint: Some(E1),
                answer: Answer::TimedOut,
            },
        );
        on(f, "n1", |n| n.failures.last_mut().unwrap().same_bridge = true);
    };
    fault("N20", C::ServiceReachable, R::BridgeNetfilterDisabled, |f| {
        inject(f, Some(false))
    });
    fault(
        "N20-no-module",
        C::ServiceReachable,
        R::BridgeNetfilterDisabled,
        |f| inject(f, None),
    );
}

#[test]
fn n37_a_foreign_rule_drops_what_pods_send_to_the_service() {
    let d = fault("N37", C::ServiceReachable, R::TimedOut, |f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
    assert!(
        d.root_cause
            .unwrap()
            .remediation
            .contains("https://discuss.kubernetes.io")
    );
}

#[test]
fn n39_clients_with_a_sidecar_prove_nothing() {
    let d = works(|f| on(f, "n1", |n| n.intercepted = vec![CLIENT.into()]));
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::InterceptedByMesh);
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::InterceptedByMesh);
    // By the name of the container, and though its connections fail.
    lookalike(|f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        let client = f.pods.iter_mut().find(|p| p.name() == "client").unwrap();
        patch(
            Arc::make_mut(client),
            json!({ "spec": { "initContainers": [{ "name": "istio-proxy", "restartPolicy": "Always" }] } }),
        );
    });
    let d = works(|f| {
        patch(&mut f.spec, json!({ "probe": { "http": { "path": "/" } } }));
        look(f);
        on(f, "n1", |n| n.intercepted = vec![CLIENT.into()]);
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Reachable);
}

#[test]
fn n46_one_endpoint_does_not_answer_through_the_service() {
    let d = fault("N46", C::ServiceReachable, R::PartiallyReachable, |f| {
        fail(
            f,
            Fail {
                node: "n1",
                from: Some(CLIENT),
                path: DialPath::Service,
                endpoint: Some(E2),
                answer: Answer::TimedOut,
            },
        );
    });
    assert_eq!(impact(&d), "Some");
}
