//! Peers that no selector matches: ClusterIPs, endpoints that are no Pods, the host network, clients from outside.

use super::*;

fn cluster_ip() -> Value {
    json!([{ "to": [{ "ipBlock": { "cidr": "10.96.1.175/32" } }], "ports": [{ "port": 80 }] },
        { "ports": [{ "port": 53, "protocol": "UDP" }] }])
}

#[test]
fn an_ip_block_that_is_a_cluster_ip() {
    let with = |change: fn(&mut Facts)| {
        let mut facts = with_agents();
        name_clients(&mut facts);
        let_out(&mut facts, cluster_ip());
        look(&mut facts);
        change(&mut facts);
        diagnose(&facts)
    };
    // Most network plugins see a Pod's address, but not all: nobody has tried.
    let mut facts = healthy();
    name_clients(&mut facts);
    let_out(&mut facts, cluster_ip());
    let unknown = assert_nothing_false(&facts);
    let finding = stage(&unknown, C::NetworkPolicyAllows);
    assert_eq!(finding.reason, R::NoVantagePoint);
    assert!(
        finding
            .message
            .contains("ipBlock 10.96.1.175/32 of its rule contains the Service's cluster IP")
    );
    // It works here.
    let allowed = with(|_| ());
    assert_eq!(
        stage(&allowed, C::NetworkPolicyAllows).reason,
        R::Allowed,
        "{}",
        report(&allowed)
    );
    // It does not.
    let lost = with(|f| {
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    assert_root_cause(&lost, C::NetworkPolicyAllows, R::EgressDenied);
    let remediation = lost.root_cause.unwrap().remediation;
    assert!(
        remediation.contains("select the Pods with a podSelector instead of the ipBlock"),
        "{remediation}"
    );
}

#[test]
fn endpoints_that_are_no_pods_want_an_ip_block() {
    let foreign = |f: &mut Facts| {
        service(f, json!({ "spec": { "selector": null } }));
        patch(
            Arc::make_mut(&mut f.slices[0]),
            json!({ "endpoints": [{ "addresses": ["192.168.50.10"], "conditions": { "ready": true } }] }),
        );
    };
    denied(
        R::EgressDenied,
        &["192.168.50.10", "add an ipBlock for 192.168.50.10/32"],
        |f| {
            foreign(f);
            let_out(f, json!([{ "to": [{ "podSelector": {} }] }]));
        },
    );
    let mut facts = healthy();
    name_clients(&mut facts);
    foreign(&mut facts);
    let_out(
        &mut facts,
        json!([{ "to": [{ "ipBlock": { "cidr": "192.168.50.10/32" } }], "ports": [{ "port": 9376 }] },
            { "ports": [{ "port": 53, "protocol": "UDP" }] }]),
    );
    assert_nothing_false(&facts);
}

/// The client uses the network of its node, and the guard admits it by its labels.
fn on_the_host(facts: &mut Facts) {
    name_clients(facts);
    let client = facts.pods.iter_mut().find(|p| p.name() == "client").unwrap();
    patch(
        Arc::make_mut(client),
        json!({ "spec": { "hostNetwork": true }, "status": { "podIP": "192.168.0.1", "podIPs": [{ "ip": "192.168.0.1" }] } }),
    );
    admit(
        facts,
        json!({ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }),
    );
}

#[test]
fn a_client_on_the_host_network_is_matched_by_no_selector() {
    let mut facts = healthy();
    on_the_host(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    let finding = stage(&diagnosis, C::NetworkPolicyAllows);
    assert_eq!(finding.reason, R::NoVantagePoint);
    assert!(
        finding.message.contains("host network") && finding.message.contains("ipBlock"),
        "{}",
        finding.message
    );

    let mut facts = with_agents();
    on_the_host(&mut facts);
    look(&mut facts);
    let works = assert_nothing_false(&facts);
    assert_eq!(stage(&works, C::NetworkPolicyAllows).reason, R::Allowed);
    // Its own node's Pod it reaches always.
    fail_from_clients(&mut facts, &[1, 2], Answer::TimedOut);
    let lost = diagnose(&facts);
    assert_root_cause(&lost, C::NetworkPolicyAllows, R::IngressDenied);
    assert_eq!(stage(&lost, C::ServiceReachable).reason, R::Reachable);
}

#[test]
fn clients_from_outside_are_told_of_in_a_hint() {
    let hint = |rule: Value| {
        let mut facts = healthy();
        service(&mut facts, json!({ "spec": { "type": "NodePort" } }));
        admit(&mut facts, rule);
        let diagnosis = assert_nothing_false(&facts);
        let message = stage(&diagnosis, C::NetworkPolicyAllows).message.clone();
        message.contains("No rule of guard admits clients from outside the cluster")
    };
    let client = json!({ "podSelector": { "matchLabels": { "app": "client" } } });
    assert!(hint(json!({ "from": [client] })));
    assert!(!hint(
        json!({ "from": [client, { "ipBlock": { "cidr": "0.0.0.0/0" } }] })
    ));
    assert!(!hint(json!({})));
}

/// The client asks the cache on its node and may ask the Pods of cluster DNS only.
fn node_cache(facts: &mut Facts) {
    name_clients(facts);
    let dns = json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } } });
    let app = json!({ "podSelector": { "matchLabels": { "app": "hostnames" } } });
    let_out(
        facts,
        json!([{ "to": [app] }, { "to": [dns], "ports": [{ "port": 53, "protocol": "UDP" }] }]),
    );
    look(facts);
    client_dns(facts, |r| r.servers = vec!["169.254.20.10".into()]);
}

#[test]
fn a_dns_cache_on_the_node_is_matched_by_no_selector() {
    let mut facts = with_agents();
    node_cache(&mut facts);
    // Not every network plugin keeps Pods from their own node.
    let works = assert_nothing_false(&facts);
    assert_eq!(stage(&works, C::DNSResolves).reason, R::Resolves);
    client_dns(&mut facts, |r| {
        r.lookups
            .iter_mut()
            .for_each(|l| l.result = LookupResult::TimedOut);
    });
    let silent = diagnose(&facts);
    assert_root_cause(&silent, C::NetworkPolicyAllows, R::EgressToDNSDenied);
    assert_eq!(stage(&silent, C::DNSResolves).reason, R::Blocked);
    let remediation = silent.root_cause.unwrap().remediation;
    assert!(remediation.contains("ipBlock 169.254.20.10/32"), "{remediation}");
    // A rule for its address says that the policy is not to blame.
    let_out(
        &mut facts,
        json!([{ "to": [{ "ipBlock": { "cidr": "169.254.20.10/32" } }], "ports": [{ "port": 53, "protocol": "UDP" }] }]),
    );
    let elsewhere = assert_nothing_false(&facts);
    assert_eq!(stage(&elsewhere, C::NetworkPolicyAllows).reason, R::Allowed);
    assert_eq!(stage(&elsewhere, C::DNSResolves).reason, R::ProbeFailed);
}

#[test]
fn neighbours_are_told_of_in_hints() {
    let hint = |change: fn(&mut Facts)| {
        let mut facts = healthy();
        change(&mut facts);
        let diagnosis = assert_nothing_false(&facts);
        let finding = stage(&diagnosis, C::NetworkPolicyAllows);
        assert_eq!(finding.reason, R::Allowed);
        assert!(
            finding.message.contains("need not be clients"),
            "{}",
            finding.message
        );
        finding.message.clone()
    };
    // Locked down to DNS, to the Service alone, to nothing.
    let dns = hint(|f| let_out(f, json!([{ "ports": [{ "port": 53, "protocol": "UDP" }] }])));
    assert!(
        dns.contains("does not allow egress from Pod shop/client to the Pods"),
        "{dns}"
    );
    let only = hint(|f| policy(f, "out", crate::fixtures::egress_to_app()));
    assert!(
        only.contains("egress from Pod shop/client to cluster DNS"),
        "{only}"
    );
    hint(|f| let_out(f, json!([])));
    // One of the Pods behind the Service is guarded, and the others are not.
    let guarded = hint(|f| {
        patch(
            Arc::make_mut(&mut f.pods[0]),
            json!({ "metadata": { "labels": { "canary": "yes" } } }),
        );
        policy(
            f,
            "canary",
            json!({ "podSelector": { "matchLabels": { "canary": "yes" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "tester" } } }] }] }),
        );
    });
    assert!(guarded.contains("some of the Pods"), "{guarded}");
}
