//! Is kube-proxy proxying, tried from the nodes? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, Reason as R, StaleConnection};
use svcdiag_engine::diagnose;

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn n18_a_tracked_connection_leads_to_a_pod_that_is_gone() {
    fault("N18", C::ProxyForwards, R::StaleConntrackEntry, |f| {
        udp(f);
        look(f);
        on(f, "n1", |n| n.stale_connections.push(stale("10.244.9.9:9376")));
    });
}

#[test]
fn n18_every_entry_that_is_reported_is_deleted_or_counted() {
    let mut f = with_agents();
    udp(&mut f);
    look(&mut f);
    for node in ["n1", "n2"] {
        on(&mut f, node, |n| {
            let gone = ["10.244.9.8:9376", "10.244.9.9:9376", "10.244.9.9:9376"];
            n.stale_connections.extend(gone.map(stale));
        });
    }
    let remediation = diagnose(&f).root_cause.unwrap().remediation;
    let said = [
        "on node n1: `conntrack -D -p udp --orig-dst 10.96.1.175 --reply-src 10.244.9.8`",
        "on node n1: `conntrack -D -p udp --orig-dst 10.96.1.175 --reply-src 10.244.9.9`",
        "on node n2: `conntrack -D -p udp --orig-dst 10.96.1.175 --reply-src 10.244.9.8`",
        "Do the same for the others on node n2: `conntrack -L -p udp`",
    ];
    for words in said {
        assert!(remediation.contains(words), "{words:?} is not in {remediation}");
    }
    assert_eq!(remediation.matches("conntrack -D").count(), 3, "{remediation}");
}

#[test]
fn n18_what_replaces_kube_proxy_has_its_own_way_with_tracked_connections() {
    lookalike(|f| {
        udp(f);
        look(f);
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            (proxy.process, proxy.mode) = (None, None);
            proxy.replacement = Some("ovn-kubernetes".into());
            n.rules = None;
            // A zone of its own tracks what was not translated yet.
            n.stale_connections.push(StaleConnection {
                destination: VIP.into(),
                endpoint: VIP.into(),
                source: "10.244.1.9:41000".into(),
            });
        });
    });
}

#[test]
fn n18_a_live_flow_over_udp() {
    works(|f| {
        udp(f);
        look(f);
    });
    lookalike(|f| {
        udp(f);
        look(f);
        on(f, "n1", |n| {
            n.stale_connections.push(StaleConnection {
                destination: VIP.into(),
                endpoint: E2.into(),
                source: "10.244.1.9:41000".into(),
            });
        });
    });
}

#[test]
fn n36_a_foreign_rule_drops_the_address_on_its_way_out() {
    let d = fault("N36", C::ProxyForwards, R::TimedOut, |f| {
        for node in ["n1", "n2", "n3"] {
            fail_service(f, node, None, Answer::TimedOut);
        }
    });
    assert_eq!(impact(&d), "Some", "clients get through");
}

#[test]
fn n45_a_foreign_rule_rejects() {
    fault("N45-output", C::ProxyForwards, R::ConnectionRefused, |f| {
        fail_service(f, "n1", None, Answer::Refused);
    });
    fault("N45-pods", C::ServiceReachable, R::NoRouteToHost, |f| {
        fail_service(f, "n1", Some(CLIENT), Answer::Unreachable);
        on(f, "n1", |n| n.failures[0].detail = Some("by 10.244.1.1".into()));
    });
}

#[test]
fn a_failing_node_port_is_a_failure_of_the_nodes() {
    fault("node-port", C::ProxyForwards, R::TimedOut, |f| {
        node_port(f);
        look(f);
        on(f, "n1", |n| {
            let mut count = n
                .dials
                .iter()
                .find(|d| d.path == DialPath::Service)
                .unwrap()
                .clone();
            (count.path, count.from) = (DialPath::NodePort, None);
            n.dials.push(count);
        });
        fail(
            f,
            Fail {
                node: "n1",
                from: None,
                path: DialPath::NodePort,
                endpoint: Some(E1),
                answer: Answer::TimedOut,
            },
        );
    });
}

#[test]
fn foreign_addresses_are_not_dialled_from_nodes() {
    let d = works(|f| {
        service(f, json!({ "spec": { "selector": null } }));
        for endpoint in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            endpoint.target_ref = None;
        }
        look(f);
    });
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::NotApplicable);
}
