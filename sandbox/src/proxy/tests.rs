//! What no captured node shows.

use serde_json::{Value, json};

use super::*;

/// A Service `ns/web` with one port, and what the test says of its spec besides.
fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    let own = service["spec"].as_object_mut().unwrap();
    own.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(service).unwrap()
}

/// Endpoints on port 8080: address, node, conditions (`ready`, `leaving` or `gone`) and hints.
fn slice(endpoints: &[(&str, &str, &str, Value)]) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, state, hints)| {
            json!({
                "addresses": [address],
                "nodeName": node,
                "hints": hints,
                "conditions": {
                    "ready": *state == "ready",
                    "serving": *state != "gone",
                    "terminating": *state != "ready",
                },
            })
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"port": 8080, "protocol": "TCP"}, {"port": 8080, "protocol": "SCTP"}],
    }))
    .unwrap()
}

fn node() -> NodeView {
    NodeView {
        name: "here".into(),
        zone: Some("a".into()),
        ips: vec!["192.0.2.1".parse().unwrap()],
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
    }
}

/// Everything that a mode's programs are given to read.
fn text(mode: ProxyMode, service: Service, endpoints: &[(&str, &str, &str, Value)]) -> String {
    let cluster = Cluster {
        services: vec![service],
        slices: vec![slice(endpoints)],
        service_cidrs: Vec::new(),
    };
    let scripts = rules(mode, &cluster, &node());
    scripts.iter().map(|script| script.stdin.as_str()).collect()
}

/// The endpoints that a mode's rules lead to.
fn endpoints(mode: ProxyMode, service: Service, endpoints: &[(&str, &str, &str, Value)]) -> Vec<String> {
    let text = text(mode, service, endpoints);
    let known = endpoints.iter().map(|(address, ..)| (*address).to_owned());
    known.filter(|address| text.contains(address)).collect()
}

#[test]
fn modes_have_names() {
    for mode in ProxyMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert!(mode.to_string().starts_with(mode.reported()));
    }
    assert!("ipvs".parse::<ProxyMode>().is_err());
}

#[test]
fn endpoints_that_are_leaving_take_over_when_none_is_ready() {
    let some = [
        ("10.244.0.1", "here", "ready", json!(null)),
        ("10.244.0.2", "here", "leaving", json!(null)),
    ];
    let none = [
        ("10.244.0.1", "here", "gone", json!(null)),
        ("10.244.0.2", "here", "leaving", json!(null)),
    ];
    let local = json!({"internalTrafficPolicy": "Local"});
    for mode in ProxyMode::ALL {
        for spec in [json!({}), local.clone()] {
            assert_eq!(
                endpoints(mode, service(spec.clone()), &some),
                ["10.244.0.1"],
                "{mode}"
            );
            assert_eq!(endpoints(mode, service(spec), &none), ["10.244.0.2"], "{mode}");
        }
    }
}

#[test]
fn hints_count_only_if_all_ready_endpoints_have_one() {
    let zone = |zone: &str| json!({"forZones": [{"name": zone}]});
    let both = |zone: &str, node: &str| json!({"forZones": [{"name": zone}], "forNodes": [{"name": node}]});
    let chosen = |hints: [Value; 3]| {
        let [first, second, third] = hints;
        let all = [
            ("10.244.0.1", "here", "ready", first),
            ("10.244.0.2", "there", "ready", second),
            ("10.244.0.3", "there", "ready", third),
        ];
        endpoints(ProxyMode::Nftables, service(json!({})), &all)
    };
    assert_eq!(
        chosen([zone("a"), zone("a"), zone("b")]),
        ["10.244.0.1", "10.244.0.2"]
    );
    assert_eq!(chosen([zone("a"), zone("a"), json!(null)]).len(), 3);
    assert_eq!(chosen([zone("b"), zone("b"), zone("c")]).len(), 3);
    assert_eq!(
        chosen([both("a", "here"), both("a", "there"), both("b", "there")]),
        ["10.244.0.1"]
    );
    assert_eq!(
        chosen([both("a", "elsewhere"), both("a", "there"), both("b", "there")]),
        ["10.244.0.1", "10.244.0.2"],
        "no endpoint for this node, so that the zone counts"
    );
}

#[test]
fn load_balancer_addresses_of_mode_proxy_are_left_to_the_load_balancer() {
    let mut balanced = service(json!({"type": "LoadBalancer"}));
    balanced.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.1", "ipMode": "VIP"},
        {"ip": "198.51.100.2", "ipMode": "Proxy"},
        {"hostname": "balancer.example"},
    ]}}))
    .unwrap();
    for mode in ProxyMode::ALL {
        let text = text(
            mode,
            balanced.clone(),
            &[("10.244.0.1", "here", "ready", json!(null))],
        );
        assert!(text.contains("198.51.100.1"), "{mode}");
        assert!(!text.contains("198.51.100.2"), "{mode}");
    }
}

#[test]
fn headless_services_and_those_of_other_proxies_have_no_rules() {
    let labelled = |label: &str| {
        let mut service = service(json!({}));
        service.metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
        service
    };
    let one = [("10.244.0.1", "here", "ready", json!(null))];
    for mode in ProxyMode::ALL {
        for service in [
            service(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            service(json!({"type": "ExternalName", "clusterIP": null, "clusterIPs": null})),
            labelled("service.kubernetes.io/service-proxy-name"),
            labelled("service.kubernetes.io/headless"),
        ] {
            assert!(endpoints(mode, service, &one).is_empty(), "{mode}");
        }
    }
}

#[test]
fn sctp_is_a_protocol_like_any_other() {
    let sctp = || service(json!({"ports": [{"port": 80, "protocol": "SCTP"}]}));
    let one = [("10.244.0.1", "here", "ready", json!(null))];
    let nft = text(ProxyMode::Nftables, sctp(), &one);
    assert!(nft.contains("10.96.0.7 . sctp . 80 : goto service-"), "{nft}");
    assert!(nft.contains("meta l4proto sctp dnat ip to numgen random mod 1 map { 0 : 10.244.0.1 . 8080 }"));
    let iptables = text(ProxyMode::Iptables, sctp(), &one);
    assert!(iptables.contains("-p sctp -m sctp -j DNAT --to-destination 10.244.0.1:8080"));
}

#[test]
fn the_old_layout_has_a_chain_for_every_endpoint() {
    let two = [
        ("10.244.0.1", "here", "ready", json!(null)),
        ("10.244.0.10", "there", "ready", json!(null)),
    ];
    let text = text(ProxyMode::NftablesOld, service(json!({})), &two);
    let port = ServicePortName {
        namespace: "ns".into(),
        service: "web".into(),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let names = names::Nftables::of(&port);
    let [first, second] = ["10.244.0.10:8080", "10.244.0.1:8080"].map(|e| e.parse().unwrap());
    let chain = |name: &str, rules: &[&str]| format!("chain {name} {{\n\t\t{}\n\t}}", rules.join("\n\t\t"));
    for wanted in [
        chain(
            &names.cluster(),
            &[
                "ip daddr 10.96.0.7 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade",
                // In the order of their text, as kube-proxy has them.
                &format!(
                    "numgen random mod 2 vmap {{ 0 : goto {}, 1 : goto {} }}",
                    names.endpoint(first),
                    names.endpoint(second)
                ),
            ],
        ),
        chain(
            &names.endpoint(first),
            &[
                "ip saddr 10.244.0.10 jump mark-for-masquerade",
                "meta l4proto tcp dnat to 10.244.0.10:8080",
            ],
        ),
    ] {
        assert!(text.contains(&wanted), "{wanted}\nnot in\n{text}");
    }
    assert!(!text.contains("hairpin-connections"));
}

#[test]
fn of_two_services_with_one_external_address_the_first_has_it() {
    let external = json!({"externalIPs": ["198.51.100.9"]});
    let mut other = service(external.clone());
    other.metadata.name = Some("aaa".into());
    other.spec.as_mut().unwrap().cluster_ips = Some(vec!["10.96.0.8".into()]);
    let cluster = Cluster {
        services: vec![service(external), other],
        ..Cluster::default()
    };
    // nftables takes no key twice: nothing at all would be written.
    let text = rules(ProxyMode::Nftables, &cluster, &node()).remove(0).stdin;
    assert_eq!(text.matches("198.51.100.9 . tcp . 80").count(), 1);
    assert!(text.contains("198.51.100.9 . tcp . 80 comment \"ns/aaa\" : goto reject-chain"));
}

#[test]
fn clients_stay_for_three_hours_unless_the_service_says_otherwise() {
    let one = [("10.244.0.1", "here", "ready", json!(null))];
    let sticky = || service(json!({"sessionAffinity": "ClientIP"}));
    assert!(text(ProxyMode::Nftables, sticky(), &one).contains("timeout 10800s"));
    assert!(text(ProxyMode::Iptables, sticky(), &one).contains("--rcheck --seconds 10800 --reap"));
}

#[test]
fn node_ports_come_last_in_the_chain_of_services() {
    let one = [("10.244.0.1", "here", "ready", json!(null))];
    let text = text(ProxyMode::Iptables, service(json!({})), &one);
    let services = text.lines().rfind(|line| line.starts_with("-A KUBE-SERVICES"));
    assert!(services.unwrap().ends_with("-j KUBE-NODEPORTS"));
}
