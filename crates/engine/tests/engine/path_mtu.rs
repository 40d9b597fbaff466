//! Packets of full size that are lost between nodes, and those on whom nothing is blamed.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, LinkMtu, LinkRole, PacketSize, Reason as R, TunnelKind};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{agents::*, report::*, walkthrough::*};

fn link(role: LinkRole, name: &str, mtu: u32, tunnel: Option<TunnelKind>) -> LinkMtu {
    LinkMtu {
        role,
        name: name.to_owned(),
        mtu,
        tunnel,
    }
}

/// The links of a node: a Pod's with this MTU, a tunnel, and an uplink with 1500.
fn links(pod: u32, tunnel: Option<(TunnelKind, u32)>) -> Vec<LinkMtu> {
    let mut all = vec![
        link(LinkRole::Pod, "eth0", pod, None),
        link(LinkRole::Bridge, "cni0", pod, None),
    ];
    all.extend(tunnel.map(|(kind, mtu)| link(LinkRole::Tunnel, "flannel.1", mtu, Some(kind))));
    all.push(link(LinkRole::Uplink, "ens3", 1500, None));
    all
}

/// The path from the client to an endpoint, with what arrives on it.
fn path(to: &str, passes: u16, fails: u16) -> PacketSize {
    PacketSize {
        from: CLIENT.to_owned(),
        to: to.to_owned(),
        passes,
        fails,
        links: links(u32::from(fails), None),
    }
}

const ON_N1: &str = "10.244.1.5";
const ON_N2: &str = "10.244.2.6";
const ON_N3: &str = "10.244.3.7";

fn narrow(facts: &mut Facts, paths: &[PacketSize]) {
    on(facts, "n1", |n| n.packet_sizes = paths.to_vec());
}

/// The root cause, both texts.
fn said(diagnosis: &Diagnosis) -> String {
    let cause = diagnosis.root_cause.as_ref().unwrap();
    format!("{}\n{}", cause.message, cause.remediation)
}

#[track_caller]
fn says(diagnosis: &Diagnosis, words: &[&str]) {
    let said = said(diagnosis);
    for words in words {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[test]
fn n63_large_packets_are_lost_between_two_nodes() {
    let d = fault("N63", C::EndpointsReachable, R::PathMTUTooSmall, |f| {
        let vxlan = Some((TunnelKind::Vxlan, 1500));
        let lossy = PacketSize {
            links: links(1500, vxlan),
            ..path(ON_N2, 1450, 1500)
        };
        narrow(f, &[lossy]);
    });
    assert_eq!(impact(&d), "Some");
    says(
        &d,
        &[
            "UDP packets of 1500 bytes, as large as TCP sends them, are lost from Pod shop/client on node n1 to Pod shop/hostnames-",
            "Packets of up to 1450 bytes arrive",
            "the Pod's eth0 1500, bridge cni0 1500, tunnel flannel.1 (VXLAN) 1500, uplink ens3 1500",
            "Lower the MTU of the Pods' links, and of tunnel flannel.1, to 1450 or less",
            "VXLAN adds 50 bytes or more to each packet, which leaves at most 1450 of the 1500 bytes",
        ],
    );
}

#[test]
fn responses_that_never_come_are_explained_by_packets_that_are_lost() {
    let mut facts = with_agents();
    patch(&mut facts.spec, json!({ "probe": { "http": { "path": "/" } } }));
    look(&mut facts);
    let healthy = facts.clone();
    fail_from_clients(&mut facts, &[1, 2], Answer::NoAnswer);
    narrow(&mut facts, &[path(ON_N2, 1400, 1500), path(ON_N3, 1400, 1500)]);
    let d = diagnose(&facts);
    assert_root_cause(&d, C::EndpointsReachable, R::PathMTUTooSmall);
    keep("mtu-of-responses", &healthy, &d);
    says(
        &d,
        &[
            "Connects but times out: 10.244.2.6:9376",
            "Large packets are lost from node n1 to node n3 too",
        ],
    );
    // Between the same nodes it may be either direction that was tried.
    let mut facts = healthy.clone();
    fail_from_clients(&mut facts, &[1], Answer::NoAnswer);
    on(&mut facts, "n2", |n| {
        n.packet_sizes = vec![PacketSize {
            from: "shop/hostnames-632524106-ly40y".to_owned(),
            ..path(ON_N1, 1400, 1500)
        }];
    });
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::PathMTUTooSmall);
    // What happens between two nodes says nothing of two others.
    let mut facts = healthy;
    fail_from_clients(&mut facts, &[2], Answer::NoAnswer);
    narrow(&mut facts, &[path(ON_N2, 1400, 1500)]);
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::TimedOut);
}

#[test]
fn connections_that_are_not_made_come_first() {
    let mut facts = with_agents();
    fail_from_clients(&mut facts, &[1, 2], Answer::TimedOut);
    narrow(&mut facts, &[path(ON_N3, 1400, 1500)]);
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::CrossNodeUnreachable);
}

#[test]
fn what_lies_between_the_nodes_is_looked_at_where_their_links_are_large_enough() {
    let of = |passes: u16, fails: u16, tunnel: Option<(TunnelKind, u32)>| {
        let mut facts = with_agents();
        let links = links(u32::from(fails), tunnel);
        narrow(
            &mut facts,
            &[PacketSize {
                links,
                ..path(ON_N2, passes, fails)
            }],
        );
        said(&diagnose(&facts))
    };
    let between =
        "Uplink ens3 of node n1 takes such packets (1500 bytes), so something between the nodes does not";
    assert!(of(1400, 1500, None).contains(between));
    assert!(of(1300, 1450, Some((TunnelKind::Vxlan, 1450))).contains(between));
    // A tunnel that takes more than the uplink leaves room for.
    let oversized = of(1480, 8960, Some((TunnelKind::Ipip, 8960)));
    assert!(
        oversized.contains("IP in IP adds 20 bytes or more to each packet, which leaves at most 1480"),
        "{oversized}"
    );
    assert!(
        oversized.contains("Lower the MTU of the Pods' links, and of tunnel flannel.1, to 1480"),
        "{oversized}"
    );
    assert!(
        oversized.contains("`ip -d link` on node n1 and on node n2 shows the MTUs"),
        "{oversized}"
    );
    // Open vSwitch makes its links as large as can be.
    let on_purpose = of(1400, 1500, Some((TunnelKind::Geneve, 65_000)));
    assert!(
        on_purpose.contains("Lower the MTU of the Pods' links to 1400"),
        "{on_purpose}"
    );
}

#[test]
fn a_tunnel_is_named_as_the_reason_only_if_there_is_one_kind() {
    let mut facts = with_agents();
    let mut both = links(1500, Some((TunnelKind::Vxlan, 1500)));
    both.push(link(LinkRole::Tunnel, "wg0", 1420, Some(TunnelKind::WireGuard)));
    narrow(
        &mut facts,
        &[PacketSize {
            links: both,
            ..path(ON_N2, 1450, 1500)
        }],
    );
    let said = said(&diagnose(&facts));
    assert!(
        !said.contains("adds") && !said.contains("something between"),
        "{said}"
    );
    // Nobody read the links.
    let mut facts = with_agents();
    narrow(
        &mut facts,
        &[PacketSize {
            links: Vec::new(),
            ..path(ON_N2, 1450, 1500)
        }],
    );
    let said = self::said(&diagnose(&facts));
    assert!(!said.contains("MTUs on node n1"), "{said}");
    assert!(
        said.contains("Lower the MTU of the Pods' links to 1450 or less"),
        "{said}"
    );
}

#[test]
fn a_path_that_is_none_of_today_is_no_fault() {
    for paths in [
        // No longer an endpoint.
        vec![path("10.244.2.99", 1400, 1500)],
        // On the same node.
        vec![path(ON_N1, 1400, 1500)],
        // Nonsense.
        vec![path(ON_N2, 1500, 1500), path(ON_N2, 1500, 1400), path("x", 1, 2)],
        vec![PacketSize {
            from: "shop/gone".to_owned(),
            ..path(ON_N2, 1400, 1500)
        }],
    ] {
        works(|f| narrow(f, &paths));
    }
    // The client is on another node than the one that reports.
    works(|f| on(f, "n3", |n| n.packet_sizes = vec![path(ON_N2, 1400, 1500)]));
}

#[test]
fn neither_hosts_nor_pods_with_a_sidecar_tell_how_large_packets_are() {
    lookalike(|f| {
        each_pod(f, |pod| pod.spec.host_network = Some(true));
        narrow(f, &[path(ON_N2, 1400, 1500)]);
    });
    lookalike(|f| {
        narrow(f, &[path(ON_N2, 1400, 1500)]);
        on(f, "n1", |n| n.intercepted = vec![CLIENT.to_owned()]);
    });
}

#[test]
fn what_was_seen_is_among_the_observations() {
    let mut facts = with_agents();
    narrow(&mut facts, &[path(ON_N2, 1400, 1500)]);
    let d = diagnose(&facts);
    let first = &d.observations[0];
    assert_eq!(first.result, "packets of 1500 bytes are lost");
    assert_eq!(first.target.as_deref(), Some(ON_N2));
    assert_eq!(
        first.detail.as_deref(),
        Some("packets of up to 1400 bytes arrive")
    );
}

#[test]
fn the_next_round_decides_after_a_fix() {
    let mut facts = with_agents();
    narrow(&mut facts, &[path(ON_N2, 1400, 1500)]);
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::PathMTUTooSmall);
    for node in &mut facts.nodes {
        let seen = node.probe.as_mut().and_then(|p| p.facts.as_mut()).unwrap();
        Arc::make_mut(seen).packet_sizes.clear();
    }
    assert_eq!(assert_nothing_false(&facts).ready.reason, R::ServiceWorks);
}
