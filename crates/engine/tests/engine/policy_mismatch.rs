//! Why no rule matches: what a message about a denial has to say.

mod destinations;

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
