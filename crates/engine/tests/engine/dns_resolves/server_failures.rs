//! DNS servers that answer with failures, for another domain, or with names that lead elsewhere, and their lookalikes.

use super::*;

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
    let d = lookalike(|f| {
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
    let d = lookalike(|f| {
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
fn n72_what_an_external_name_stands_for_does_not_exist() {
    let d = fault("N72", C::DNSResolves, R::ExternalNameNotFound, |f| {
        external(f, LookupResult::NotFound);
        no_record(f);
    });
    assert!(d.root_cause.unwrap().message.contains("db.example"));
}

#[test]
fn n72_nobody_knows_whether_an_external_name_exists() {
    works(|f| external(f, LookupResult::NotFound));
    for result in [LookupResult::TimedOut, LookupResult::Failed] {
        let d = lookalike(|f| {
            external(f, result);
            no_record(f);
        });
        assert_eq!(stage(&d, C::DNSResolves).reason, R::ProbeFailed, "{result}");
    }
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
            .contains("Remove wild.example from the Pod's search list")
    );
}

#[test]
fn n73_a_search_domain_that_answers_for_none_of_the_names() {
    works(|f| client_dns(f, |r| r.search.push("wild.example".into())));
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
