//! Does the Service work by DNS name? Each fault, and beside it its lookalikes, of which nothing may be False.

mod server_failures;

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{CLibrary, ConditionType as C, DnsServer, LookupResult, Reason as R};
use svcdiag_engine::{Facts, Unreadable};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn a22_no_pod_of_cluster_dns_is_ready() {
    api_fault("A22", C::DNSResolves, R::ClusterDNSNotReady, |f| {
        for pod in &mut f.cluster_dns.as_mut().unwrap().pods {
            not_ready(Arc::make_mut(pod), 60, failing_probe());
        }
    });
}

#[test]
fn a22_the_pods_of_cluster_dns_are_starting() {
    let d = api_lookalike(|f| {
        for pod in &mut f.cluster_dns.as_mut().unwrap().pods {
            let pod = Arc::make_mut(pod);
            patch(
                pod,
                json!({ "metadata": { "creationTimestamp": ago(5) }, "status": { "startTime": ago(5) } }),
            );
            not_ready(
                pod,
                5,
                json!({ "name": "coredns", "state": { "waiting": { "reason": "ContainerCreating" } } }),
            );
        }
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::Pending);
}

#[test]
fn a22_no_cluster_dns_service() {
    api_lookalike(|f| f.cluster_dns = None);
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

#[test]
fn n23_a_cache_on_the_node_and_a_server_that_works() {
    for address in ["169.254.20.10", "198.51.100.53"] {
        works(|f| client_dns(f, |r| r.servers = vec![address.into()]));
    }
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
fn n24_extra_search_domains() {
    works(|f| client_dns(f, |r| r.search.push("corp.example".into())));
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

#[test]
fn n26_n27_names_follow_a_change_late() {
    let young = |f: &mut Facts| {
        Arc::make_mut(f.service.as_mut().unwrap()).metadata =
            object(json!({ "name": "hostnames", "namespace": NS, "creationTimestamp": ago(5) }));
    };
    for change in [old_address, no_record] {
        let d = lookalike(|f| {
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
    lookalike(|f| {
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
fn n27_the_record_is_missing() {
    fault("N27", C::DNSResolves, R::NameNotFound, no_record);
}

#[test]
fn n28_dns_is_silent() {
    fault("N28", C::DNSResolves, R::ClusterDNSUnreachable, dns_is_silent);
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
fn n28_silence_may_be_what_policies_want_that_could_not_be_read() {
    let d = lookalike(|f| {
        dns_is_silent(f);
        f.unreadable.push(Unreadable {
            resource: "networkpolicies".into(),
            why: "the bundle has no list of them".into(),
        });
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed);
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
fn n40_a_client_elsewhere_uses_the_short_name() {
    fault("N40", C::DNSResolves, R::OnlyQualifiedNameResolves, |f| {
        client_elsewhere(f);
        client_dns(f, |r| r.uses_short_name = true);
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
fn n40_a_client_elsewhere_uses_the_qualified_name() {
    let d = works(client_elsewhere);
    assert!(stage(&d, C::DNSResolves).message.contains("hostnames.shop"));
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
fn a_client_that_policies_cut_off_from_dns_is_none() {
    let d = lookalike(|f| {
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
