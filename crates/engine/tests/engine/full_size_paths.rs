//! On which paths agents try packets of full size: between Pods that no policy isolates, and few of them.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::ProbePath;
use svcdiag_engine::{Facts, Unreadable, plan};

use crate::{agents::*, fixtures::default_deny, walkthrough::*};

/// The paths of a node, as the address and the node that they lead to.
fn paths(facts: &Facts, node: &str) -> Vec<(String, String)> {
    let asked = plan(facts, &diagnosis_ref()).remove(node).unwrap();
    let of = |path: ProbePath| {
        assert_eq!(path.from, CLIENT);
        (path.to, path.node)
    };
    asked.full_size_paths.into_iter().map(of).collect()
}

fn pair(to: &str, node: &str) -> (String, String) {
    (to.to_owned(), node.to_owned())
}

/// An endpoint of the Service more.
fn add(facts: &mut Facts, name: &str, node: &str, ip: &str) {
    facts.pods.push(pod(name, node, ip, app()));
    resync(facts);
}

#[test]
fn a_client_tries_one_endpoint_of_each_other_node() {
    let mut facts = with_agents();
    let expected = [pair("10.244.2.6", "n2"), pair("10.244.3.7", "n3")];
    assert_eq!(paths(&facts, "n1"), expected);
    assert_eq!(paths(&facts, "n2"), [], "no client is there");
    // Another one does not change the question.
    look(&mut facts);
    add(&mut facts, "hostnames-0-new", "n2", "10.244.2.77");
    assert_eq!(paths(&facts, "n1"), expected);
    // Nor is anybody tried who is not ready.
    facts
        .pods
        .retain(|p| p.status.pod_ip.as_deref() != Some("10.244.2.6"));
    resync(&mut facts);
    assert_eq!(paths(&facts, "n1")[0], pair("10.244.2.77", "n2"));
}

#[test]
fn few_nodes_are_tried_and_not_the_same_by_all() {
    let mut facts = with_agents();
    for i in 4..12 {
        add(
            &mut facts,
            &format!("hostnames-more-{i}"),
            &format!("n{i}"),
            &format!("10.244.{i}.5"),
        );
    }
    let nodes = |facts: &Facts, node: &str| -> Vec<String> {
        paths(facts, node).into_iter().map(|(_, node)| node).collect()
    };
    assert_eq!(nodes(&facts, "n1"), ["n10", "n11", "n2", "n3"]);
    let client = Arc::make_mut(
        facts
            .pods
            .iter_mut()
            .find(|p| p.metadata.name.as_deref() == Some("client"))
            .unwrap(),
    );
    client.spec.node_name = Some("n3".to_owned());
    assert_eq!(nodes(&facts, "n3"), ["n4", "n5", "n6", "n7"]);
}

#[test]
fn nothing_is_tried_from_or_to_pods_that_a_policy_isolates() {
    let isolated = |name: &str, spec: serde_json::Value| {
        let mut facts = with_agents();
        policy(&mut facts, name, spec);
        paths(&facts, "n1")
    };
    let of = |app: &str, kind: &str, rules: serde_json::Value| {
        json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": [kind],
            (kind.to_lowercase()): rules })
    };
    // Even where they let everything through: somebody watches over these Pods.
    for (app, kind) in [
        ("hostnames", "Ingress"),
        ("hostnames", "Egress"),
        ("client", "Ingress"),
        ("client", "Egress"),
    ] {
        assert_eq!(isolated("all", of(app, kind, json!([{}]))), [], "{app} {kind}");
    }
    assert_eq!(isolated("others", of("db", "Ingress", json!([]))).len(), 2);
    let mut facts = with_agents();
    default_deny(&mut facts);
    assert_eq!(paths(&facts, "n1"), []);
}

#[test]
fn nothing_is_tried_where_nobody_knows_who_is_isolated() {
    let mut facts = with_agents();
    facts.other_policy_kinds = vec!["CiliumNetworkPolicy".into()];
    assert_eq!(paths(&facts, "n1"), []);
    let mut facts = with_agents();
    facts.unreadable.push(Unreadable {
        resource: "networkpolicies".into(),
        why: "list networkpolicies in namespace shop".into(),
    });
    assert_eq!(paths(&facts, "n1"), []);
}

#[test]
fn nothing_is_tried_from_or_to_a_host_or_what_is_no_pod() {
    let mut facts = with_agents();
    let of_n2 = facts
        .pods
        .iter_mut()
        .find(|p| p.spec.node_name.as_deref() == Some("n2"))
        .unwrap();
    Arc::make_mut(of_n2).spec.host_network = Some(true);
    assert_eq!(paths(&facts, "n1"), [pair("10.244.3.7", "n3")]);
    // An address that is not the Pod's.
    let mut facts = with_agents();
    Arc::make_mut(&mut facts.slices[0]).endpoints[1].addresses = vec!["192.168.0.9".into()];
    assert_eq!(paths(&facts, "n1"), [pair("10.244.3.7", "n3")]);
    // A client of the other family alone.
    let mut facts = with_agents();
    let client = facts
        .pods
        .iter_mut()
        .find(|p| p.metadata.name.as_deref() == Some("client"))
        .unwrap();
    patch(
        Arc::make_mut(client),
        json!({ "status": { "podIP": "fd00::9", "podIPs": [{ "ip": "fd00::9" }] } }),
    );
    assert_eq!(paths(&facts, "n1"), []);
}
