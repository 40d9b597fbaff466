//! What is blamed for lost dials: what got through refutes a setting, and the way between nodes is told by what is
//! known of it.

mod between_nodes;
mod dead_ends;

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{
    Answer, ConditionType as C, DeadEndRule, DialCount, DialFailure, DialPath, LookupResult, Reason as R,
    Tunnel, TunnelKind,
};
use svcdiag_engine::{Diagnosis, Facts, diagnose};
use svcdiag_objects::{IpFamily, Node, Object};

use crate::{
    agents::*,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

const E1: &str = "10.244.1.5:9376";
const E2: &str = "10.244.2.6:9376";

#[track_caller]
fn fault(condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = with_agents();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    diagnosis
}

fn says(diagnosis: &Diagnosis, words: &str) -> bool {
    report(diagnosis).contains(words)
}

/// Whom the client reaches neither past the Service nor through it.
fn lost(facts: &mut Facts, which: &[usize]) {
    fail_from_clients(facts, which, Answer::TimedOut);
    for i in which {
        let (address, _, _) = endpoints(facts)[*i].clone();
        fail(
            facts,
            Fail {
                node: "n1",
                from: Some(CLIENT),
                path: DialPath::Service,
                endpoint: Some(&address),
                answer: Answer::TimedOut,
            },
        );
    }
}

fn drops_by_policy(facts: &mut Facts) {
    everywhere(facts, |n| n.settings.forward_drops = Some(true));
}

/// Nodes n1, n2, ... with these addresses.
pub(crate) fn nodes(facts: &mut Facts, ips: &[&str]) {
    facts.cluster_nodes = ips
        .iter()
        .enumerate()
        .map(|(i, ip)| {
            let addresses: Vec<_> = ip
                .split(',')
                .map(|ip| json!({ "type": "InternalIP", "address": ip }))
                .collect();
            Arc::new(object::<Node>(json!({
                "metadata": { "name": format!("n{}", i + 1) }, "status": { "addresses": addresses },
            })))
        })
        .collect();
}

fn cross_node(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        lost(f, &[1, 2]);
        change(f);
    })
}

#[test]
fn a_dead_pod_is_not_what_docker_did_to_the_forward_chain() {
    let d = fault(C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        drops_by_policy(f);
        fail_direct(f, &[1], Answer::TimedOut);
    });
    assert!(!says(&d, "FORWARD"), "{}", report(&d));
    assert!(!says(&d, "delete pod"), "{}", report(&d));
}

#[test]
fn a_chain_that_lets_others_through_is_not_to_blame() {
    let d = fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        drops_by_policy(f);
        // What is sent to the Pod of the client's own node is forwarded, and answered.
        lost(f, &[1, 2]);
    });
    assert!(!says(&d, "FORWARD chain on node n1"), "{}", report(&d));
    assert!(says(&d, "FORWARD chain on nodes n2 and n3"), "{}", report(&d));
}

#[test]
fn endpoints_in_the_network_of_their_nodes_are_kept_away_by_firewalls() {
    let d = fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        each_pod(f, |p| p.spec.host_network = Some(true));
        look(f);
        everywhere(f, |n| n.tunnels = Some(Vec::new()));
        lost(f, &[1, 2]);
    });
    assert!(says(&d, "let TCP port 9376 in"), "{}", report(&d));
    assert!(!says(&d, "tunnel"), "{}", report(&d));
}

#[test]
fn packets_that_are_dropped_elsewhere_do_not_kill_a_pod() {
    fault(C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        everywhere(f, |n| n.settings.reverse_path_drops = Some(true));
        fail_direct(f, &[1], Answer::TimedOut);
    });
}

#[test]
fn between_nodes_that_reach_each_other_no_packet_is_filtered_by_its_way() {
    // E2 fails to the client, and another Pod of its node does not.
    let d = fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        let second = pod("hostnames-632524106-zzzzz", "n2", "10.244.2.7", app());
        f.pods.push(second);
        resync(f);
        look(f);
        on(f, "n1", |n| n.settings.reverse_path_drops = Some(true));
        fail_from_clients(f, &[1], Answer::TimedOut);
    });
    assert!(!says(&d, "rp_filter"), "{}", report(&d));
}

#[test]
fn a_full_table_that_lets_others_through_is_mentioned() {
    let d = fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        on(f, "n1", |n| n.settings.conntrack_full = Some(true));
        lost(f, &[1]);
    });
    assert!(
        says(&d, "The conntrack table of node n1 is at least 99% full"),
        "{}",
        report(&d)
    );
}

#[test]
fn a_setting_is_never_more_than_probable() {
    let d = fault(C::EndpointsReachable, R::IPForwardingDisabled, |f| {
        on(f, "n2", |n| n.settings.ipv4_forwarding = Some(false));
        fail_from_clients(f, &[1], Answer::TimedOut);
    });
    assert!(says(&d, "probably"), "{}", report(&d));
}

#[test]
fn a_node_that_turns_all_packets_of_its_pods_away() {
    let d = fault(C::EndpointsReachable, R::NoRouteToHost, |f| {
        nodes(f, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        fail_from_clients(f, &[0, 1, 2], Answer::Unreachable);
        on(f, "n1", |n| {
            for failure in &mut n.failures {
                failure.detail = Some("by 192.0.2.1".into());
            }
        });
    });
    assert!(says(&d, "Node n1 rejects the packets"), "{}", report(&d));
    assert!(says(&d, "firewall"), "{}", report(&d));
    assert!(!says(&d, "network plugin"), "{}", report(&d));
}

/// Nobody gets an answer from cluster DNS.
fn dns_is_silent(facts: &mut Facts) {
    everywhere(facts, |n| {
        for resolver in &mut n.resolvers {
            for lookup in &mut resolver.lookups {
                lookup.result = LookupResult::TimedOut;
                lookup.addresses.clear();
            }
        }
        for server in &mut n.dns_servers {
            (server.control, server.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
        }
    });
}

fn dns_on(facts: &mut Facts, node: &str) {
    for pod in &mut facts.cluster_dns.as_mut().unwrap().pods {
        Arc::make_mut(pod).spec.node_name = Some(node.into());
    }
}

#[test]
fn cluster_dns_behind_a_way_that_is_lost_is_not_to_blame() {
    let d = cross_node(|f| {
        dns_on(f, "n3");
        dns_is_silent(f);
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::Blocked);
    assert!(says(&d, "Waiting for EndpointsReachable."), "{}", report(&d));
    // On the client's own node it is.
    let mut facts = with_agents();
    lost(&mut facts, &[1, 2]);
    dns_on(&mut facts, "n1");
    dns_is_silent(&mut facts);
    let d = diagnose(&facts);
    assert_eq!(stage(&d, C::DNSResolves).reason, R::ClusterDNSUnreachable);
}

#[test]
fn cluster_dns_that_answers_past_its_service_is_not_to_blame() {
    let d = fault(C::ServiceReachable, R::TimedOut, |f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        dns_is_silent(f);
        everywhere(f, |n| {
            for server in n.dns_servers.iter_mut().filter(|s| s.endpoint) {
                (server.control, server.result) = (LookupResult::Found, LookupResult::Found);
            }
        });
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::Blocked);
}

fn other_proxy(facts: &mut Facts) {
    service(
        facts,
        json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": "mesh" } } }),
    );
    look(facts);
}

#[test]
fn a_service_of_another_proxy_has_to_work_as_any() {
    let mut facts = with_agents();
    other_proxy(&mut facts);
    let d = assert_nothing_false(&facts);
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
    for condition in [C::KubeProxyHealthy, C::ProxyRulesPresent] {
        assert_eq!(stage(&d, condition).reason, R::HandledByAnotherProxy);
    }
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::Forwards);
    let d = fault(C::ProxyForwards, R::TimedOut, |f| {
        other_proxy(f);
        for node in ["n1", "n2", "n3"] {
            fail_service(f, node, None, Answer::TimedOut);
        }
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::TimedOut);
    assert!(says(&d, "another proxy, mesh"), "{}", report(&d));
}

#[test]
fn a_service_that_nobody_dialled_is_not_said_to_work() {
    let mut facts = with_agents();
    facts.pods.retain(|p| p.name() != "client");
    service(&mut facts, json!({ "spec": { "selector": null } }));
    for endpoint in &mut Arc::make_mut(&mut facts.slices[0]).endpoints {
        endpoint.target_ref = None;
    }
    for pod in &mut facts.pods {
        Arc::make_mut(pod).spec.dns_policy = Some("Default".into());
    }
    look(&mut facts);
    let d = assert_nothing_false(&facts);
    assert_eq!(d.ready.reason, R::NoVantagePoint, "{}", report(&d));
}

#[test]
fn what_only_nodes_lose_is_a_matter_of_their_address() {
    let d = fault(C::ProxyForwards, R::TimedOut, |f| {
        single(f, 1);
        look(f);
        fail(
            f,
            Fail {
                node: "n1",
                from: None,
                path: DialPath::Service,
                endpoint: Some(E2),
                answer: Answer::TimedOut,
            },
        );
    });
    assert!(
        says(&d, "masquerades") && says(&d, "ethtool -k"),
        "{}",
        report(&d)
    );
    // What is lost on the way to the node's own Pod has nothing to do with it.
    let d = fault(C::ProxyForwards, R::TimedOut, |f| {
        single(f, 0);
        look(f);
        fail(
            f,
            Fail {
                node: "n1",
                from: None,
                path: DialPath::Service,
                endpoint: Some(E1),
                answer: Answer::TimedOut,
            },
        );
    });
    assert!(!says(&d, "ethtool"), "{}", report(&d));
}

/// The Service of the API server: no selector, endpoints without Pod and node, a slice that it writes itself.
fn api_server() -> Facts {
    let mut facts = with_agents();
    facts.namespace = "default".into();
    facts.spec.service_name = "kubernetes".into();
    service(
        &mut facts,
        json!({ "metadata": { "name": "kubernetes", "namespace": "default" }, "spec": { "selector": null } }),
    );
    let slice = Arc::make_mut(&mut facts.slices[0]);
    slice.metadata.name = Some("kubernetes".into());
    slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), "kubernetes".to_owned())].into());
    slice.metadata.owner_references = None;
    slice.endpoints.truncate(1);
    slice.endpoints[0].addresses = vec!["192.0.2.10".into()];
    slice.endpoints[0].target_ref = None;
    slice.endpoints[0].node_name = None;
    facts.pods.clear();
    facts.deployments.clear();
    look(&mut facts);
    for node in &mut facts.nodes {
        let Some(probe) = &mut node.probe else { continue };
        let direct = DialCount {
            from: None,
            path: DialPath::Endpoint,
            port: "80/TCP".parse().unwrap(),
            family: IpFamily::V4,
            same_node: None,
            made: 1,
            failed: 0,
        };
        Arc::make_mut(probe.facts.as_mut().unwrap()).dials.push(direct);
    }
    facts
}

#[test]
fn the_api_servers_own_service_is_tried_from_nodes() {
    let d = assert_nothing_false(&api_server());
    assert_eq!(d.ready.reason, R::WorksFromNodes, "{}", report(&d));
    assert!(
        says(&d, "The endpoints answer, dialled from nodes."),
        "{}",
        report(&d)
    );
    // Its address is lost, and it answers past it.
    let mut facts = api_server();
    let node = facts.nodes[0].name.clone();
    fail_service(&mut facts, &node, None, Answer::TimedOut);
    assert_root_cause(&diagnose(&facts), C::ProxyForwards, R::TimedOut);
    // It does not answer at all: no node is blamed for the way to another.
    let mut facts = api_server();
    for name in facts.nodes.iter().map(|n| n.name.clone()).collect::<Vec<_>>() {
        on(&mut facts, &name, |n| {
            n.dials.iter_mut().for_each(|d| d.failed = d.made);
            n.failures.push(DialFailure {
                from: None,
                path: DialPath::Endpoint,
                port: "80/TCP".parse().unwrap(),
                target: "192.0.2.10:9376".into(),
                endpoint: Some("192.0.2.10:9376".into()),
                same_node: None,
                same_bridge: false,
                answer: Answer::TimedOut,
                detail: None,
            });
        });
    }
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::TimedOut);
}

#[test]
fn an_endpoint_that_is_a_service_is_not_translated_twice() {
    let d = fault(C::ServiceReachable, R::TimedOut, |f| {
        f.endpoints_of_services = vec![("10.96.42.1".into(), "shop/aux".into())];
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert!(
        says(&d, "10.96.42.1 is the cluster IP of Service shop/aux"),
        "{}",
        report(&d)
    );
    assert!(!says(&d, "for example a firewall"), "{}", report(&d));
}
