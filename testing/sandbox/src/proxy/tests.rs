//! What the text of the rules says in cases that are hard to come by on a real node.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

/// A Service `shop/web` with port 80 and one EndpointSlice in IPv4.
fn cluster(spec: Value, ingress: Value, endpoints: Value) -> Cluster {
    let mut service = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
                 "ports": [{"port": 80, "protocol": "TCP"}]},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 9376, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    Cluster {
        services: vec![serde_json::from_value(service).unwrap()],
        slices: vec![serde_json::from_value(slice).unwrap()],
    }
}

fn node() -> NodeView {
    NodeView {
        name: "here".into(),
        zone: Some("zone-1".into()),
        ips: vec!["192.0.2.1".parse().unwrap()],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
    }
}

/// An endpoint on a node.
fn endpoint(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node})
}

fn with(mut endpoint: Value, field: &str, value: Value) -> Value {
    endpoint[field] = value;
    endpoint
}

fn leaving(endpoint: Value) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    with(endpoint, "conditions", conditions)
}

/// All that a mode writes in IPv4 and, if so, in IPv6.
fn text(mode: ProxyMode, cluster: &Cluster) -> String {
    rules(mode, cluster, &node())
        .into_iter()
        .map(|script| script.wanted)
        .collect()
}

/// Lines of a text that hold all of several words.
fn lines<'a>(text: &'a str, words: &[&str]) -> Vec<&'a str> {
    let has = |line: &&str| words.iter().all(|word| line.contains(word));
    text.lines().map(str::trim).filter(has).collect()
}

/// The addresses that packets to the ClusterIP can get to in both modes.
#[track_caller]
fn assert_reached(cluster: &Cluster, addresses: &[&str]) {
    let nft = text(ProxyMode::Nftables, cluster);
    let chain = lines(&nft, &["numgen random"])[0];
    let iptables = text(ProxyMode::Iptables, cluster);
    let ways = lines(&iptables, &["--to-destination"]);
    assert_eq!(ways.len(), addresses.len(), "{ways:?}");
    for (i, address) in addresses.iter().enumerate() {
        assert!(chain.contains(&format!("{i} : {address} . 9376")), "{chain}");
        assert!(
            ways.iter().any(|w| w.ends_with(&format!(" {address}:9376"))),
            "{ways:?}"
        );
    }
}

#[test]
fn modes_are_told_by_their_names() {
    for mode in ProxyMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert!("ipvs".parse::<ProxyMode>().is_err());
    assert_eq!(ProxyMode::NftablesOld.proxy_mode(), "nftables");
    assert_eq!(ProxyMode::IptablesLegacy.proxy_mode(), "iptables");
}

#[test]
fn both_backends_get_the_same_rules() {
    let endpoints = json!([endpoint("10.244.0.1", "here")]);
    let cluster = cluster(json!({}), json!([]), endpoints);
    assert_eq!(
        text(ProxyMode::Iptables, &cluster),
        text(ProxyMode::IptablesLegacy, &cluster)
    );
    let program = |mode| rules(mode, &cluster, &node())[0].program;
    assert_eq!(program(ProxyMode::Iptables), "iptables-nft-restore");
    assert_eq!(program(ProxyMode::IptablesLegacy), "iptables-legacy-restore");
}

#[test]
fn ipv6_is_cleared_where_nobody_has_it() {
    let mut cluster = cluster(json!({}), json!([]), json!([]));
    let nothing = "add table ip6 kube-proxy\ndelete table ip6 kube-proxy\n";
    assert!(text(ProxyMode::Nftables, &cluster).ends_with(nothing));
    let mode = ProxyMode::Iptables;
    assert_eq!(rules(mode, &cluster, &node())[1], cleanup(mode)[1]);
    let spec = cluster.services[0].spec.as_mut().unwrap();
    spec.cluster_ips = Some(vec!["10.96.1.1".into(), "fd00:96::1".into()]);
    assert!(text(ProxyMode::Nftables, &cluster).contains("fd00:96::1 . tcp . 80"));
    assert!(
        rules(mode, &cluster, &node())[1]
            .wanted
            .contains("-d fd00:96::1/128")
    );
}

#[test]
fn services_of_others_get_no_rules() {
    let endpoints = json!([endpoint("10.244.0.1", "here")]);
    let cluster = cluster(json!({}), json!([]), endpoints);
    for label in ["service-proxy-name", "headless"] {
        let mut marked = cluster.clone();
        let labels = [(format!("service.kubernetes.io/{label}"), String::new())];
        marked.services[0].metadata.labels = Some(labels.into());
        for mode in ProxyMode::ALL {
            assert!(!text(mode, &marked).contains("shop/web"));
        }
    }
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"type": "ExternalName"}),
    ] {
        let headless = self::cluster(spec, json!([]), json!([endpoint("10.244.0.1", "here")]));
        assert!(!text(ProxyMode::Iptables, &headless).contains("shop/web"));
    }
}

#[test]
fn endpoints_that_leave_serve_only_while_there_is_no_other() {
    let gone = leaving(endpoint("10.244.0.2", "here"));
    let both = json!([endpoint("10.244.0.1", "here"), gone]);
    assert_reached(&cluster(json!({}), json!([]), both), &["10.244.0.1"]);
    let dead = json!({"ready": false, "serving": false, "terminating": true});
    let alone = json!([gone, with(endpoint("10.244.0.3", "here"), "conditions", dead)]);
    assert_reached(&cluster(json!({}), json!([]), alone), &["10.244.0.2"]);
}

#[test]
fn hints_count_only_where_every_ready_endpoint_has_one_and_one_is_for_here() {
    let for_zone = |address: &str, zone: &str| {
        let hints = json!({"forZones": [{"name": zone}]});
        with(endpoint(address, "there"), "hints", hints)
    };
    let for_node = |address: &str, node: &str| {
        let hints = json!({"forZones": [{"name": "zone-1"}], "forNodes": [{"name": node}]});
        with(endpoint(address, node), "hints", hints)
    };
    let reached = |endpoints: Value, addresses: &[&str]| {
        assert_reached(&cluster(json!({}), json!([]), endpoints), addresses);
    };
    let (near, far) = (for_zone("10.244.0.1", "zone-1"), for_zone("10.244.0.2", "zone-2"));
    reached(json!([near, far]), &["10.244.0.1"]);
    reached(
        json!([near, far, endpoint("10.244.0.3", "there")]),
        &["10.244.0.1", "10.244.0.2", "10.244.0.3"],
    );
    reached(json!([far]), &["10.244.0.2"]);
    reached(
        json!([near, leaving(endpoint("10.244.0.3", "there"))]),
        &["10.244.0.1"],
    );
    reached(
        json!([for_node("10.244.0.4", "here"), for_node("10.244.0.5", "there")]),
        &["10.244.0.4"],
    );
    reached(
        json!([for_node("10.244.0.5", "there"), near]),
        &["10.244.0.1", "10.244.0.5"],
    );
}

#[test]
fn a_local_policy_drops_without_endpoint_here_and_rejects_without_any() {
    let spec = || {
        json!({"type": "NodePort", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
               "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]})
    };
    let elsewhere = cluster(spec(), json!([]), json!([endpoint("10.244.1.1", "there")]));
    let nft = text(ProxyMode::Nftables, &elsewhere);
    let key = "10.96.1.1 . tcp . 80 comment \"shop/web\" : ";
    assert_eq!(lines(&nft, &[key, ": drop"]).len(), 1, "{nft}");
    assert_eq!(lines(&nft, &["tcp . 30080 comment", ": drop"]).len(), 1);
    assert_eq!(lines(&nft, &["tcp . 30080 : goto external-"]).len(), 1);
    assert!(lines(&nft, &["goto local-"]).is_empty());
    assert_eq!(lines(&nft, &["ip saddr 10.244.0.0/16 goto service-"]).len(), 1);
    let iptables = text(ProxyMode::Iptables, &elsewhere);
    assert_eq!(lines(&iptables, &["has no local endpoints", "-j DROP"]).len(), 2);
    assert!(!iptables.contains("KUBE-SVL-"));

    let nowhere = cluster(spec(), json!([]), json!([]));
    let nft = text(ProxyMode::Nftables, &nowhere);
    assert_eq!(lines(&nft, &[key, "goto reject-chain"]).len(), 1);
    assert!(!nft.contains("goto external-"));
    let iptables = text(ProxyMode::Iptables, &nowhere);
    assert_eq!(lines(&iptables, &["has no endpoints", "-j REJECT"]).len(), 2);
    assert!(!iptables.contains("KUBE-EXT-"));
}

#[test]
fn load_balancers_that_hand_packets_to_the_node_get_no_rules() {
    let ingress = json!([{"ip": "203.0.113.1", "ipMode": "Proxy"}, {"ip": "203.0.113.2", "ipMode": "VIP"},
                         {"ip": "203.0.113.3"}, {"hostname": "lb.example"}]);
    let endpoints = json!([endpoint("10.244.0.1", "here")]);
    let cluster = cluster(json!({"type": "LoadBalancer"}), ingress, endpoints);
    for mode in [ProxyMode::Nftables, ProxyMode::Iptables] {
        let text = text(mode, &cluster);
        assert!(!text.contains("203.0.113.1"), "{text}");
        assert!(
            text.contains("203.0.113.2") && text.contains("203.0.113.3"),
            "{text}"
        );
    }
}

#[test]
fn a_node_that_may_talk_to_a_load_balancer_may_do_so_from_the_balancers_address() {
    let sources = |ranges: Value| {
        let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
        let cluster = cluster(
            spec,
            json!([{"ip": "203.0.113.1"}]),
            json!([endpoint("10.244.0.1", "here")]),
        );
        let iptables = text(ProxyMode::Iptables, &cluster);
        let nft = text(ProxyMode::Nftables, &cluster);
        let admitted = lines(&iptables, &["-A KUBE-FW-", " -s "]).len();
        (admitted, lines(&nft, &["saddr != {"])[0].to_owned())
    };
    let (admitted, rule) = sources(json!(["192.0.2.0/24"]));
    assert_eq!(
        (admitted, rule.as_str()),
        (2, "ip saddr != { 192.0.2.0/24, 203.0.113.1/32 } drop")
    );
    let (admitted, rule) = sources(json!(["198.51.100.0/24", "2001:db8::/32"]));
    assert_eq!(
        (admitted, rule.as_str()),
        (1, "ip saddr != { 198.51.100.0/24 } drop")
    );
}

#[test]
fn clients_stay_for_as_long_as_the_service_says() {
    let endpoints = || json!([endpoint("10.244.0.1", "here")]);
    let seconds = json!({"clientIP": {"timeoutSeconds": 60}});
    let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": seconds});
    let short = cluster(spec, json!([]), endpoints());
    assert!(text(ProxyMode::Nftables, &short).contains("timeout 60s"));
    assert!(text(ProxyMode::Iptables, &short).contains("--rcheck --seconds 60 --reap"));
    let usual = cluster(json!({"sessionAffinity": "ClientIP"}), json!([]), endpoints());
    assert!(text(ProxyMode::Nftables, &usual).contains("timeout 10800s"));
}

#[test]
fn older_versions_have_a_chain_for_every_endpoint() {
    let endpoints = json!([endpoint("10.244.0.1", "here"), endpoint("10.244.1.1", "there")]);
    let cluster = cluster(json!({}), json!([]), endpoints);
    let old = text(ProxyMode::NftablesOld, &cluster);
    assert_eq!(lines(&old, &["chain endpoint-"]).len(), 2);
    assert_eq!(
        lines(&old, &["ip saddr 10.244.1.1 jump mark-for-masquerade"]).len(),
        1
    );
    let rule = "ip daddr 10.96.1.1 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade";
    assert_eq!(lines(&old, &[rule]).len(), 1);
    assert!(!old.contains("hairpin-connections"));
    let new = text(ProxyMode::Nftables, &cluster);
    assert!(!new.contains("chain endpoint-"));
    // Only what is on the node can talk to itself there.
    assert_eq!(lines(&new, &["10.244.0.1 . 10.244.0.1 . tcp . 9376"]).len(), 1);
    assert!(!new.contains("10.244.1.1 . 10.244.1.1"));
}

#[test]
fn an_address_that_two_services_claim_stands_in_the_map_once() {
    let endpoints = json!([endpoint("10.244.0.1", "here")]);
    let mut cluster = cluster(json!({"externalIPs": ["203.0.113.1"]}), json!([]), endpoints);
    let mut second = cluster.services[0].clone();
    second.metadata.name = Some("zzz".into());
    cluster.services.push(second);
    let nft = text(ProxyMode::Nftables, &cluster);
    assert_eq!(lines(&nft, &["203.0.113.1 . tcp . 80 : goto external-"]).len(), 1);
}

#[test]
fn without_a_network_of_pods_nothing_is_masqueraded_for_being_from_elsewhere() {
    let endpoints = json!([endpoint("10.244.0.1", "here")]);
    let cluster = cluster(json!({}), json!([]), endpoints);
    let blind = NodeView {
        pod_cidrs: Vec::new(),
        ..node()
    };
    for mode in ProxyMode::ALL {
        let text = &rules(mode, &cluster, &blind)[0].wanted;
        assert!(lines(text, &["! -s"]).is_empty() && lines(text, &["saddr !="]).is_empty());
    }
}
