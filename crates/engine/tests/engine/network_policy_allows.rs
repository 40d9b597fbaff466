//! Do the NetworkPolicies let the clients get to the target Pods and to DNS? Each fault, and beside it its lookalikes, of which nothing may be False.

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, Reason as R};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn a19_default_deny_admits_nobody() {
    let d = api_fault("A19", C::NetworkPolicyAllows, R::IngressDenied, |f| {
        policy(
            f,
            "default-deny",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        );
    });
    assert!(d.root_cause.unwrap().message.contains("default-deny"));
    api_fault(
        "A19-service-port",
        C::NetworkPolicyAllows,
        R::IngressDenied,
        |f| {
            let rule = json!({ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] });
            policy(
                f,
                "allow-80",
                json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "ingress": [rule] }),
            );
        },
    );
    api_fault(
        "A19-named-clients",
        C::NetworkPolicyAllows,
        R::IngressDenied,
        |f| {
            name_clients(f);
            let rule = json!({ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] });
            policy(
                f,
                "only-web",
                json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule] }),
            );
        },
    );
}

#[test]
fn a20_the_clients_may_not_ask_dns() {
    api_fault("A20", C::NetworkPolicyAllows, R::EgressToDNSDenied, |f| {
        name_clients(f);
        policy(f, "client-egress", egress_to_app());
    });
}

#[test]
fn a20_dns_and_the_pods_of_the_service_allowed() {
    let d = api_lookalike(|f| {
        policy(f, "client-egress", egress_to_app());
        let rule = json!({ "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } }],
            "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] });
        policy(
            f,
            "dns",
            json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] }),
        );
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::Allowed);
}

#[test]
fn a24_the_clients_may_not_go_to_the_service() {
    let deny = json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"] });
    api_fault("A24", C::NetworkPolicyAllows, R::EgressDenied, |f| {
        name_clients(f);
        policy(f, "client-deny", deny.clone());
    });
    api_fault("A24-named", C::NetworkPolicyAllows, R::EgressDenied, |f| {
        name_clients(f);
        let rule = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] });
        policy(
            f,
            "only-db",
            json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [rule] }),
        );
    });
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

#[test]
fn datagrams_of_nodes_that_a_policy_has_refused() {
    let d = lookalike(|f| {
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
fn dials_decide_where_a_policy_admits_a_block_of_addresses() {
    let d = works(block);
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::Allowed);
    let d = lookalike(|f| {
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
