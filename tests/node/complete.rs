//! Rules that a real kube-proxy wrote, loaded into the kernel and audited: no Service lacks anything.

use svcdiag::kube_proxy::{IpFamily, Protocol, Ruleset, hairpin_is_masqueraded, serves_node_ports_at};

use super::{
    captures::{Backend, Capture, gaps, hairpins},
    namespace::in_new_namespace,
};

fn assert_masqueraded(name: &str, node: &'static str, backend: Backend, marker: &str, fewer: usize) {
    let capture = Capture::load(name, node, backend);
    let count = |rules: &dyn Ruleset| {
        let all = hairpins(&capture);
        all.iter()
            .filter(|(address, protocol, endpoint)| {
                hairpin_is_masqueraded(rules, *address, *protocol, *endpoint).unwrap()
            })
            .count()
    };
    in_new_namespace(|| {
        capture.apply_all();
        assert_eq!(hairpins(&capture).len(), 67);
        assert_eq!(count(capture.open().as_ref()), 67);
        let without: Vec<&str> = capture
            .rules
            .lines()
            .filter(|line| !line.contains(marker))
            .collect();
        capture.apply(&format!("{}\n", without.join("\n")), IpFamily::V4);
        assert_eq!(count(capture.open().as_ref()), 67 - fewer, "without {marker}");
    });
}

#[test]
fn what_masquerades_a_pods_way_to_itself_is_found() {
    // The rules of the walk-through's three endpoints.
    let rule = "--comment \"default/hostnames:default\" -j KUBE-MARK-MASQ";
    assert_masqueraded("iptables", "lab-1", Backend::IptablesNft, rule, 3);
    let element = "10.244.0.4 . 10.244.0.4";
    assert_masqueraded("nftables", "lab-1", Backend::Nftables, element, 1);
}

/// Which of two addresses serve node ports: the node's, and one that is not.
fn serve_node_ports(rules: &dyn Ruleset) -> [bool; 2] {
    ["10.89.0.11", "10.89.0.12"]
        .map(|ip| serves_node_ports_at(rules, ip.parse().unwrap(), Protocol::Tcp, 30080).unwrap())
}

#[test]
fn kube_proxy_may_serve_node_ports_at_some_addresses_of_the_node_only() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    in_new_namespace(|| {
        capture.apply_all();
        assert_eq!(serve_node_ports(capture.open().as_ref()), [true, true]);
        // As with nodePortAddresses: 10.89.0.11/32.
        let rules = capture.rules.replace(
            "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
            "-d 10.89.0.11/32 -j KUBE-NODEPORTS",
        );
        assert_ne!(rules, capture.rules);
        capture.apply(&rules, IpFamily::V4);
        let found = gaps(capture.open().as_ref(), &capture.expected());
        assert!(found.is_empty(), "{found:#?}");
        assert_eq!(serve_node_ports(capture.open().as_ref()), [true, false]);
    });
    // In nftables mode it is the node's first address by itself.
    let capture = Capture::load("nftables", "lab-1", Backend::Nftables);
    in_new_namespace(|| {
        capture.apply_all();
        assert_eq!(serve_node_ports(capture.open().as_ref()), [true, false]);
    });
}

fn assert_complete(name: &str, node: &'static str, backend: Backend, ports: usize) {
    let capture = Capture::load(name, node, backend);
    let found = in_new_namespace(|| {
        capture.apply_all();
        let expected = capture.expected();
        assert_eq!(expected.len(), ports, "ports of Services that were audited");
        gaps(capture.open().as_ref(), &expected)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn rules_of_a_real_kube_proxy_in_iptables_mode_are_complete() {
    assert_complete("iptables", "lab-1", Backend::IptablesNft, 34);
}

#[test]
fn rules_of_a_real_kube_proxy_with_the_legacy_backend_are_complete() {
    assert_complete("iptables-legacy", "lab-2", Backend::IptablesLegacy, 34);
}

#[test]
fn rules_of_a_real_kube_proxy_with_many_endpoints_are_complete() {
    assert_complete("iptables-large", "lab-2", Backend::IptablesNft, 35);
}

#[test]
fn rules_of_a_real_kube_proxy_in_nftables_mode_are_complete() {
    assert_complete("nftables", "lab-1", Backend::Nftables, 34);
}

#[test]
fn rules_of_a_real_kube_proxy_on_the_second_node_are_complete() {
    assert_complete("lab-2-iptables", "lab-2", Backend::IptablesNft, 32);
    assert_complete("lab-2-nftables", "lab-2", Backend::Nftables, 34);
}
