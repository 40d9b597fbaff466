//! Why no rule matches: what a message about a denial has to say.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{Answer, ConditionType as C, LookupResult, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};
use svcdiag_objects::Object;

use crate::{
    agents::*,
    fixtures::client_elsewhere,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

/// Admits by a rule, and by nothing else, to the Service's Pods.
fn admit(facts: &mut Facts, rule: Value) {
    policy(
        facts,
        "guard",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"], "ingress": [rule] }),
    );
}

/// Lets the client out by a rule, and by nothing else.
fn let_out(facts: &mut Facts, rules: Value) {
    policy(
        facts,
        "out",
        json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": rules }),
    );
}

/// What is said of a named client that the policies keep away.
#[track_caller]
fn denied(reason: R, words: &[&str], change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = healthy();
    name_clients(&mut facts);
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::NetworkPolicyAllows, reason);
    let cause = diagnosis.root_cause.as_ref().unwrap();
    for word in words {
        let told = format!("{} {}", cause.message, cause.remediation);
        assert!(told.contains(word), "{word:?} is not in {told:?}");
    }
    diagnosis
}

#[test]
fn a_label_that_the_client_lacks() {
    let by = |labels: Value| json!({ "from": [{ "podSelector": { "matchLabels": labels } }] });
    denied(
        R::IngressDenied,
        &["the podSelector of its rule requires role=web, a label that Pod client does not have"],
        |f| admit(f, by(json!({ "role": "web" }))),
    );
    denied(
        R::IngressDenied,
        &["requires app=web, but Pod client has app=client"],
        |f| admit(f, by(json!({ "app": "web" }))),
    );
    denied(
        R::IngressDenied,
        &["requires name=client, but Pod client has app=client instead"],
        |f| admit(f, by(json!({ "name": "client" }))),
    );
    let expression = json!({ "key": "tier", "operator": "In", "values": ["a", "b"] });
    denied(R::IngressDenied, &["requires tier In (a, b)"], |f| {
        admit(
            f,
            json!({ "from": [{ "podSelector": { "matchExpressions": [expression] } }] }),
        )
    });
}

#[test]
fn a_selector_without_a_namespace_selector_means_the_own_namespace() {
    let rule = json!({ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] });
    denied(
        R::IngressDenied,
        &[
            "has no namespaceSelector",
            "only Pods in namespace shop",
            "kubernetes.io/metadata.name: web",
        ],
        |f| {
            client_elsewhere(f);
            name_clients(f);
            admit(f, rule.clone());
        },
    );
    // With one it is right.
    let mut facts = healthy();
    client_elsewhere(&mut facts);
    name_clients(&mut facts);
    let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": "web" } });
    admit(
        &mut facts,
        json!({ "from": [{ "namespaceSelector": namespace, "podSelector": { "matchLabels": { "app": "client" } } }] }),
    );
    assert_nothing_false(&facts);
}

#[test]
fn a_label_that_the_namespace_lacks() {
    denied(
        R::IngressDenied,
        &[
            "the namespaceSelector of its rule requires name=web, but Namespace web has kubernetes.io/metadata.name=web instead",
        ],
        |f| {
            client_elsewhere(f);
            name_clients(f);
            admit(
                f,
                json!({ "from": [{ "namespaceSelector": { "matchLabels": { "name": "web" } } }] }),
            );
        },
    );
}

#[test]
fn the_services_port_in_place_of_the_pods() {
    denied(
        R::IngressDenied,
        &[
            "any client",
            "it lists port 80 of the Service, but policies see port 9376 of the Pods",
        ],
        |f| {
            admit(
                f,
                json!({ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] }),
            )
        },
    );
    denied(
        R::IngressDenied,
        &["it lists only port 81 (TCP), not port 9376"],
        |f| admit(f, json!({ "ports": [{ "port": 81 }] })),
    );
    denied(R::IngressDenied, &["there is no ingress rule"], |f| {
        policy(
            f,
            "deny",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        )
    });
}

#[test]
fn the_policy_whose_rule_comes_nearest_is_named() {
    denied(
        R::IngressDenied,
        &["the closest rule is in guard", "edit networkpolicy guard"],
        |f| {
            policy(
                f,
                "a-deny",
                json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
            );
            admit(
                f,
                json!({ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }),
            );
        },
    );
}

/// A client of Namespace web, and the rule by which the guard admits it on a port.
fn from_web(facts: &mut Facts, peer: Value, port: i32) {
    client_elsewhere(facts);
    name_clients(facts);
    let outside = json!({ "ipBlock": { "cidr": "203.0.113.0/24" } });
    let rules = json!([{ "from": [peer], "ports": [{ "port": port }] }, { "from": [outside], "ports": [{ "port": 9376 }] }]);
    policy(
        facts,
        "guard",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"], "ingress": rules }),
    );
}

#[test]
fn each_part_of_a_rule_that_does_not_match_has_a_sentence_of_its_own() {
    let client = json!({ "matchLabels": { "app": "client" } });
    let d = denied(R::IngressDenied, &[], |f| {
        from_web(f, json!({ "podSelector": client }), 80)
    });
    assert_eq!(
        d.root_cause.unwrap().remediation,
        "In NetworkPolicy guard, add a namespaceSelector (kubernetes.io/metadata.name: web) to the same peer as the podSelector: \
         `kubectl -n shop edit networkpolicy guard`. In the same rule, list port 9376 (TCP)."
    );
    let mut facts = healthy();
    let web = json!({ "matchLabels": { "kubernetes.io/metadata.name": "web" } });
    from_web(
        &mut facts,
        json!({ "podSelector": client, "namespaceSelector": web }),
        9376,
    );
    assert_nothing_false(&facts);
}

/// Ports of the Service, as name, port and target port.
fn ports(facts: &mut Facts, all: &[(&str, i32, i32)]) {
    name_clients(facts);
    let of_service: Vec<Value> = all
        .iter()
        .map(|(name, port, target)| json!({ "name": name, "port": port, "targetPort": target, "protocol": "TCP" }))
        .collect();
    let of_slice: Vec<Value> = all
        .iter()
        .map(|(name, _, target)| json!({ "name": name, "port": target, "protocol": "TCP" }))
        .collect();
    service(facts, json!({ "spec": { "ports": of_service } }));
    patch(Arc::make_mut(&mut facts.slices[0]), json!({ "ports": of_slice }));
}

const TWO: [(&str, i32, i32); 2] = [("default", 80, 9376), ("tls", 443, 8443)];

/// A policy with rules for the Service's Pods.
fn guard(facts: &mut Facts, name: &str, rules: Value) {
    policy(
        facts,
        name,
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"], "ingress": rules }),
    );
}

/// Two ports of the Service, each with a policy that lists a port of it.
fn two_ports(facts: &mut Facts, listed: [i32; 2]) {
    ports(facts, &TWO);
    for (name, port) in ["plain", "tls"].into_iter().zip(listed) {
        guard(facts, name, json!([{ "ports": [{ "port": port }] }]));
    }
}

/// A rule for a client in a Namespace that its peer does not name, beside one that admits somebody to all ports.
fn for_client(ports: &[i32]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": port })).collect();
    json!([
        { "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }], "ports": ports },
        { "from": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }] },
    ])
}

const PEER: &str =
    "add a namespaceSelector (kubernetes.io/metadata.name: web) to the same peer as the podSelector";

#[test]
fn all_that_one_rule_lacks_is_said_of_that_rule() {
    let with = |all: &[(&str, i32, i32)]| {
        let d = denied(R::IngressDenied, &[], |f| {
            client_elsewhere(f);
            ports(f, all);
            guard(f, "guard", for_client(&[80, 443, 9090]));
        });
        d.root_cause.unwrap().remediation
    };
    let two = format!(
        "In NetworkPolicy guard, {PEER}: `kubectl -n shop edit networkpolicy guard`. \
         In the same rule, list port 9376 (TCP). In the same rule, list port 8443 (TCP)."
    );
    assert_eq!(with(&TWO), two);
    let third = ("metrics", 9090, 9100);
    assert_eq!(
        with(&[TWO[0], TWO[1], third]),
        format!("{two} The other ports need changes as well.")
    );
}

#[test]
fn a_rule_is_fixed_as_a_whole_or_left_for_later() {
    let d = denied(R::IngressDenied, &[], |f| {
        client_elsewhere(f);
        ports(f, &TWO);
        guard(f, "plain", for_client(&[80]));
        guard(f, "tls", for_client(&[443]));
    });
    assert_eq!(
        d.root_cause.unwrap().remediation,
        format!(
            "In NetworkPolicy plain, {PEER}: `kubectl -n shop edit networkpolicy plain`. \
             In the same rule, list port 9376 (TCP). The other ports need changes as well."
        )
    );
}

#[test]
fn each_policy_is_told_what_it_lacks_itself() {
    let d = denied(R::IngressDenied, &[], |f| two_ports(f, [80, 443]));
    assert_eq!(
        d.root_cause.unwrap().remediation,
        "In NetworkPolicy plain, list port 9376 (TCP): `kubectl -n shop edit networkpolicy plain`. \
         In NetworkPolicy tls, list port 8443 (TCP): `kubectl -n shop edit networkpolicy tls`."
    );
    let mut facts = healthy();
    two_ports(&mut facts, [9376, 8443]);
    assert_nothing_false(&facts);
}

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
