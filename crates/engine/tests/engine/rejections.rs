//! Firewalls that say that they reject the packets: who it was, and what looks like it and is none.

use svcdiag_api::{Answer, ConditionType as C, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{
    agents::*,
    blame::nodes,
    fixtures::default_deny,
    report::{assert_nothing_false, fault, report, stage},
};

fn says(diagnosis: &Diagnosis, words: &str) -> bool {
    report(diagnosis).contains(words)
}

/// What the ICMP messages about all failures said.
fn by(facts: &mut Facts, detail: &str) {
    everywhere(facts, |n| {
        for failure in &mut n.failures {
            failure.detail = Some(detail.into());
        }
    });
}

/// The client fails at all endpoints, which answer on their own nodes.
fn rejected(detail: &str) -> impl FnOnce(&mut Facts) {
    move |facts| {
        nodes(facts, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        fail_from_clients(facts, &[0, 1, 2], Answer::Unreachable);
        by(facts, detail);
    }
}

#[test]
fn a_firewall_of_the_clients_own_node() {
    let d = fault(
        "rejected-at-home",
        C::EndpointsReachable,
        R::FirewallRejects,
        rejected("prohibited by the node's address 10.244.1.1"),
    );
    assert!(says(&d, "Node n1, on which the client runs, rejects the packets"));
    assert!(says(&d, "not the network between the nodes"));
    for words in ["probably", "UDP port", "network plugin's Pods"] {
        assert!(!says(&d, words), "{words}: {}", report(&d));
    }
}

#[test]
fn a_firewall_of_another_node() {
    let d = fault(
        "rejected-by-a-node",
        C::EndpointsReachable,
        R::FirewallRejects,
        rejected("prohibited by 192.0.2.2"),
    );
    assert!(says(&d, "Node n2 rejects the packets"), "{}", report(&d));
    // Two Nodes claim the address: nobody knows whose it is.
    let d = fault(
        "rejected-by-one-of-two",
        C::EndpointsReachable,
        R::FirewallRejects,
        |f| {
            rejected("prohibited by 192.0.2.2")(f);
            nodes(f, &["192.0.2.1", "192.0.2.2", "192.0.2.2"]);
        },
    );
    assert!(!says(&d, "Node n2 rejects"), "{}", report(&d));
    assert!(
        says(
            &d,
            "192.0.2.2, which is the InternalIP of 2 Nodes (n2 and n3), rejects"
        ) && says(&d, "On nodes n2 and n3, find the rule"),
        "{}",
        report(&d)
    );
}

#[test]
fn a_rule_inside_a_pod() {
    let d = fault(
        "rejected-by-the-client",
        C::EndpointsReachable,
        R::FirewallRejects,
        rejected("prohibited by 10.244.1.9"),
    );
    assert!(says(
        &d,
        "The packets of Pod shop/client are rejected as administratively prohibited (ICMP) in its own network namespace"
    ));
    let d = fault(
        "rejected-by-an-endpoint",
        C::EndpointsReachable,
        R::FirewallRejects,
        |f| {
            fail_from_clients(f, &[1], Answer::Unreachable);
            by(f, "prohibited by 10.244.2.6");
        },
    );
    assert!(says(
        &d,
        "Endpoint 10.244.2.6:9376 itself rejects the packets as administratively prohibited"
    ));
}

#[test]
fn a_firewall_that_is_no_node() {
    let d = fault(
        "rejected-on-the-way",
        C::EndpointsReachable,
        R::FirewallRejects,
        rejected("prohibited by 198.51.100.1"),
    );
    assert!(
        says(&d, "A machine with the address 198.51.100.1"),
        "{}",
        report(&d)
    );
}

#[test]
fn a_firewall_that_answers_with_the_nodes_address_in_the_pod_network() {
    let told = |range: &str| {
        let mut f = with_agents();
        rejected("prohibited by 10.244.2.0")(&mut f);
        let node = f
            .cluster_nodes
            .iter_mut()
            .find(|n| n.metadata.name.as_deref() == Some("n2"));
        std::sync::Arc::make_mut(node.unwrap()).spec.pod_cidr = Some(range.to_owned());
        report(&diagnose(&f))
    };
    let used = told("10.244.2.0/24");
    assert!(used.contains("probably an address of node n2"), "{used}");
    assert!(used.contains("On node n2, find the rule"), "{used}");
    // Whose Pods have addresses from elsewhere.
    let unused = told("10.250.2.0/24");
    assert!(
        unused.contains("A machine with the address 10.244.2.0"),
        "{unused}"
    );
}

#[test]
fn whoever_rejects_behind_the_service_is_not_known() {
    let d = fault(
        "rejected-behind-the-service",
        C::ServiceReachable,
        R::FirewallRejects,
        |f| {
            nodes(f, &["10.96.1.175", "192.0.2.2", "192.0.2.3"]);
            fail_service(f, "n1", Some(CLIENT), Answer::Unreachable);
            by(f, "prohibited by 10.96.1.175");
        },
    );
    assert!(says(&d, "Address translation hides where"), "{}", report(&d));
}

#[test]
fn a_rule_that_is_known_is_named_where_it_is_that_nodes() {
    let dead_end = || svcdiag_api::DeadEndRule {
        hook: "FORWARD".into(),
        chain: "filter_FORWARD".into(),
        rejects: true,
    };
    let d = fault(
        "rejected-by-a-known-rule",
        C::EndpointsReachable,
        R::FirewallRejects,
        |f| {
            fail_service(f, "n1", Some(CLIENT), Answer::Unreachable);
            rejected("prohibited by the node's address 10.244.1.1")(f);
            on(f, "n1", |n| n.settings.dead_ends = vec![dead_end()]);
        },
    );
    assert!(says(
        &d,
        "A rule in chain filter_FORWARD (reached from FORWARD) on node n1"
    ));
    // The message came from elsewhere.
    let d = fault(
        "rejected-by-another-rule",
        C::EndpointsReachable,
        R::FirewallRejects,
        |f| {
            rejected("prohibited by 192.0.2.2")(f);
            on(f, "n1", |n| n.settings.dead_ends = vec![dead_end()]);
        },
    );
    assert!(!says(&d, "filter_FORWARD"), "{}", report(&d));
}

#[test]
fn a_router_without_a_route_is_no_firewall() {
    let mut facts = with_agents();
    rejected("by 192.0.2.1")(&mut facts);
    assert_eq!(
        stage(&diagnose(&facts), C::EndpointsReachable).reason,
        R::NoRouteToHost
    );
    // A rule that rejects as a closed port does.
    let mut facts = with_agents();
    fail_from_clients(&mut facts, &[0, 1, 2], Answer::Rejected);
    by(&mut facts, "by 192.0.2.1");
    assert_eq!(
        stage(&diagnose(&facts), C::EndpointsReachable).reason,
        R::ConnectionRefused
    );
    // A reset has no sender.
    let mut facts = with_agents();
    fail_from_clients(&mut facts, &[0, 1, 2], Answer::Refused);
    assert!(!says(&diagnose(&facts), "FirewallRejects"));
}

/// Network plugins may reject with these messages what a policy denies.
#[test]
fn a_policy_that_rejects_is_no_firewall() {
    let mut facts = with_agents();
    default_deny(&mut facts);
    fail_direct(&mut facts, &[0, 1, 2], Answer::Unreachable);
    fail_service(&mut facts, "n1", Some(CLIENT), Answer::Unreachable);
    by(&mut facts, "prohibited by 10.244.2.6");
    let diagnosis = diagnose(&facts);
    assert!(!says(&diagnosis, "FirewallRejects"), "{}", report(&diagnosis));
}

#[test]
fn an_earlier_rejection_of_an_endpoint_that_is_gone_is_no_fault() {
    let mut facts = with_agents();
    rejected("prohibited by the node's address 10.244.1.1")(&mut facts);
    on(&mut facts, "n1", |n| {
        for failure in &mut n.failures {
            failure.target = "10.244.9.9:9376".into();
            failure.endpoint = Some("10.244.9.9:9376".into());
        }
        n.dials.iter_mut().for_each(|d| d.failed = 0);
    });
    assert_nothing_false(&facts);
}
