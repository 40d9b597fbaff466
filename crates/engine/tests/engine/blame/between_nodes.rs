//! What is blamed where packets between nodes are lost, told by what is known of the way.

use super::*;

#[test]
fn the_way_between_nodes_is_told_by_its_tunnel() {
    let tunnel = |name: &str, kind, port| Tunnel {
        name: name.into(),
        kind,
        port,
    };
    let with = |tunnels: Vec<Tunnel>| cross_node(|f| everywhere(f, |n| n.tunnels = Some(tunnels.clone())));
    let d = with(vec![tunnel("flannel.1", TunnelKind::Vxlan, Some(8472))]);
    assert!(
        says(&d, "tunnel flannel.1 (VXLAN, UDP port 8472)"),
        "{}",
        report(&d)
    );
    assert!(says(&d, "let UDP port 8472 pass"), "{}", report(&d));
    let d = with(vec![tunnel("tunl0", TunnelKind::Ipip, None)]);
    assert!(says(&d, "let IP protocol 4 pass"), "{}", report(&d));
    let d = with(Vec::new());
    assert!(says(&d, "No tunnel is up"), "{}", report(&d));
    let d = cross_node(|_| {});
    assert!(!says(&d, "No tunnel is up"), "{}", report(&d));
    assert!(says(&d, "UDP 8472") && says(&d, "UDP 4789"), "{}", report(&d));
}

#[test]
fn endpoints_are_said_to_answer_at_home_only_if_somebody_tried_there() {
    let d = cross_node(|_| {});
    assert!(says(&d, "answer on their own node"), "{}", report(&d));
    let d = cross_node(|f| everywhere(f, |n| n.dials.retain(|d| d.from.is_some())));
    assert!(!says(&d, "answer on their own node"), "{}", report(&d));
}

#[test]
fn nodes_under_one_address_do_not_reach_each_other() {
    let d = cross_node(|f| nodes(f, &["10.0.2.15", "10.0.2.15", "10.0.2.15"]));
    assert!(says(&d, "have the same InternalIP, 10.0.2.15"), "{}", report(&d));
    let d = cross_node(|f| nodes(f, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]));
    assert!(!says(&d, "InternalIP"), "{}", report(&d));
}

#[test]
fn external_ips_that_are_nodes_take_them_away_in_ipvs_mode() {
    let told = |mode: &str| {
        let d = cross_node(|f| {
            nodes(f, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
            service(f, json!({ "spec": { "externalIPs": ["192.0.2.2"] } }));
            everywhere(f, |n| n.kube_proxy.as_mut().unwrap().mode = Some(mode.to_owned()));
        });
        report(&d)
    };
    let words = "externalIPs are addresses of Nodes (192.0.2.2 of n2)";
    assert!(told("ipvs").contains(words), "{}", told("ipvs"));
    // Otherwise a node takes the packets to the Service's ports alone.
    assert!(!told("iptables").contains(words), "{}", told("iptables"));
}

#[test]
fn a_pod_network_that_holds_the_nodes() {
    let d = cross_node(|f| nodes(f, &["10.244.2.100", "10.244.2.101", "10.244.2.102"]));
    assert!(
        says(&d, "looks like an address of the nodes' own network"),
        "{}",
        report(&d)
    );
    // Where every Pod has an address of the nodes' network, that is how it is meant.
    let d = cross_node(|f| nodes(f, &["10.244.1.100", "10.244.2.101", "10.244.3.102"]));
    assert!(!says(&d, "own network"), "{}", report(&d));
}
