//! Do the Pods answer when the Service is bypassed? Each fault, and beside it its lookalikes, of which nothing may be False.

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DeadEndRule, DialPath, Reason as R};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn n01_the_pods_listen_on_another_port() {
    let d = fault("N01", C::EndpointsReachable, R::NotListening, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "0.0.0.0", 8080)]);
    });
    assert_eq!(impact(&d), "All");
    fault("N01-unseen", C::EndpointsReachable, R::ConnectionRefused, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
    });
}

#[test]
fn n01_n02_n03_what_listens_says_nothing_where_dials_work() {
    works(|f| sockets(f, &[("TCP", "0.0.0.0", 9376), ("TCP", "127.0.0.1", 1234)]));
    works(|f| sockets(f, &[("TCP", "::", 9376)]));
}

#[test]
fn n02_the_pods_listen_on_loopback() {
    fault("N02", C::EndpointsReachable, R::ListensOnLoopbackOnly, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "127.0.0.1", 9376)]);
    });
}

#[test]
fn n03_the_pods_listen_in_the_other_family() {
    fault("N03", C::EndpointsReachable, R::WrongFamilyListening, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "::", 9376)]);
    });
}

#[test]
fn n04_packets_to_one_endpoint_are_dropped() {
    let d = fault("N04", C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        fail_direct(f, &[1], Answer::TimedOut);
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
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Blocked);
}

#[test]
fn n05_the_route_between_two_nodes_is_missing() {
    fault("N05", C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        fail_from_clients(f, &[1, 2], Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    // From other nodes only, though nobody dialled at home.
    fault(
        "N05-no-node-dials",
        C::EndpointsReachable,
        R::CrossNodeUnreachable,
        |f| {
            everywhere(f, |n| n.dials.retain(|d| d.from.is_some()));
            fail_from_clients(f, &[1, 2], Answer::Unreachable);
        },
    );
    let d = fault("N05-all", C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        single(f, 1);
        look(f);
        fail_from_clients(f, &[0], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
}

#[test]
fn n05_all_endpoints_on_one_node() {
    works(|f| {
        single(f, 0);
        look(f);
    });
}

#[test]
fn n15_a_node_does_not_forward() {
    let d = fault("N15", C::EndpointsReachable, R::IPForwardingDisabled, |f| {
        f.pods.remove(0);
        resync(f);
        look(f);
        on(f, "n1", |n| n.settings.ipv4_forwarding = Some(false));
        fail_from_clients(f, &[0, 1], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
    fault(
        "N15-same-node",
        C::ServiceReachable,
        R::IPForwardingDisabled,
        |f| {
            single(f, 0);
            look(f);
            on(f, "n1", |n| n.settings.ipv4_forwarding = Some(false));
            fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        },
    );
    fault(
        "N15-endpoints-node",
        C::EndpointsReachable,
        R::IPForwardingDisabled,
        |f| {
            on(f, "n2", |n| n.settings.ipv4_forwarding = Some(false));
            fail_from_clients(f, &[1], Answer::TimedOut);
        },
    );
}

#[test]
fn n15_the_command_names_the_nodes_that_it_is_for() {
    let d = fault(
        "N15-two-nodes",
        C::EndpointsReachable,
        R::IPForwardingDisabled,
        |f| {
            for node in ["n2", "n3"] {
                on(f, node, |n| n.settings.ipv4_forwarding = Some(false));
            }
            fail_from_clients(f, &[1, 2], Answer::TimedOut);
        },
    );
    let remediation = d.root_cause.unwrap().remediation;
    assert!(
        remediation.starts_with(
            "Enable IP forwarding on nodes n2 and n3: run `sysctl -w net.ipv4.ip_forward=1` there."
        ),
        "{remediation}"
    );
}

#[test]
fn n16_rules_in_different_chains_are_told_apart() {
    let drops = |chain: &str| DeadEndRule {
        hook: "FORWARD".into(),
        chain: chain.into(),
        rejects: false,
    };
    let d = fault("N16-chains", C::EndpointsReachable, R::FirewallDrops, |f| {
        on(f, "n2", |n| n.settings.dead_ends = vec![drops("CNI-FORWARD")]);
        on(f, "n3", |n| n.settings.dead_ends = vec![drops("DOCKER-USER")]);
        fail_from_clients(f, &[1, 2], Answer::TimedOut);
    });
    let remediation = d.root_cause.unwrap().remediation;
    assert!(
        remediation.contains("`iptables -S CNI-FORWARD` on node n2 and `iptables -S DOCKER-USER` on node n3")
            && !remediation.contains("KUBE-FIREWALL"),
        "{remediation}"
    );
    // Whoever gets through shows that the rules are not in the way.
    works(|f| {
        on(f, "n2", |n| n.settings.dead_ends = vec![drops("CNI-FORWARD")]);
        on(f, "n3", |n| n.settings.dead_ends = vec![drops("DOCKER-USER")]);
    });
}

#[test]
fn n15_n16_n17_settings_alone_are_no_fault() {
    works(|f| {
        everywhere(f, |n| {
            n.settings.ipv4_forwarding = Some(false);
            n.settings.forward_drops = Some(true);
            n.settings.conntrack_full = Some(true);
            n.settings.reverse_path_drops = Some(true);
            n.settings.bridge_netfilter = Some(false);
        });
    });
}

#[test]
fn n16_the_forward_chain_drops() {
    fault("N16", C::EndpointsReachable, R::FirewallDrops, |f| {
        on(f, "n1", |n| n.settings.forward_drops = Some(true));
        fail_from_clients(f, &[1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
}

#[test]
fn n17_the_table_of_connections_is_full() {
    fault("N17", C::EndpointsReachable, R::ConntrackTableFull, |f| {
        on(f, "n1", |n| n.settings.conntrack_full = Some(true));
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
}

#[test]
fn n17_dns_is_silent_since_a_node_drops_what_it_cannot_track() {
    let d = lookalike(|f| {
        dns_is_silent(f);
        on(f, "n2", |n| n.settings.conntrack_full = Some(true));
    });
    let dns = stage(&d, C::DNSResolves);
    assert!(dns.message.contains("of node n2 is full"), "{}", dns.message);
}

#[test]
fn n19_reverse_path_filtering() {
    fault("N19", C::EndpointsReachable, R::ReversePathFiltering, |f| {
        on(f, "n2", |n| n.settings.reverse_path_drops = Some(true));
        fail_from_clients(f, &[1], Answer::TimedOut);
    });
}

#[test]
fn n21_one_of_three_endpoints_refuses() {
    let d = fault("N21", C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        fail_direct(f, &[2], Answer::Refused);
        sockets(f, &[("TCP", "0.0.0.0", 8080)]);
    });
    assert_eq!(impact(&d), "Some");
}

#[test]
fn n22_the_pods_answer_500() {
    fault("N22", C::EndpointsReachable, R::UnexpectedResponse, |f| {
        patch(&mut f.spec, json!({ "probe": { "http": { "path": "/" } } }));
        look(f);
        fail_direct(f, &[0, 1, 2], Answer::Unexpected);
        everywhere(f, |n| {
            n.failures
                .iter_mut()
                .for_each(|d| d.detail = Some("HTTP status 500".into()))
        });
    });
}
