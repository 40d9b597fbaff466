//! Is kube-proxy proxying, tried from the nodes? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, OtherNodePort, Reason as R, StaleConnection};
use svcdiag_engine::{Facts, diagnose};
use svcdiag_objects::EndpointSlice;

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

/// A node port that every node serves to itself, and one dial of node n1 to node n2.
fn node_ports(facts: &mut Facts, answer: Answer) {
    crate::blame::nodes(facts, &["192.168.0.1", "192.168.0.2", "192.168.0.3"]);
    node_port(facts);
    look(facts);
    everywhere(facts, |n| {
        let of_service = n.dials.iter().find(|d| d.path == DialPath::Service).unwrap();
        let mut count = of_service.clone();
        (count.path, count.from) = (DialPath::NodePort, None);
        n.dials.push(count);
    });
    on(facts, "n1", |n| {
        n.other_node_ports.push(OtherNodePort {
            node: "n2".into(),
            port: "80/TCP".parse().unwrap(),
            target: "192.168.0.2:30080".into(),
            answer,
        });
    });
}

/// What is said of node ports that are closed to other nodes.
fn closed(change: impl FnOnce(&mut Facts)) -> Option<String> {
    let d = works(change);
    let (_, said) = stage(&d, C::ProxyForwards).message.split_once("Node port ")?;
    Some(said.split(" It was not").next().unwrap().to_owned())
}

#[test]
fn node_ports_that_only_their_own_node_reaches_are_a_hint() {
    let said = closed(|f| node_ports(f, Answer::TimedOut)).unwrap();
    assert_eq!(
        said,
        "192.168.0.2:30080 answers node n2 itself, but not node n1. If clients outside the \
         cluster use node ports, check the firewalls of the nodes and between them."
    );
}

#[test]
fn of_node_ports_that_may_be_well_nothing_is_said() {
    assert_eq!(closed(|f| node_ports(f, Answer::Accepted)), None);
    let other = |change: fn(&mut OtherNodePort)| {
        closed(move |f| {
            node_ports(f, Answer::TimedOut);
            on(f, "n1", |n| change(&mut n.other_node_ports[0]));
        })
    };
    assert_eq!(
        other(|of| of.target = "192.168.0.2:30081".into()),
        None,
        "of another Service by now"
    );
    assert_eq!(
        other(|of| of.target = "192.168.0.9:30080".into()),
        None,
        "no address of the node"
    );
    let not_tried = closed(|f| {
        node_ports(f, Answer::TimedOut);
        on(f, "n2", |n| n.dials.retain(|d| d.path != DialPath::NodePort));
    });
    assert_eq!(not_tried, None, "the node itself has not tried");
    let local = closed(|f| {
        node_ports(f, Answer::TimedOut);
        service(f, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
        for endpoint in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            if endpoint.node_name.as_deref() == Some("n2") {
                endpoint.node_name = Some("n3".into());
            }
        }
    });
    assert_eq!(
        local, None,
        "the node has no endpoint, and drops what comes from outside"
    );
    let other_port = closed(|f| {
        node_ports(f, Answer::TimedOut);
        service(f, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
        // The slice with this port has none of its endpoints on the node.
        let mut other = EndpointSlice::clone(&f.slices[0]);
        other.metadata.name = Some("other".into());
        other.ports[0].name = Some("other".into());
        f.slices.push(Arc::new(other));
        let here = &mut Arc::make_mut(&mut f.slices[0]).endpoints;
        here.retain(|e| e.node_name.as_deref() != Some("n2"));
    });
    assert_eq!(other_port, None, "the node has no endpoint for that port");
}

#[test]
fn a_node_that_is_not_heard_may_be_where_packets_to_its_endpoints_are_lost() {
    #[derive(Clone, Copy)]
    enum Other {
        Answers,
        Waits,
        IsSilent,
    }
    let of = |endpoint, other: Other| {
        let mut facts = with_agents();
        let (node, path, answer) = ("n1", DialPath::Service, Answer::TimedOut);
        fail(
            &mut facts,
            Fail {
                node,
                from: None,
                path,
                endpoint: Some(endpoint),
                answer,
            },
        );
        match other {
            Other::Answers => {}
            Other::Waits => facts.nodes[1].probe.as_mut().unwrap().facts = None,
            Other::IsSilent => facts.nodes[1].alive_until = None,
        }
        stage(&diagnose(&facts), C::ProxyForwards).reason
    };
    assert_eq!(of(E2, Other::Answers), R::TimedOut);
    assert_eq!(of(E2, Other::Waits), R::Pending);
    assert_eq!(of(E2, Other::IsSilent), R::AgentNotResponding);
    for other in [Other::Waits, Other::IsSilent] {
        assert_eq!(of(E1, other), R::TimedOut, "nobody else is on the way");
    }
}
