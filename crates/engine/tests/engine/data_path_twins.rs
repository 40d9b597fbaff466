//! The healthy twins of the N rows: odd, but right, or no fault of the Service. Nothing may be False.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{
    Answer, CLibrary, ConditionType as C, DialPath, DnsServer, GapKind, LookupResult, PortState, Reason as R,
    RuleGap, StaleConnection,
};
use svcdiag_engine::{Diagnosis, Facts, Unreadable};
use svcdiag_objects::Object;

use crate::{
    agents::*,
    data_path::{
        client_elsewhere, default_deny, dns_is_silent, external, fails_beyond, no_record, node_port,
        old_address, spare,
    },
    report::{assert_nothing_false, report, stage},
    walkthrough::*,
};

const E2: &str = "10.244.2.6:9376";

#[track_caller]
fn twin(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = with_agents();
    change(&mut facts);
    assert_nothing_false(&facts)
}

/// A twin that is Ready, too.
#[track_caller]
fn ready(reason: R, change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let diagnosis = twin(change);
    assert_eq!(diagnosis.ready.reason, reason, "{}", report(&diagnosis));
    diagnosis
}

#[track_caller]
fn works(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    ready(R::ServiceWorks, change)
}

#[test]
fn n01_n02_n03_what_listens_says_nothing_where_dials_work() {
    works(|f| sockets(f, &[("TCP", "0.0.0.0", 9376), ("TCP", "127.0.0.1", 1234)]));
    works(|f| sockets(f, &[("TCP", "::", 9376)]));
}

#[test]
fn n17_dns_is_silent_since_a_node_drops_what_it_cannot_track() {
    let d = twin(|f| {
        dns_is_silent(f);
        on(f, "n2", |n| n.settings.conntrack_full = Some(true));
    });
    let dns = stage(&d, C::DNSResolves);
    assert!(dns.message.contains("of node n2 is full"), "{}", dns.message);
}

#[test]
fn n05_all_endpoints_on_one_node() {
    works(|f| {
        single(f, 0);
        look(f);
    });
}

#[test]
fn n06_no_kube_proxy_where_something_else_does_its_work() {
    let without = |f: &mut Facts, replacement: Option<&str>| {
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = None;
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.mode = None;
            proxy.replacement = replacement.map(str::to_owned);
            n.rules = None;
        });
    };
    let d = works(|f| without(f, Some("cilium")));
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
    assert_eq!(
        (d.proxy_mode.as_deref(), d.summary.proxy.as_str()),
        (Some("cilium"), "cilium")
    );
    // One whose program is not known: the Service answers though there are no rules.
    let d = works(|f| without(f, None));
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
    // Where the processes could not be listed, an absent one proves nothing.
    twin(|f| {
        on(f, "n1", |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = None;
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.processes_unread = true;
        });
    });
    works(|f| everywhere(f, |n| n.kube_proxy.as_mut().unwrap().process = Some("k3s".into())));
    // k3s that was told to leave kube-proxy out.
    for replacement in [Some("cilium"), None] {
        let d = works(|f| {
            without(f, replacement);
            everywhere(f, |n| n.kube_proxy.as_mut().unwrap().process = Some("k3s".into()));
        });
        assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
        assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
    }
    // Rules of the time before are left.
    let d = works(|f| {
        gap(f, GapKind::Missing, None);
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = Some("k3s".into());
            proxy.replacement = Some("cilium".into());
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
        });
    });
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
}

#[test]
fn n07_n08_closed_ports_prove_nothing() {
    works(|f| {
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.mode = None;
        });
    });
}

#[test]
fn n07_n14_leftovers_of_another_mode_beside_a_kube_proxy_that_does_not_tell_its_own() {
    // Two layouts have traces, so that the agents compare neither.
    for livez in [PortState::Ok, PortState::Closed] {
        let d = twin(|f| {
            everywhere(f, |n| {
                let proxy = n.kube_proxy.as_mut().unwrap();
                proxy.metrics = PortState::Closed;
                proxy.livez = livez;
                proxy.mode = None;
                n.rules = None;
            });
        });
        assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::Running);
        assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProbeFailed);
        assert_eq!(stage(&d, C::ProxyForwards).reason, R::Forwards);
    }
}

/// No kube-proxy, no rule of one, and no program that is known to do its work.
fn nothing_of_kube_proxy(facts: &mut Facts) {
    everywhere(facts, |n| {
        let proxy = n.kube_proxy.as_mut().unwrap();
        (proxy.process, proxy.mode) = (None, None);
        (proxy.livez, proxy.metrics) = (PortState::Closed, PortState::Closed);
        n.rules = None;
    });
}

#[test]
fn n06_nothing_tells_what_does_kube_proxys_work() {
    // Over UDP silence is no answer.
    let d = twin(|f| {
        udp(f);
        look(f);
        nothing_of_kube_proxy(f);
    });
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProbeFailed);
    // From nodes such a Service is not dialled.
    let d = twin(|f| {
        service(f, json!({ "spec": { "selector": null } }));
        for endpoint in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            endpoint.target_ref = None;
        }
        look(f);
        nothing_of_kube_proxy(f);
    });
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProbeFailed);
    // A Local policy leaves a node without an endpoint.
    twin(|f| {
        service(f, json!({ "spec": { "internalTrafficPolicy": "Local" } }));
        look(f);
        nothing_of_kube_proxy(f);
        on(f, "n3", |n| n.dials.retain(|d| d.path != DialPath::Service));
    });
}

#[test]
fn n18_what_replaces_kube_proxy_has_its_own_way_with_tracked_connections() {
    twin(|f| {
        udp(f);
        look(f);
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            (proxy.process, proxy.mode) = (None, None);
            proxy.replacement = Some("ovn-kubernetes".into());
            n.rules = None;
            // A zone of its own tracks what was not translated yet.
            n.stale_connections.push(StaleConnection {
                destination: VIP.into(),
                endpoint: VIP.into(),
                source: "10.244.1.9:41000".into(),
            });
        });
    });
}

#[test]
fn datagrams_of_nodes_that_a_policy_has_refused() {
    let d = twin(|f| {
        udp(f);
        policy(
            f,
            "clients-only",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }] }),
        );
        look(f);
        for node in ["n1", "n2", "n3"] {
            fail_service(f, node, None, Answer::Refused);
        }
    });
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::NotApplicable);
}

#[test]
fn silence_is_told_as_silence() {
    let d = works(|f| {
        udp(f);
        look(f);
    });
    for condition in [C::EndpointsReachable, C::ProxyForwards, C::ServiceReachable] {
        let message = &stage(&d, condition).message;
        assert!(message.contains("do not refuse datagrams"), "{message}");
    }
}

#[test]
fn a10_a_pod_that_is_published_before_it_is_ready() {
    let unready = |f: &mut Facts, which: &[usize]| {
        service(f, json!({ "spec": { "publishNotReadyAddresses": true } }));
        for i in which {
            patch(
                Arc::make_mut(&mut f.pods[*i]),
                json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": ago(5) }] } }),
            );
        }
        look(f);
        fail_direct(f, which, Answer::Refused);
    };
    let d = works(|f| unready(f, &[1]));
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::AllEndpointsAnswer);
    // Where none is ready and none answers, nobody gets anything.
    let mut facts = with_agents();
    unready(&mut facts, &[0, 1, 2]);
    let d = svcdiag_engine::diagnose(&facts);
    assert_eq!(d.root_cause.unwrap().condition, "EndpointsReachable");
}

fn gap(facts: &mut Facts, kind: GapKind, endpoint: Option<&str>) {
    on(facts, "n1", |n| {
        n.rules.as_mut().unwrap().gaps.push(RuleGap {
            kind,
            destination: "10.96.1.175:80/TCP".into(),
            endpoint: endpoint.map(str::to_owned),
            detail: "session affinity is not kept".into(),
        });
    });
}

#[test]
fn n10_n11_a_gap_against_earlier_slices_is_none_today() {
    let outdate = |f: &mut Facts| on(f, "n1", |n| n.slices[0].resource_version = "1".into());
    let d = twin(|f| {
        gap(f, GapKind::EndpointMissing, Some("10.244.9.9:9376"));
        outdate(f);
    });
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::Pending);
    twin(|f| {
        gap(f, GapKind::EndpointStale, Some(E2));
        outdate(f);
    });
    twin(|f| {
        gap(f, GapKind::Missing, None);
        readdressed(f);
    });
}

/// Has a Pod go away.
fn ending(facts: &mut Facts, which: usize) {
    patch(
        Arc::make_mut(&mut facts.pods[which]),
        json!({ "metadata": { "deletionTimestamp": ago(1) } }),
    );
}

/// The Service has got another address, and DNS knows it.
fn readdressed(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "clusterIP": "10.96.2.2", "clusterIPs": ["10.96.2.2"] } }),
    );
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().take(3) {
            lookup.addresses = vec!["10.96.2.2".into()];
        }
    });
}

#[test]
fn n11_a_terminating_endpoint_still_serves() {
    works(|f| {
        ending(f, 2);
        let slice = Arc::make_mut(&mut f.slices[0]);
        slice.endpoints[2].conditions.ready = Some(false);
        slice.endpoints[2].conditions.serving = Some(true);
        slice.endpoints[2].conditions.terminating = Some(true);
        look(f);
    });
}

#[test]
fn incomplete_rules_are_a_hint() {
    let d = works(|f| gap(f, GapKind::Incomplete, None));
    assert!(
        stage(&d, C::ProxyRulesPresent)
            .message
            .contains("session affinity")
    );
}

#[test]
fn n15_n16_n17_settings_alone_are_no_fault() {
    works(|f| {
        everywhere(f, |n| {
            n.settings.ipv4_forwarding = Some(false);
            n.settings.forward_drops = Some(true);
            n.settings.conntrack_full = Some(true);
            n.settings.reverse_path_drops = Some(true);
            n.settings.bridge_netfilter = Some(false);
        });
    });
}

#[test]
fn n18_a_live_flow_over_udp() {
    works(|f| {
        udp(f);
        look(f);
    });
    twin(|f| {
        udp(f);
        look(f);
        on(f, "n1", |n| {
            n.stale_connections.push(StaleConnection {
                destination: VIP.into(),
                endpoint: E2.into(),
                source: "10.244.1.9:41000".into(),
            });
        });
    });
}

#[test]
fn n23_a_cache_on_the_node_and_a_server_that_works() {
    for address in ["169.254.20.10", "198.51.100.53"] {
        works(|f| client_dns(f, |r| r.servers = vec![address.into()]));
    }
}

#[test]
fn n24_extra_search_domains() {
    works(|f| client_dns(f, |r| r.search.push("corp.example".into())));
}

#[test]
fn n25_ndots_zero_with_glibc_is_a_hint() {
    let d = works(|f| client_dns(f, |r| r.ndots = 0));
    assert!(
        stage(&d, C::DNSResolves)
            .message
            .contains("musl would not resolve hostnames")
    );
    let d = works(|f| {
        client_dns(f, |r| {
            r.ndots = 2;
            r.c_library = CLibrary::Musl;
        });
    });
    assert!(!stage(&d, C::DNSResolves).message.contains("musl"));
}

/// Cluster DNS was not well for a moment, or the servers beyond it are not: others than musl, and musl with enough
/// dots asked for, make the full name of the short one.
#[test]
fn n24_n25_a_short_name_that_is_searched_for_fails_by_no_fault_of_the_client() {
    for (library, ndots) in [
        (CLibrary::Unknown, 0),
        (CLibrary::Glibc, 0),
        (CLibrary::Glibc, 5),
        (CLibrary::Musl, 5),
    ] {
        let mut facts = with_agents();
        fails_beyond(&mut facts);
        client_dns(&mut facts, |r| {
            r.ndots = ndots;
            r.c_library = library;
        });
        let d = assert_nothing_false(&facts);
        assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed, "{library:?}");
    }
}

#[test]
fn n26_n27_names_follow_a_change_late() {
    let young = |f: &mut Facts| {
        Arc::make_mut(f.service.as_mut().unwrap()).metadata =
            object(json!({ "name": "hostnames", "namespace": NS, "creationTimestamp": ago(5) }));
    };
    for change in [old_address, no_record] {
        let d = twin(|f| {
            young(f);
            change(f);
        });
        let dns = stage(&d, C::DNSResolves);
        assert_eq!(dns.reason, R::Pending);
        // Its TTL of 30 s, an interval of 60 s and a round after the change.
        assert_eq!(
            dns.recheck_at,
            Some(now() + SignedDuration::from_secs(30 + 60 + 30 - 5))
        );
    }
    twin(|f| {
        service(
            f,
            json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }),
        );
        look(f);
        old_address(f);
        Arc::make_mut(&mut f.slices[0]).metadata.creation_timestamp = Some(object(json!(ago(5))));
    });
}

#[test]
fn headless_services_resolve_to_their_endpoints() {
    works(|f| {
        service(
            f,
            json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }),
        );
        look(f);
    });
}

#[test]
fn external_names_resolve_to_anything() {
    works(|f| {
        service(
            f,
            json!({ "spec": { "type": "ExternalName", "clusterIP": null, "clusterIPs": null, "externalName": "db.example", "selector": null } }),
        );
        f.slices.clear();
        look(f);
        client_dns(f, |r| r.lookups[0].addresses = vec!["203.0.113.7".into()]);
    });
}

#[test]
fn n29_a_spare_server_that_nobody_waits_for() {
    works(|f| spare(f, &["10.96.0.10", "10.96.0.9"]));
    // musl asks all at once.
    works(|f| {
        spare(f, &["10.96.0.9", "10.96.0.10"]);
        client_dns(f, |r| r.c_library = CLibrary::Musl);
    });
}

#[test]
fn n40_the_short_name_leads_to_the_clients_own_service() {
    works(|f| {
        client_elsewhere(f);
        client_dns(f, |r| {
            r.uses_short_name = true;
            r.lookups[0].result = LookupResult::Found;
            r.lookups[0].addresses = vec!["10.96.7.7".into()];
            r.lookups[0].found_as = Some("hostnames.web.svc.cluster.local".into());
        });
    });
}

#[test]
fn n71_a_cluster_dns_that_has_not_all_namespaces() {
    works(|f| {
        not_found(f, &["kubernetes.default"]);
        everywhere(f, |n| {
            n.dns_servers
                .iter_mut()
                .for_each(|s| s.control = LookupResult::NotFound)
        });
    });
}

#[test]
fn n71_cluster_dns_that_others_get_answers_from_is_not_blamed() {
    let d = twin(|f| {
        not_found(
            f,
            &[
                "hostnames",
                "hostnames.shop",
                "hostnames.shop.svc.cluster.local",
                "kubernetes.default",
            ],
        );
        on(f, "n1", |n| {
            let own = |s: &&mut DnsServer| s.from.as_deref() == Some(CLIENT) && !s.endpoint;
            for s in n.dns_servers.iter_mut().filter(own) {
                (s.control, s.result) = (LookupResult::NotFound, LookupResult::NotFound);
            }
        });
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed);
}

#[test]
fn n71_a_cache_of_a_cloud_is_not_cluster_dns() {
    let d = twin(|f| {
        not_found(
            f,
            &[
                "hostnames",
                "hostnames.shop",
                "hostnames.shop.svc.cluster.local",
                "kubernetes.default",
            ],
        );
        client_dns(f, |r| r.servers = vec!["169.254.169.253".into()]);
        everywhere(f, |n| n.dns_servers.clear());
        f.cluster_dns = None;
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed);
}

#[test]
fn n72_nobody_knows_whether_an_external_name_exists() {
    works(|f| external(f, LookupResult::NotFound));
    for result in [LookupResult::TimedOut, LookupResult::Failed] {
        let d = twin(|f| {
            external(f, result);
            no_record(f);
        });
        assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed, "{result}");
    }
}

#[test]
fn n73_a_search_domain_that_answers_for_none_of_the_names() {
    works(|f| client_dns(f, |r| r.search.push("wild.example".into())));
}

#[test]
fn n74_names_that_a_client_chose_not_to_have() {
    // Its search list has the suffix for the short name only; ndots:1 and musl search for no name with a dot.
    works(|f| {
        not_found(f, &["hostnames.shop"]);
        client_dns(f, |r| r.search.truncate(1));
    });
    works(|f| {
        not_found(f, &["hostnames.shop", "kubernetes.default"]);
        client_dns(f, |r| {
            r.ndots = 1;
            r.c_library = CLibrary::Musl;
        });
    });
}

#[test]
fn n29_dns_pods_that_are_all_silent_to_one_client_may_be_out_of_its_reach() {
    works(|f| {
        on(f, "n1", |n| {
            for s in n.dns_servers.iter_mut().filter(|s| s.endpoint) {
                (s.control, s.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
            }
        });
    });
}

#[test]
fn n28_silence_may_be_what_policies_want_that_could_not_be_read() {
    let d = twin(|f| {
        dns_is_silent(f);
        f.unreadable.push(Unreadable {
            resource: "networkpolicies".into(),
            why: "the bundle has no list of them".into(),
        });
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed);
}

#[test]
fn n32_policies_that_could_not_be_read_may_keep_a_pod_from_itself() {
    let timed_out = |f: &mut Facts| {
        on(f, "n2", |n| {
            n.hairpins[0].answer = Some(Answer::TimedOut);
            n.hairpins[0].masqueraded = Some(true);
            n.hairpins[0].hairpin_mode = Some(true);
        });
    };
    let d = twin(|f| {
        timed_out(f);
        f.unreadable.push(Unreadable {
            resource: "networkpolicies".into(),
            why: "the bundle has no list of them".into(),
        });
    });
    assert_eq!(stage(&d, C::HairpinOK).reason, R::ProbeFailed);
}

#[test]
fn n30_the_dial_decides_about_hairpin() {
    works(|f| on(f, "n1", |n| n.hairpins[0].hairpin_mode = Some(false)));
    works(|f| {
        on(f, "n1", |n| {
            n.hairpins[0].hairpin_mode = None;
            n.hairpins[0].bridge_port = None;
        });
    });
    let d = works(|f| everywhere(f, |n| n.hairpins.iter_mut().for_each(|h| h.answer = None)));
    assert_eq!(stage(&d, C::HairpinOK).reason, R::HairpinConfigured);
}

#[test]
fn a_failure_that_belongs_to_an_earlier_state_does_not_count() {
    let d = twin(|f| {
        fail_direct(f, &[1], Answer::TimedOut);
        ending(f, 1);
        Arc::make_mut(&mut f.slices[0]).endpoints[1].conditions.ready = Some(false);
    });
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::Pending);
    let d = twin(|f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        readdressed(f);
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Pending);
}

#[test]
fn n38_a_policy_that_nobody_enforces() {
    let d = works(|f| {
        default_deny(f);
        look(f);
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::DeniedButNotEnforced);
}

#[test]
fn n38_a_policy_that_keeps_all_but_the_clients_away_nodes_too() {
    let d = works(|f| {
        policy(
            f,
            "clients-only",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }] }),
        );
        look(f);
        for (i, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
            let (address, _, _) = endpoints(f)[i].clone();
            fail(
                f,
                Fail {
                    node,
                    from: None,
                    path: DialPath::Endpoint,
                    endpoint: Some(&address),
                    answer: Answer::TimedOut,
                },
            );
            fail_service(f, node, None, Answer::TimedOut);
            on(f, node, |n| n.hairpins[0].answer = Some(Answer::TimedOut));
        }
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::Allowed);
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::AllEndpointsAnswer);
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::NotApplicable);
}

fn block(facts: &mut Facts) {
    policy(
        facts,
        "block",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
            "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.244.0.0/16" } }] }] }),
    );
    look(facts);
}

#[test]
fn dials_decide_where_a_policy_admits_a_block_of_addresses() {
    let d = works(block);
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::Allowed);
    let d = twin(|f| {
        block(f);
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::ProbeFailed);
}

#[test]
fn a_policy_for_others_that_nobody_enforces() {
    let d = works(|f| {
        policy(
            f,
            "web-only",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }] }),
        );
        look(f);
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::DeniedButNotEnforced);
}

#[test]
fn a_client_that_policies_cut_off_from_dns_is_none() {
    let d = twin(|f| {
        add_egress_policy(f);
        look(f);
        client_dns(f, |r| {
            r.lookups
                .iter_mut()
                .for_each(|l| l.result = LookupResult::TimedOut)
        });
        f.pods
            .push(pod("other", "n2", "10.244.2.9", json!({ "app": "other" })));
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::NoClientPods);
}

/// Lets the client out to the Service's Pods only, not to DNS.
fn add_egress_policy(facts: &mut Facts) {
    policy(
        facts,
        "egress",
        json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"],
            "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "hostnames" } } }] }] }),
    );
}

#[test]
fn n39_clients_with_a_sidecar_prove_nothing() {
    let d = works(|f| on(f, "n1", |n| n.intercepted = vec![CLIENT.into()]));
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::InterceptedByMesh);
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::InterceptedByMesh);
    // By the name of the container, and though its connections fail.
    twin(|f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        let client = f.pods.iter_mut().find(|p| p.name() == "client").unwrap();
        patch(
            Arc::make_mut(client),
            json!({ "spec": { "initContainers": [{ "name": "istio-proxy", "restartPolicy": "Always" }] } }),
        );
    });
    let d = works(|f| {
        patch(&mut f.spec, json!({ "probe": { "http": { "path": "/" } } }));
        look(f);
        on(f, "n1", |n| n.intercepted = vec![CLIENT.into()]);
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Reachable);
}

#[test]
fn n40_a_client_elsewhere_uses_the_qualified_name() {
    let d = works(client_elsewhere);
    assert!(stage(&d, C::DNSResolves).message.contains("hostnames.shop"));
}

#[test]
fn n41_without_a_client_the_nodes_are_enough() {
    ready(R::WorksFromNodes, |f| {
        for pod in &mut f.pods {
            let policy = if pod.name() == "client" { "Default" } else { "None" };
            Arc::make_mut(pod).spec.dns_policy = Some(policy.into());
        }
        look(f);
    });
    // A Pod that policies keep away is no client.
    ready(R::WorksFromNodes, |f| {
        policy(
            f,
            "web-only",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }] }),
        );
        look(f);
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
}

#[test]
fn foreign_addresses_are_not_dialled_from_nodes() {
    let d = works(|f| {
        service(f, json!({ "spec": { "selector": null } }));
        for endpoint in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            endpoint.target_ref = None;
        }
        look(f);
    });
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::NotApplicable);
}

#[test]
fn odd_services_work() {
    works(|f| {
        single(f, 2);
        look(f);
    });
    works(|f| {
        node_port(f);
        service(f, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
        look(f);
    });
    works(|f| {
        service(
            f,
            json!({ "spec": { "ports": [{ "name": "default", "protocol": "SCTP", "port": 80, "targetPort": 9376 }] } }),
        );
        patch(
            Arc::make_mut(&mut f.slices[0]),
            json!({ "ports": [{ "name": "default", "port": 9376, "protocol": "SCTP" }] }),
        );
        look(f);
        everywhere(f, |n| n.dials.clear());
    });
    works(|f| {
        patch(
            Arc::make_mut(f.service.as_mut().unwrap()),
            json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": "other" } } }),
        );
        look(f);
    });
    works(|f| {
        everywhere(f, |n| {
            n.rules = None;
            n.kube_proxy.as_mut().unwrap().mode = Some("ipvs".into());
        })
    });
}

#[test]
fn hostnetwork_pods_meet_themselves_without_a_way_back() {
    let d = works(|f| {
        each_pod(f, |p| p.spec.host_network = Some(true));
        look(f);
        everywhere(f, |n| n.hairpins.clear());
    });
    assert_eq!(stage(&d, C::HairpinOK).reason, R::NotApplicable);
}

#[test]
fn n43_a_thousand_endpoints() {
    let d = works(|f| {
        let pods: Vec<_> = (0..1000)
            .map(|i| {
                pod(
                    &format!("hostnames-{i}"),
                    &format!("n{}", i % 3 + 1),
                    &format!("10.244.{}.{}", i / 250 + 1, i % 250 + 10),
                    app(),
                )
            })
            .collect();
        f.pods.retain(|p| p.name() == "client");
        f.pods.extend(pods);
        resync(f);
        look(f);
    });
    assert!(d.observations.len() <= 32);
}
