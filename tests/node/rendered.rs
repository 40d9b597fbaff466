//! The rules that the sandbox writes are those of a real kube-proxy: the audit finds nothing missing in
//! them, and for what the API said when real rules were captured they are the captured ones.

mod listing;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use svcdiag::netns::netfilter::{legacy::Legacy, nf_tables::NfTables};
use svcdiag::{
    kube_proxy::{ExpectedPort, Layout, Ruleset, Vantage, expected, hairpin_is_masqueraded},
    objects::{EndpointSlice, Object, Service},
};
use svcdiag_sandbox::proxy::{Cluster, NodeView, ProxyMode, Script, cleanup, rules};

use super::{
    captures::{Backend, Capture, gaps, hairpins},
    namespace::{feed, in_new_namespace, run},
};

use self::listing::{Listing, assert_same, listing, of_kube_proxy};

/// The captures: the directory, its node and the mode of kube-proxy there.
const CAPTURES: [(&str, &str, ProxyMode); 6] = [
    ("iptables", "lab-1", ProxyMode::Iptables),
    ("iptables-large", "lab-2", ProxyMode::Iptables),
    ("iptables-legacy", "lab-2", ProxyMode::IptablesLegacy),
    ("lab-2-iptables", "lab-2", ProxyMode::Iptables),
    ("lab-2-nftables", "lab-2", ProxyMode::Nftables),
    ("nftables", "lab-1", ProxyMode::Nftables),
];

fn capture(name: &str, node: &'static str, mode: ProxyMode) -> Capture {
    let backend = match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => Backend::Nftables,
        ProxyMode::Iptables => Backend::IptablesNft,
        ProxyMode::IptablesLegacy => Backend::IptablesLegacy,
    };
    Capture::load(name, node, backend)
}

/// What kube-proxy watched when rules were captured.
pub(crate) fn cluster(capture: &str) -> Cluster {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(capture)
        .join("api.json");
    let api: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let items = api["items"].as_array().unwrap();
    let of_kind = |kind: &'static str| items.iter().filter(move |i| i["kind"] == kind).cloned();
    Cluster {
        services: of_kind("Service")
            .map(|i| serde_json::from_value(i).unwrap())
            .collect(),
        slices: of_kind("EndpointSlice")
            .map(|i| serde_json::from_value(i).unwrap())
            .collect(),
    }
}

pub(crate) fn node(name: &str) -> NodeView {
    let number = name.strip_prefix("lab-").unwrap();
    NodeView {
        name: name.into(),
        zone: None,
        ips: [format!("10.89.0.1{number}"), format!("fd00:89::1{number}")]
            .map(|ip| ip.parse().unwrap())
            .to_vec(),
        pod_cidrs: ["10.244.0.0/16", "fd00:10:244::/56"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        service_cidrs: ["10.96.0.0/16", "fd00:10:96::/112"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
    }
}

/// Runs scripts in the namespace of the calling thread.
pub(crate) fn apply(scripts: &[Script]) {
    for script in scripts {
        let present = script
            .present
            .map(|program| output(&[program]))
            .unwrap_or_default();
        if let Some(input) = script.input(&present) {
            feed(&[&[script.program], script.args].concat(), &input);
        }
    }
}

/// What a command says in the namespace of the calling thread.
fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn open(mode: ProxyMode) -> Box<dyn Ruleset> {
    match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => Box::new(NfTables::open(Layout::Nftables).unwrap()),
        ProxyMode::Iptables => Box::new(NfTables::open(Layout::Iptables).unwrap()),
        ProxyMode::IptablesLegacy => Box::new(Legacy::open().unwrap()),
    }
}

/// The rules that the sandbox writes for a capture are the captured ones.
fn assert_captured(name: &str, node_name: &'static str, mode: ProxyMode) {
    let capture = capture(name, node_name, mode);
    let mut wanted = of_kube_proxy(in_new_namespace(|| {
        capture.apply_all();
        listing(mode)
    }));
    let mut found = in_new_namespace(|| {
        apply(&rules(mode, &cluster(name), &node(node_name)));
        listing(mode)
    });
    if mode.proxy_mode() == "iptables" && capture.rules_v6.is_none() {
        // Nobody saved the rules of IPv6.
        wanted.retain(|name, _| name.starts_with("iptables"));
        found.retain(|name, _| name.starts_with("iptables"));
    }
    assert_same(name, &found, &wanted);
}

#[test]
fn rules_in_nftables_mode_are_those_of_a_real_kube_proxy() {
    for (name, node, mode) in CAPTURES {
        if mode == ProxyMode::Nftables {
            assert_captured(name, node, mode);
        }
    }
}

#[test]
fn rules_in_iptables_mode_are_those_of_a_real_kube_proxy() {
    for (name, node, mode) in CAPTURES {
        if mode == ProxyMode::Iptables {
            assert_captured(name, node, mode);
        }
    }
}

#[test]
fn rules_with_the_legacy_backend_are_those_of_a_real_kube_proxy() {
    assert_captured("iptables-legacy", "lab-2", ProxyMode::IptablesLegacy);
}

/// Nothing is missing in the rules that a mode has for what any capture's API said.
fn assert_complete(mode: ProxyMode) {
    for (name, node_name, captured) in CAPTURES {
        let capture = capture(name, node_name, captured);
        let expected: Vec<(String, ExpectedPort)> = capture.expected();
        assert!(expected.len() >= 32, "{} ports", expected.len());
        let hairpins = hairpins(&capture);
        in_new_namespace(|| {
            apply(&rules(mode, &cluster(name), &node(node_name)));
            let rules = open(mode);
            let found = gaps(rules.as_ref(), &expected);
            assert!(found.is_empty(), "{name} in mode {mode}: {found:#?}");
            for (address, protocol, endpoint) in &hairpins {
                let masqueraded = hairpin_is_masqueraded(rules.as_ref(), *address, *protocol, *endpoint);
                assert!(masqueraded.unwrap(), "{endpoint} of {address:?} in mode {mode}");
            }
        });
        assert!(!hairpins.is_empty());
    }
}

#[test]
fn rules_in_nftables_mode_are_complete() {
    assert_complete(ProxyMode::Nftables);
}

#[test]
fn rules_in_nftables_mode_of_older_versions_are_complete() {
    assert_complete(ProxyMode::NftablesOld);
}

#[test]
fn rules_in_iptables_mode_are_complete() {
    assert_complete(ProxyMode::Iptables);
}

#[test]
fn rules_with_the_legacy_backend_are_complete() {
    assert_complete(ProxyMode::IptablesLegacy);
}

#[test]
fn a_sync_replaces_what_was_written_before_and_leaves_the_rules_of_others() {
    let before = cluster("nftables");
    let mut after = before.clone();
    after
        .services
        .retain(|s| s.metadata.namespace.as_deref() != Some("matrix"));
    let view = node("lab-1");
    for mode in ProxyMode::ALL {
        let fresh = in_new_namespace(|| {
            write_rules_of_others(mode);
            apply(&rules(mode, &after, &view));
            listing(mode)
        });
        let (others, replaced, again, cleaned) = in_new_namespace(|| {
            write_rules_of_others(mode);
            let others = listing(mode);
            apply(&rules(mode, &before, &view));
            apply(&rules(mode, &after, &view));
            let replaced = listing(mode);
            apply(&rules(mode, &after, &view));
            let again = listing(mode);
            apply(&cleanup(mode));
            (others, replaced, again, listing(mode))
        });
        assert_eq!(replaced, again, "{mode}");
        assert_same(&mode.to_string(), &replaced, &fresh);
        for listing in [replaced, cleaned.clone()] {
            for (name, rules) in &others {
                for rule in rules {
                    assert!(listing[name].contains(rule), "{mode}: {rule} of {name} is gone");
                }
            }
        }
        let left = cleaned.values().flatten().chain(cleaned.keys());
        let left: Vec<_> = left
            .filter(|text| {
                text.contains("KUBE-S") || text.contains(" kube-proxy ") || text.contains("CANARY")
            })
            .filter(|text| !text.contains("KUBE-KUBELET-CANARY") && !text.contains("last of"))
            .collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
    }
}

fn write_rules_of_others(mode: ProxyMode) {
    let kubelet = "*nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n\
                   -A INPUT -j KUBE-FIREWALL\n-A FORWARD -s 192.0.2.0/24 -j DROP\nCOMMIT\n";
    match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => run("nft add table ip others\n
             nft add chain ip others forward\n
             nft add rule ip others forward ip saddr 192.0.2.0/24 drop"),
        ProxyMode::Iptables => feed(&["iptables-nft-restore"], kubelet),
        ProxyMode::IptablesLegacy => feed(&["iptables-legacy-restore"], kubelet),
    }
}

#[test]
fn rules_of_ipv6_go_with_the_last_service_that_has_it() {
    let before = cluster("nftables");
    let mut after = before.clone();
    let is_only_v4 = |ips: &Vec<String>| !ips.iter().any(|ip| ip.contains(':'));
    after.services.retain(|s| {
        s.spec
            .as_ref()
            .unwrap()
            .cluster_ips
            .as_ref()
            .is_none_or(is_only_v4)
    });
    let mut view = node("lab-1");
    view.ips.retain(std::net::IpAddr::is_ipv4);
    for mode in ProxyMode::ALL {
        let [fresh, replaced] = [vec![&after], vec![&before, &after]].map(|syncs| {
            in_new_namespace(|| {
                for cluster in syncs {
                    apply(&rules(mode, cluster, &view));
                }
                listing(mode)
            })
        });
        // iptables has no way to remove base chains: those of IPv6 stay, empty.
        let rules = |listing: Listing| -> Listing {
            let all = listing.into_iter();
            all.filter(|(name, rules)| !rules.is_empty() || name.contains("KUBE-"))
                .collect()
        };
        assert_same(&mode.to_string(), &rules(replaced), &rules(fresh));
    }
}

#[test]
fn removing_what_was_never_written_makes_no_table() {
    for mode in ProxyMode::ALL {
        let left = in_new_namespace(|| {
            apply(&cleanup(mode));
            listing(mode)
        });
        let left: Vec<_> = left.keys().filter(|name| !name.contains("last of")).collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
    }
}

/// Services that the captures do not have, with their EndpointSlices.
fn unusual() -> Vec<Value> {
    let service = |name: &str, spec: Value, status: Value| {
        json!({"kind": "Service", "metadata": {"namespace": "odd", "name": name}, "spec": spec,
               "status": {"loadBalancer": {"ingress": status}}})
    };
    let slice = |name: &str, family: &str, port: Value, endpoints: Value| {
        json!({"kind": "EndpointSlice", "addressType": family, "ports": [port], "endpoints": endpoints,
               "metadata": {"namespace": "odd", "name": format!("{name}-{family}").to_lowercase(),
                            "labels": {"kubernetes.io/service-name": name}}})
    };
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let port = json!({"port": 80, "nodePort": 30080, "protocol": "TCP"});
    vec![
        service(
            "sctp",
            json!({"clusterIPs": ["10.96.9.1"], "ports": [{"port": 80, "protocol": "SCTP", "nodePort": 30081}],
                   "sessionAffinity": "ClientIP"}),
            json!([]),
        ),
        slice(
            "sctp",
            "IPv4",
            json!({"port": 9376, "protocol": "SCTP"}),
            json!([{"addresses": ["10.244.0.1"], "nodeName": "lab-1"}, {"addresses": ["10.244.1.1"]}]),
        ),
        // Local policies in both families; the endpoints are leaving, the IPv6 one elsewhere.
        service(
            "dual-local",
            json!({"type": "LoadBalancer", "clusterIPs": ["10.96.9.2", "fd00:10:96::2"], "ports": [port],
                   "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
                   "healthCheckNodePort": 30999, "externalIPs": ["203.0.113.1", "2001:db8::1"],
                   "loadBalancerSourceRanges": ["10.89.0.0/24", "10.89.0.0/25", "fd00:89::/64", " 0.0.0.0/0"]}),
            json!([{"ip": "203.0.113.2"}, {"ip": "2001:db8::2", "ipMode": "VIP"},
                   {"ip": "203.0.113.3", "ipMode": "Proxy"}]),
        ),
        slice(
            "dual-local",
            "IPv4",
            json!({"port": 9376, "protocol": "TCP"}),
            json!([{"addresses": ["10.244.0.2"], "nodeName": "lab-1", "conditions": leaving}]),
        ),
        slice(
            "dual-local",
            "IPv6",
            json!({"port": 9376, "protocol": "TCP"}),
            json!([{"addresses": ["fd00:10:244:1::2"], "nodeName": "lab-2", "conditions": leaving}]),
        ),
        // Without endpoints, in IPv6.
        service(
            "nobody",
            json!({"type": "LoadBalancer", "clusterIPs": ["fd00:10:96::3"], "sessionAffinity": "ClientIP",
                   "ports": [{"port": 80, "nodePort": 30082, "protocol": "UDP"}],
                   "loadBalancerSourceRanges": ["2001:db8:1::/48"]}),
            json!([{"ip": "2001:db8::3"}]),
        ),
        // Meant for this node and for others; the endpoint of another family of the same address space.
        service(
            "hinted",
            json!({"clusterIPs": ["10.96.9.4"], "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}),
            json!([]),
        ),
        slice(
            "hinted",
            "IPv4",
            json!({"name": "web", "port": 9376, "protocol": "TCP"}),
            json!([{"addresses": ["10.244.0.4"], "hints": {"forNodes": [{"name": "lab-1"}]}},
                   {"addresses": ["10.244.1.4"], "hints": {"forNodes": [{"name": "lab-2"}]}}]),
        ),
    ]
}

#[test]
fn rules_for_unusual_services_are_taken_by_the_kernel_and_complete() {
    assert_nothing_is_missing(unusual(), 5);
}

/// Every mode's rules for Services of one namespace are complete.
fn assert_nothing_is_missing(items: Vec<Value>, ports: usize) {
    let mut cluster = Cluster::default();
    let (mut services, mut slices): (Vec<Service>, Vec<EndpointSlice>) = (Vec::new(), Vec::new());
    for item in items {
        if item["kind"] == "Service" {
            services.push(serde_json::from_value(item.clone()).unwrap());
            cluster.services.push(serde_json::from_value(item).unwrap());
        } else {
            slices.push(serde_json::from_value(item.clone()).unwrap());
            cluster.slices.push(serde_json::from_value(item).unwrap());
        }
    }
    let vantage = Vantage {
        node: "lab-1",
        zone: None,
    };
    let mut wanted = Vec::new();
    for service in &services {
        let own: Vec<_> = slices
            .iter()
            .filter(|s| s.service() == Some(service.name()))
            .collect();
        let ports = expected(service, &own, vantage);
        wanted.extend(ports.into_iter().map(|port| (service.name().to_owned(), port)));
    }
    assert_eq!(wanted.len(), ports);
    for mode in ProxyMode::ALL {
        let found = in_new_namespace(|| {
            apply(&rules(mode, &cluster, &node("lab-1")));
            gaps(open(mode).as_ref(), &wanted)
        });
        assert!(found.is_empty(), "{mode}: {found:#?}");
    }
}

#[test]
fn a_load_balancer_that_is_open_to_everybody_lacks_nothing() {
    let service = json!({
        "kind": "Service", "metadata": {"namespace": "odd", "name": "open"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.9.5", "fd00:10:96::5"],
                 "ports": [{"port": 80, "protocol": "TCP"}], "loadBalancerSourceRanges": ["0.0.0.0/0", "::/0"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}, {"ip": "2001:db8::5"}]}},
    });
    let slice = |family: &str, address: &str| {
        json!({"kind": "EndpointSlice", "addressType": family, "ports": [{"port": 9376, "protocol": "TCP"}],
               "metadata": {"namespace": "odd", "name": format!("open-{family}"),
                            "labels": {"kubernetes.io/service-name": "open"}},
               "endpoints": [{"addresses": [address]}]})
    };
    let slices = [slice("IPv4", "10.244.0.5"), slice("IPv6", "fd00:10:244::5")];
    assert_nothing_is_missing([vec![service], slices.to_vec()].concat(), 2);
}
