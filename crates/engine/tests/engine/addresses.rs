//! Addresses that cannot work: told where dials fail, and no fault where none does.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, Reason as R, WrongNeighbour};
use svcdiag_engine::{Diagnosis, Facts, diagnose};
use svcdiag_objects::Node;

use crate::{
    agents::*,
    report::{assert_nothing_false, report, stage},
    walkthrough::*,
};

/// Nodes n1, n2, ... with their InternalIP and the range of their Pods.
fn nodes(facts: &mut Facts, of: &[(&str, &str)]) {
    facts.cluster_nodes = of
        .iter()
        .enumerate()
        .map(|(i, (ip, range))| {
            Arc::new(object::<Node>(json!({
                "metadata": { "name": format!("n{}", i + 1) },
                "spec": { "podCIDR": range, "podCIDRs": [range] },
                "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
            })))
        })
        .collect();
}

const RANGES: [(&str, &str); 3] = [
    ("192.0.2.1", "10.244.1.0/24"),
    ("192.0.2.2", "10.244.2.0/24"),
    ("192.0.2.3", "10.244.3.0/24"),
];

/// What is said of it where the client fails at the endpoints on other nodes, through the Service as well.
fn failing(change: impl Fn(&mut Facts)) -> String {
    let mut facts = with_agents();
    change(&mut facts);
    assert_nothing_false(&facts);
    fail_from_clients(&mut facts, &[1, 2], Answer::TimedOut);
    said_of(&diagnose(&facts), C::EndpointsReachable)
}

#[track_caller]
fn said_of(diagnosis: &Diagnosis, condition: C) -> String {
    let finding = stage(diagnosis, condition);
    assert!(
        matches!(finding.verdict, svcdiag_engine::Verdict::False { .. }),
        "{}",
        report(diagnosis)
    );
    finding.message.clone()
}

#[test]
fn two_pods_with_one_address() {
    let twice = |f: &mut Facts| {
        f.pods
            .push(pod("other", "n3", "10.244.2.6", json!({ "app": "other" })))
    };
    let said = failing(twice);
    assert!(said.contains("10.244.2.6 is the address of two Pods"), "{said}");
    // One of them dead, the other endpoints fine.
    let mut facts = with_agents();
    twice(&mut facts);
    fail_direct(&mut facts, &[1], Answer::Refused);
    let diagnosis = diagnose(&facts);
    assert_eq!(
        stage(&diagnosis, C::EndpointsReachable).reason,
        R::SomeEndpointsFailing
    );
    let said = said_of(&diagnosis, C::EndpointsReachable);
    assert!(said.contains("10.244.2.6 is the address of two Pods"), "{said}");
    // It is another endpoint that fails.
    let mut facts = with_agents();
    twice(&mut facts);
    fail_direct(&mut facts, &[2], Answer::Refused);
    let said = said_of(&diagnose(&facts), C::EndpointsReachable);
    assert!(!said.contains("two Pods"), "{said}");
}

#[test]
fn one_address_after_the_other_or_of_the_host_is_no_trouble() {
    for status in [
        json!({ "status": { "phase": "Succeeded" } }),
        json!({ "spec": { "hostNetwork": true } }),
        json!({ "metadata": { "deletionTimestamp": ago(5) } }),
    ] {
        let said = failing(|f| {
            let mut other = (*pod("other", "n3", "10.244.2.6", json!({ "app": "other" }))).clone();
            patch(&mut other, status.clone());
            f.pods.push(Arc::new(other));
        });
        assert!(!said.contains("two Pods"), "{status}: {said}");
    }
}

/// What is said where the only endpoint on a node refuses that node, which sends its packets for an IP address elsewhere.
fn sent_elsewhere(failing: usize, ip: &str) -> String {
    let mut facts = with_agents();
    on(&mut facts, "n2", |n| {
        n.wrong_neighbours.push(WrongNeighbour {
            from: None,
            pod: "shop/hostnames-632524106-ly40y".to_owned(),
            ip: ip.to_owned(),
            sent_to: "0a:58:0a:f4:02:63".to_owned(),
            own: "0a:58:0a:f4:02:06".to_owned(),
        });
    });
    assert_nothing_false(&facts);
    fail_direct(&mut facts, &[failing], Answer::Refused);
    said_of(&diagnose(&facts), C::EndpointsReachable)
}

#[test]
fn another_host_answers_for_an_endpoint() {
    let said = sent_elsewhere(1, "10.244.2.6");
    for words in [
        "Node n2 sends packets for 10.244.2.6 to the link-layer address 0a:58:0a:f4:02:63",
        "but Pod shop/hostnames-632524106-ly40y, which has that IP address, has 0a:58:0a:f4:02:06",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // It is another endpoint that fails, or another address that is sent elsewhere.
    assert!(!sent_elsewhere(2, "10.244.2.6").contains("link-layer"));
    assert!(!sent_elsewhere(1, "10.244.2.7").contains("link-layer"));
}

#[test]
fn nodes_with_one_internal_ip_are_told_once() {
    let said = failing(|f| {
        nodes(f, &[RANGES[0], RANGES[1], ("192.0.2.2", "10.244.3.0/24")]);
    });
    assert_eq!(
        said.matches("have the same InternalIP, 192.0.2.2").count(),
        1,
        "{said}"
    );
    let said = failing(|f| nodes(f, &RANGES));
    assert!(
        !said.contains("InternalIP") && !said.contains("overlap"),
        "{said}"
    );
}

#[test]
fn ranges_that_overlap() {
    let said = failing(|f| nodes(f, &[("10.244.2.1", "10.244.1.0/24"), RANGES[1], RANGES[2]]));
    assert!(
        said.contains("The address 10.244.2.1 of node n1 is in the Pod range 10.244.2.0/24 of node n2"),
        "{said}"
    );
    let said = failing(|f| nodes(f, &[RANGES[0], ("192.0.2.2", "10.244.2.0/23"), RANGES[2]]));
    assert!(
        said.contains("The Pod ranges of nodes n2 (10.244.2.0/23) and n3 (10.244.3.0/24) overlap"),
        "{said}"
    );
}

#[test]
fn ranges_that_nobody_uses_do_not_overlap_with_anything() {
    // The network plugin assigns addresses by itself, and the Nodes' ranges are the default of the controller manager.
    let unused = [
        ("172.16.1.1", "172.16.1.0/24"),
        ("172.16.1.2", "172.16.1.0/24"),
        ("172.16.1.3", "172.16.0.0/16"),
    ];
    let said = failing(|f| nodes(f, &unused));
    assert!(!said.contains("overlap"), "{said}");
}

#[test]
fn a_service_address_among_those_of_pods() {
    let through = |ranges: [(&str, &str); 3]| {
        let mut facts = with_agents();
        nodes(&mut facts, &ranges);
        fail_service(&mut facts, "n1", Some(CLIENT), Answer::TimedOut);
        said_of(&diagnose(&facts), C::ServiceReachable)
    };
    let said = through([("192.0.2.1", "10.0.0.0/8"), ("192.0.2.2", ""), ("192.0.2.3", "")]);
    assert!(
        said.contains("The Service's address 10.96.1.175 is in the Pod range 10.0.0.0/8 of node n1"),
        "{said}"
    );
    let said = through(RANGES);
    assert!(!said.contains("overlap"), "{said}");
}
