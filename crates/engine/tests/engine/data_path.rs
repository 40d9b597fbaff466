//! Every N row of the fault catalogue that Facts can hold: its root cause, and a snapshot of all that it says.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{
    Answer, CLibrary, ConditionType as C, DialPath, GapKind, LookupResult, PortState, Reason as R, RuleGap,
    StaleConnection,
};
use svcdiag_engine::{ClientNamespace, Diagnosis, Facts, diagnose};

use crate::{
    agents::*,
    report::{assert_root_cause, report, stage},
    walkthrough::*,
};

const E1: &str = "10.244.1.5:9376";
const E2: &str = "10.244.2.6:9376";

#[track_caller]
fn fault(id: &str, condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = with_agents();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    insta::assert_snapshot!(id, report(&diagnosis));
    diagnosis
}

fn impact(diagnosis: &Diagnosis) -> &'static str {
    diagnosis.root_cause.as_ref().unwrap().impact.as_str()
}

#[test]
fn all_is_well() {
    let diagnosis = diagnose(&with_agents());
    assert_eq!(diagnosis.ready.reason, R::ServiceWorks, "{}", report(&diagnosis));
    assert_eq!(diagnosis.proxy_mode.as_deref(), Some("nftables"));
    assert_eq!(diagnosis.summary.proxy, "nftables 3/3");
    insta::assert_snapshot!("healthy", report(&diagnosis));
}

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
fn n06_no_kube_proxy_on_a_node() {
    let d = fault("N06", C::KubeProxyHealthy, R::NotRunning, |f| on(f, "n2", gone));
    assert_eq!(impact(&d), "Some");
}

fn gone(facts: &mut svcdiag_api::NodeFacts) {
    let proxy = facts.kube_proxy.as_mut().unwrap();
    proxy.process = None;
    proxy.livez = PortState::Closed;
    proxy.metrics = PortState::Closed;
}

#[test]
fn n07_kube_proxy_hangs() {
    fault("N07", C::KubeProxyHealthy, R::NotLive, |f| {
        on(f, "n1", |n| {
            n.kube_proxy.as_mut().unwrap().livez = PortState::Silent
        });
    });
}

#[test]
fn n08_kube_proxy_applies_nothing_new() {
    fault("N08", C::KubeProxyHealthy, R::NotSyncing, |f| {
        on(f, "n1", |n| n.kube_proxy.as_mut().unwrap().not_syncing = true);
    });
    fault("N08-livez", C::KubeProxyHealthy, R::NotSyncing, |f| {
        everywhere(f, |n| n.kube_proxy.as_mut().unwrap().livez = PortState::Failing);
    });
}

fn gap(kind: GapKind, destination: &str, endpoint: Option<&str>) -> RuleGap {
    RuleGap {
        kind,
        destination: destination.into(),
        endpoint: endpoint.map(str::to_owned),
        detail: "nothing".into(),
    }
}

#[test]
fn n09_the_rules_are_missing() {
    let d = fault("N09", C::ProxyRulesPresent, R::RulesMissing, |f| {
        on(f, "n1", |n| {
            n.rules
                .as_mut()
                .unwrap()
                .gaps
                .push(gap(GapKind::Missing, "10.96.1.175:80/TCP", None))
        });
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    // The only client is on that node: for it nothing works.
    assert_eq!(impact(&d), "All");
    assert_eq!(d.summary.proxy, "nftables 2/3");
}

#[test]
fn n10_the_rules_leave_out_an_endpoint() {
    let d = fault("N10", C::ProxyRulesPresent, R::EndpointMissingFromRules, |f| {
        everywhere(f, |n| {
            n.rules.as_mut().unwrap().gaps.push(gap(
                GapKind::EndpointMissing,
                "10.96.1.175:80/TCP",
                Some(E2),
            ));
        });
    });
    assert_eq!(impact(&d), "Some");
}

#[test]
fn n11_the_rules_keep_a_pod_that_is_gone() {
    fault("N11", C::ProxyRulesPresent, R::StaleEndpointInRules, |f| {
        on(f, "n3", |n| {
            n.rules.as_mut().unwrap().gaps.push(gap(
                GapKind::EndpointStale,
                "10.96.1.175:80/TCP",
                Some("10.244.9.9:9376"),
            ));
        });
    });
}

#[test]
fn n12_the_rules_of_the_node_port_are_missing() {
    fault("N12", C::ProxyRulesPresent, R::NodePortRulesMissing, |f| {
        node_port(f);
        on(f, "n1", |n| {
            n.rules
                .as_mut()
                .unwrap()
                .gaps
                .push(gap(GapKind::NodePortMissing, "node port 30080/TCP", None))
        });
    });
}

pub fn node_port(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "type": "NodePort", "ports": [
            { "name": "default", "protocol": "TCP", "port": 80, "targetPort": 9376, "nodePort": 30080 },
        ] } }),
    );
}

#[test]
fn n13_both_backends_of_iptables_hold_rules() {
    fault("N13", C::ProxyRulesPresent, R::ConflictingBackends, |f| {
        everywhere(f, |n| {
            let rules = n.rules.as_mut().unwrap();
            rules.layout = "iptables".into();
            rules.conflict = Some("iptables-legacy".into());
            n.kube_proxy.as_mut().unwrap().mode = Some("iptables".into());
        });
    });
}

#[test]
fn n14_leftovers_of_another_mode_hold_the_address() {
    fault("N14", C::ProxyRulesPresent, R::ConflictingModes, |f| {
        on(f, "n2", |n| {
            n.rules.as_mut().unwrap().conflict = Some("iptables".into())
        });
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
fn n16_the_forward_chain_drops() {
    fault("N16", C::EndpointsReachable, R::ForwardChainDrops, |f| {
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

fn stale(endpoint: &str) -> StaleConnection {
    StaleConnection {
        destination: VIP.into(),
        endpoint: endpoint.into(),
        source: "10.244.1.9:41000".into(),
    }
}

#[test]
fn n18_a_tracked_connection_leads_to_a_pod_that_is_gone() {
    fault("N18", C::ProxyForwards, R::StaleConntrackEntry, |f| {
        udp(f);
        look(f);
        on(f, "n1", |n| n.stale_connections.push(stale("10.244.9.9:9376")));
    });
}

#[test]
fn n19_reverse_path_filtering() {
    fault("N19", C::EndpointsReachable, R::ReversePathFiltering, |f| {
        on(f, "n2", |n| n.settings.reverse_path_drops = Some(true));
        fail_from_clients(f, &[1], Answer::TimedOut);
    });
}

#[test]
fn n20_rules_do_not_see_bridged_packets() {
    let inject = |f: &mut Facts, setting| {
        on(f, "n1", |n| n.settings.bridge_netfilter = setting);
        fail(
            f,
            Fail {
                node: "n1",
                from: Some(CLIENT),
                path: DialPath::Service,
                endpoint: Some(E1),
                answer: Answer::TimedOut,
            },
        );
        on(f, "n1", |n| n.failures.last_mut().unwrap().same_bridge = true);
    };
    fault("N20", C::ServiceReachable, R::BridgeNetfilterDisabled, |f| {
        inject(f, Some(false))
    });
    fault(
        "N20-no-module",
        C::ServiceReachable,
        R::BridgeNetfilterDisabled,
        |f| inject(f, None),
    );
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

const NAMES: [&str; 4] = [
    "hostnames",
    "hostnames.shop",
    "hostnames.shop.svc.cluster.local",
    "kubernetes.default",
];

/// The client's servers, with what they answer to both questions.
fn servers(facts: &mut Facts, address: &str, control: LookupResult, result: LookupResult) {
    client_dns(facts, |r| r.servers = vec![address.to_owned()]);
    on(facts, "n1", |n| {
        n.dns_servers.retain(|s| s.from.is_none() || s.endpoint);
        let mut asked = server(Some(CLIENT.into()), address, false);
        (asked.control, asked.result) = (control, result);
        n.dns_servers.push(asked);
    });
}

#[test]
fn n23_the_clients_ask_another_server() {
    fault("N23", C::DNSResolves, R::NameserverNotClusterDNS, |f| {
        not_found(f, &NAMES);
        servers(f, "198.51.100.53", LookupResult::NotFound, LookupResult::NotFound);
    });
    fault("N23-silent", C::DNSResolves, R::NameserverNotClusterDNS, |f| {
        servers(f, "198.51.100.53", LookupResult::TimedOut, LookupResult::TimedOut);
        silent(f);
    });
}

fn silent(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in &mut r.lookups {
            lookup.result = LookupResult::TimedOut;
            lookup.addresses.clear();
        }
    });
}

#[test]
fn n24_the_search_list_lacks_the_suffix() {
    fault("N24", C::DNSResolves, R::SearchPathMissing, |f| {
        not_found(f, &NAMES[..1]);
        client_dns(f, |r| {
            r.search.remove(0);
        });
    });
}

#[test]
fn n25_ndots_is_too_low_for_musl() {
    fault("N25", C::DNSResolves, R::NdotsTooLow, |f| {
        not_found(f, &[NAMES[0], NAMES[1], NAMES[3]]);
        client_dns(f, |r| {
            r.ndots = 0;
            r.c_library = CLibrary::Musl;
        });
    });
}

#[test]
fn n25_what_lies_beyond_cluster_dns_fails_for_the_short_names() {
    fault("N25-beyond", C::DNSResolves, R::NdotsTooLow, |f| {
        fails_beyond(f);
        client_dns(f, |r| {
            r.ndots = 0;
            r.c_library = CLibrary::Musl;
        });
    });
    fault("N24-beyond", C::DNSResolves, R::SearchPathMissing, |f| {
        fails_beyond(f);
        client_dns(f, |r| {
            r.search.remove(0);
        });
    });
}

/// The servers that cluster DNS forwards to cannot tell of names that are none of the cluster's.
pub fn fails_beyond(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().filter(|l| l.name == NAMES[0]) {
            lookup.result = LookupResult::Failed;
            lookup.code = Some("SERVFAIL".into());
            lookup.addresses.clear();
            lookup.found_as = None;
        }
    });
}

#[test]
fn n26_dns_answers_an_old_address() {
    fault("N26", C::DNSResolves, R::WrongAddress, old_address);
    fault("N26-headless", C::DNSResolves, R::WrongAddress, |f| {
        service(
            f,
            json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }),
        );
        look(f);
        old_address(f);
    });
}

pub fn old_address(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().take(3) {
            lookup.addresses = vec!["10.96.7.7".into()];
        }
    });
}

#[test]
fn n27_the_record_is_missing() {
    fault("N27", C::DNSResolves, R::NameNotFound, no_record);
}

pub fn no_record(facts: &mut Facts) {
    not_found(facts, &NAMES[..3]);
    everywhere(facts, |n| {
        n.dns_servers
            .iter_mut()
            .for_each(|s| s.result = LookupResult::NotFound)
    });
}

#[test]
fn n28_dns_is_silent() {
    fault("N28", C::DNSResolves, R::ClusterDNSUnreachable, dns_is_silent);
}

pub fn dns_is_silent(facts: &mut Facts) {
    silent(facts);
    everywhere(facts, |n| {
        for s in &mut n.dns_servers {
            (s.control, s.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
        }
    });
}

/// What every look-up of the client and every server answers.
fn answer_everywhere(facts: &mut Facts, result: LookupResult, code: Option<&str>) {
    let code = code.map(str::to_owned);
    client_dns(facts, |r| {
        for lookup in &mut r.lookups {
            (lookup.result, lookup.code) = (result, code.clone());
            lookup.addresses.clear();
        }
    });
    everywhere(facts, |n| {
        for s in &mut n.dns_servers {
            (s.control, s.result, s.code) = (result, result, code.clone());
        }
    });
}

#[test]
fn n28_a_cache_of_the_node_is_silent() {
    let cache = |facts: &mut Facts| {
        silent(facts);
        servers(
            facts,
            "169.254.20.10",
            LookupResult::TimedOut,
            LookupResult::TimedOut,
        );
    };
    let d = fault("N28-cache", C::DNSResolves, R::ClusterDNSUnreachable, |f| {
        cache(f);
        let mut pod = pod(
            "node-local-dns-x",
            "n1",
            "192.168.0.1",
            json!({ "k8s-app": "node-local-dns" }),
        );
        patch(
            Arc::make_mut(&mut pod),
            json!({ "metadata": { "namespace": "kube-system" } }),
        );
        f.cluster_dns.as_mut().unwrap().caches = vec![pod];
    });
    let root = d.root_cause.unwrap();
    assert!(
        root.message
            .contains("The DNS cache of node n1 (169.254.20.10, Pod kube-system/node-local-dns-x)")
    );
    assert!(
        root.message
            .contains("A Pod of cluster DNS does answer when queried directly (10.244.1.2)")
    );
    assert!(!root.remediation.contains("kube-dns"), "{}", root.remediation);
    // Without its Pod at hand.
    let d = fault(
        "N28-cache-unseen",
        C::DNSResolves,
        R::ClusterDNSUnreachable,
        cache,
    );
    assert!(
        d.root_cause
            .unwrap()
            .remediation
            .contains("-l k8s-app=node-local-dns --field-selector spec.nodeName=n1")
    );
}

#[test]
fn n70_cluster_dns_answers_that_it_cannot() {
    for code in ["SERVFAIL", "REFUSED"] {
        let d = fault(
            &format!("N70-{code}"),
            C::DNSResolves,
            R::ClusterDNSFailing,
            |f| {
                answer_everywhere(f, LookupResult::Failed, Some(code));
            },
        );
        assert!(
            d.root_cause
                .unwrap()
                .message
                .contains(&format!("answers {code} to Pod"))
        );
    }
}

#[test]
fn n71_cluster_dns_serves_another_domain() {
    let d = fault("N71", C::DNSResolves, R::ClusterDomainMismatch, |f| {
        answer_everywhere(f, LookupResult::NotFound, None);
        everywhere(f, |n| {
            n.dns_servers
                .iter_mut()
                .for_each(|s| s.domain = Some("corp.local".into()))
        });
    });
    assert!(
        d.root_cause
            .unwrap()
            .message
            .contains("It serves them in corp.local")
    );
    // Where it has no names of addresses, a node that asks in the usual domain tells.
    let d = fault("N71-node", C::DNSResolves, R::ClusterDomainMismatch, |f| {
        answer_everywhere(f, LookupResult::NotFound, None);
        everywhere(f, |n| {
            let by_node = n.dns_servers.iter_mut().filter(|s| s.from.is_none());
            by_node.for_each(|s| {
                s.control = LookupResult::Found;
                s.domain = Some("corp.local".into());
            });
        });
    });
    assert!(
        d.root_cause
            .unwrap()
            .message
            .contains("It serves them in corp.local")
    );
}

/// Makes the Service stand for a name; the client looks that up as well.
pub fn external(facts: &mut Facts, result: LookupResult) {
    service(
        facts,
        json!({ "spec": { "type": "ExternalName", "clusterIP": null, "clusterIPs": null, "externalName": "db.example", "selector": null } }),
    );
    facts.slices.clear();
    look(facts);
    client_dns(facts, |r| {
        let mut target = missing("db.example");
        target.result = result;
        r.lookups.insert(3, target);
    });
}

#[test]
fn n72_what_an_external_name_stands_for_does_not_exist() {
    let d = fault("N72", C::DNSResolves, R::ExternalNameNotFound, |f| {
        external(f, LookupResult::NotFound);
        no_record(f);
    });
    assert!(d.root_cause.unwrap().message.contains("db.example"));
}

/// A wildcard domain in the search list answers for the full name.
pub fn wildcard(facts: &mut Facts) {
    client_dns(facts, |r| {
        r.search.push("wild.example".into());
        r.lookups[2].addresses = vec!["203.0.113.9".into()];
        r.lookups[2].found_as = Some(format!("{}.wild.example", NAMES[2]));
    });
}

#[test]
fn n73_a_search_domain_answers_for_a_name() {
    let d = fault("N73", C::DNSResolves, R::WrongAddress, wildcard);
    assert_eq!(impact(&d), "Some");
    let root = d.root_cause.unwrap();
    assert!(
        root.message
            .contains("203.0.113.9 for hostnames.shop.svc.cluster.local")
    );
    assert!(
        root.remediation
            .contains("Remove wild.example from the search list")
    );
}

#[test]
fn n74_a_service_called_like_the_namespace_hides_a_name() {
    let d = fault("N74-elsewhere", C::DNSResolves, R::WrongAddress, |f| {
        client_dns(f, |r| {
            r.lookups[1].addresses = vec!["203.0.113.9".into()];
            r.lookups[1].found_as = Some("hostnames.shop.shop.svc.cluster.local".into());
        });
    });
    assert_eq!(impact(&d), "Some");
    assert!(
        d.root_cause
            .unwrap()
            .remediation
            .contains("`kubectl -n shop get service shop`")
    );
    let d = fault("N74-nowhere", C::DNSResolves, R::NameNotFound, |f| {
        not_found(f, &NAMES[1..2])
    });
    assert_eq!(impact(&d), "Some");
    assert!(
        d.root_cause
            .unwrap()
            .message
            .contains("hostnames.shop.shop.svc.cluster.local")
    );
}

#[test]
fn n29_a_server_that_clients_wait_for_fails() {
    let d = fault("N29-first", C::DNSResolves, R::SomeDNSServersFailing, |f| {
        spare(f, &["10.96.0.9", "10.96.0.10"])
    });
    assert_eq!(impact(&d), "Some");
    fault("N29-rotate", C::DNSResolves, R::SomeDNSServersFailing, |f| {
        spare(f, &["10.96.0.10", "10.96.0.9"]);
        client_dns(f, |r| r.rotate = true);
    });
}

/// The client has two servers, of which 10.96.0.9 is silent.
pub fn spare(facts: &mut Facts, servers: &[&str; 2]) {
    client_dns(facts, |r| r.servers = servers.map(str::to_owned).to_vec());
    on(facts, "n1", |n| {
        let mut silent = server(Some(CLIENT.into()), "10.96.0.9", false);
        (silent.control, silent.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
        n.dns_servers.push(silent);
    });
}

#[test]
fn n29_one_of_two_dns_pods_is_silent() {
    let d = fault("N29", C::DNSResolves, R::SomeDNSServersFailing, |f| {
        let dns = f.cluster_dns.as_mut().unwrap();
        patch(
            Arc::make_mut(&mut dns.pods[1]),
            json!({ "status": { "podIP": "10.244.2.2", "podIPs": [{ "ip": "10.244.2.2" }] } }),
        );
        on(f, "n1", |n| {
            let mut second = server(Some(CLIENT.into()), "10.244.2.2", true);
            (second.control, second.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
            n.dns_servers.push(second);
        });
    });
    assert_eq!(impact(&d), "Some");
    assert!(d.root_cause.unwrap().message.contains("coredns-2"));
}

#[track_caller]
fn hairpin(id: &str, reason: R, mode: Option<bool>, masqueraded: Option<bool>, answer: Answer) {
    fault(id, C::HairpinOK, reason, |f| {
        on(f, "n2", |n| {
            n.hairpins[0].answer = Some(answer);
            n.hairpins[0].hairpin_mode = mode;
            n.hairpins[0].masqueraded = masqueraded;
        });
    });
}

#[test]
fn n30_n31_n32_n47_a_pod_does_not_reach_itself() {
    hairpin(
        "N30",
        R::HairpinModeDisabled,
        Some(false),
        Some(true),
        Answer::TimedOut,
    );
    hairpin(
        "N31",
        R::MasqueradeMissing,
        Some(true),
        Some(false),
        Answer::TimedOut,
    );
    hairpin(
        "N47-drop",
        R::HairpinTimedOut,
        Some(true),
        Some(true),
        Answer::TimedOut,
    );
    hairpin(
        "N47-reject",
        R::HairpinRefused,
        Some(true),
        Some(true),
        Answer::Rejected,
    );
}

#[test]
fn n34_kube_proxy_is_dead_and_its_rules_are_gone() {
    let d = fault("N34", C::KubeProxyHealthy, R::NotRunning, |f| {
        on(f, "n1", gone);
        on(f, "n1", |n| n.rules = None);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
}

#[test]
fn n35_the_pods_listen_with_the_other_protocol() {
    fault("N35", C::DefinitionValid, R::ProtocolMismatch, |f| {
        udp(f);
        look(f);
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "0.0.0.0", 9376)]);
    });
    // The kernel rations refusals: the client was met with silence where the nodes were refused.
    let d = fault("N35-rationed", C::DefinitionValid, R::ProtocolMismatch, |f| {
        udp(f);
        look(f);
        for (address, node, _) in endpoints(f) {
            fail(
                f,
                Fail {
                    node: &node,
                    from: None,
                    path: DialPath::Endpoint,
                    endpoint: Some(&address),
                    answer: Answer::Refused,
                },
            );
        }
        sockets(f, &[("TCP", "0.0.0.0", 9376)]);
    });
    assert_eq!(impact(&d), "All");
    // A rule that refuses what one client sends says nothing of what the node itself sends.
    let d = fault("N35-rule", C::EndpointsReachable, R::ConnectionRefused, |f| {
        udp(f);
        look(f);
        fail_from_clients(f, &[0], Answer::Rejected);
    });
    assert_eq!(impact(&d), "Some");
    fault("N35-some", C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        udp(f);
        look(f);
        fail_direct(f, &[1], Answer::Refused);
    });
    fault("N35-reverse", C::DefinitionValid, R::ProtocolMismatch, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("UDP", "0.0.0.0", 9376)]);
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
fn n37_a_foreign_rule_drops_what_pods_send_to_the_service() {
    let d = fault("N37", C::ServiceReachable, R::TimedOut, |f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
    assert!(
        d.root_cause
            .unwrap()
            .remediation
            .contains("https://discuss.kubernetes.io")
    );
}

pub fn default_deny(facts: &mut Facts) {
    policy(
        facts,
        "default-deny",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"] }),
    );
}

#[test]
fn n38_a_policy_denies_and_is_enforced() {
    let d = fault("N38", C::NetworkPolicyAllows, R::IngressDenied, |f| {
        default_deny(f);
        look(f);
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_ne!(stage(&d, C::EndpointsReachable).status().as_str(), "False");
    assert_ne!(stage(&d, C::ServiceReachable).status().as_str(), "False");
}

#[test]
fn n40_a_client_elsewhere_uses_the_short_name() {
    fault("N40", C::DNSResolves, R::OnlyQualifiedNameResolves, |f| {
        client_elsewhere(f);
        client_dns(f, |r| r.uses_short_name = true);
    });
}

/// Moves the client to another Namespace, which lends its Pods.
pub fn client_elsewhere(facts: &mut Facts) {
    let mut client = facts.pods.pop().unwrap();
    Arc::make_mut(&mut client).metadata.namespace = Some("web".into());
    facts.client_namespace = Some(ClientNamespace {
        name: "web".into(),
        granted: true,
        pods: vec![client],
    });
    facts.namespaces.push(namespace("web"));
    patch(&mut facts.spec, json!({ "clients": { "namespace": "web" } }));
    look(facts);
}

#[test]
fn only_the_full_name_resolves() {
    fault(
        "only-full-name",
        C::DNSResolves,
        R::OnlyFullyQualifiedNameResolves,
        |f| {
            not_found(f, &[NAMES[0], NAMES[1], NAMES[3]]);
        },
    );
}

#[test]
fn n44_kube_proxy_cannot_reach_the_api_server() {
    fault("N44", C::KubeProxyHealthy, R::APIServerUnreachable, |f| {
        on(f, "n1", |n| n.kube_proxy.as_mut().unwrap().api_unreachable = true);
    });
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
fn n46_one_endpoint_does_not_answer_through_the_service() {
    let d = fault("N46", C::ServiceReachable, R::PartiallyReachable, |f| {
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
