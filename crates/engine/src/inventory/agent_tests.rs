use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{Facts, NodeReport};
use svcdiag_api::{AGENT_LEASE_PREFIX, NodeProbe, REFRESH_ANNOTATION};
use svcdiag_objects::{Lease, Node, Pod, trim_metadata};

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// The controller's clock.
fn at(seconds: i64) -> Timestamp {
    "2026-05-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// A renewal by the clock of the node, which is wrong by years.
fn lease(node: &str, renewal: u32) -> Lease {
    object(
        json!({ "metadata": { "namespace": "svcdiag-system", "name": format!("{AGENT_LEASE_PREFIX}{node}") },
        "spec": { "leaseDurationSeconds": 40, "renewTime": format!("1999-01-01T00:00:{renewal:02}.000000Z") } }),
    )
}

fn node(name: &str, zone: &str) -> Node {
    object(json!({ "metadata": { "name": name, "labels": { "zone": zone } } }))
}

fn probe(name: &str, node: &str, uid: &str, observed: i64) -> NodeProbe {
    object(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "namespace": "shop", "name": name, "generation": 2 },
        "spec": { "nodeName": node, "diagnosis": { "name": "cart", "uid": uid }, "serviceName": "cart",
                  "intervalSeconds": 60 },
        "status": { "observedGeneration": observed, "facts": {} },
    }))
}

fn diagnosis(refresh: &str) -> ServiceDiagnosis {
    object(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "namespace": "shop", "name": "cart", "uid": "u", "annotations": { REFRESH_ANNOTATION: refresh } },
        "spec": { "serviceName": "cart" },
    }))
}

/// A diagnosis, and two nodes whose agents were first seen at the beginning.
fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    inventory.observe_at(at(0));
    inventory.set_interest(&diagnosis(""));
    for name in ["one", "two"] {
        inventory.apply(node(name, "a"));
        inventory.apply(lease(name, 0));
    }
    inventory
}

fn facts(inventory: &Inventory) -> Facts {
    inventory.facts(&diagnosis("again"), at(0), false)
}

fn report(inventory: &Inventory, node: &str) -> NodeReport {
    let nodes = facts(inventory).nodes;
    nodes.into_iter().find(|n| *n.name == *node).unwrap()
}

#[test]
fn a_node_is_reported_if_it_has_an_agent() {
    let mut inventory = inventory();
    inventory.apply(node("three", "a"));
    inventory.apply(lease("four", 0));
    let nodes = facts(&inventory).nodes;
    let names: Vec<&str> = nodes.iter().map(|n| &*n.name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(nodes[0].labels["zone"], "a");
    assert_eq!(nodes[0].alive_until, Some(at(40)));
    assert!(nodes[0].probe.is_none());
}

#[test]
fn that_there_are_no_agents_is_known_only_from_a_list_of_their_leases() {
    let known = |inventory: &Inventory| facts(inventory).has_no_agents;
    let mut empty = Inventory::default();
    assert!(!known(&empty), "nobody has looked");
    empty.replace(Vec::<Lease>::new());
    assert!(known(&empty));
    empty.note_unreadable("leases", Some("not allowed".to_owned()));
    assert!(!known(&empty), "nobody may look any more");

    // Not even one whose Lease has lapsed, or whose Node is gone.
    let mut silent = Inventory::default();
    silent.observe_at(at(-86_400));
    silent.replace(vec![lease("one", 0)]);
    assert!(!known(&silent));
    silent.delete::<Lease>("svcdiag-system", &format!("{AGENT_LEASE_PREFIX}one"));
    assert!(known(&silent));
}

#[test]
fn who_ignores_the_data_path_is_told_of_no_agents() {
    let mut ignoring = diagnosis("");
    ignoring.spec.data_path = Some(svcdiag_api::DataPath::Ignore);
    assert!(inventory().facts(&ignoring, at(0), false).nodes.is_empty());
}

#[test]
fn an_agent_lives_from_when_its_renewal_was_first_seen() {
    let mut inventory = inventory();
    inventory.observe_at(at(10));
    inventory.apply(lease("one", 10));
    assert_eq!(report(&inventory, "one").alive_until, Some(at(50)));
    inventory.observe_at(at(30));
    inventory.apply(lease("one", 10));
    assert_eq!(report(&inventory, "one").alive_until, Some(at(50)), "seen before");
    // The clock of the node was set back: that is a sign of life, too.
    inventory.apply(lease("one", 5));
    assert_eq!(report(&inventory, "one").alive_until, Some(at(70)));
}

#[test]
fn a_lease_that_lapses_concerns_once_those_who_have_asked_its_agent() {
    let mut inventory = inventory();
    inventory.apply(probe("p", "one", "u", 2));
    inventory.observe_at(at(10));
    inventory.apply(lease("one", 10));
    assert!(
        inventory.fallen_silent(at(0), at(49)).is_empty(),
        "nobody asked the other"
    );
    assert_eq!(inventory.fallen_silent(at(49), at(50)).len(), 1);
    assert!(
        inventory.fallen_silent(at(50), at(60)).is_empty(),
        "it was told before"
    );
}

#[test]
fn a_new_list_is_no_sign_of_life() {
    let mut inventory = inventory();
    inventory.observe_at(at(30));
    inventory.replace(vec![lease("one", 0), lease("two", 1)]);
    assert_eq!(report(&inventory, "one").alive_until, Some(at(40)));
    assert_eq!(report(&inventory, "two").alive_until, Some(at(70)));
    inventory.replace(vec![lease("two", 1)]);
    assert_eq!(facts(&inventory).nodes.len(), 1, "the other agent has gone");
}

#[test]
fn a_renewal_concerns_nobody_but_an_agent_that_comes_or_goes_does() {
    let mut inventory = inventory();
    inventory.observe_at(at(10));
    assert!(inventory.apply(lease("one", 10)).is_empty());
    inventory.observe_at(at(20));
    assert!(inventory.apply(lease("one", 20)).is_empty());
    inventory.observe_at(at(61));
    assert!(
        inventory.apply(lease("one", 30)).is_empty(),
        "it had lapsed, and nobody has to do with it"
    );
    inventory.apply(probe("p", "one", "u", 2));
    inventory.observe_at(at(102));
    assert_eq!(
        inventory.apply(lease("one", 31)).len(),
        1,
        "somebody waits for it"
    );
    inventory.observe_at(at(103));
    assert!(inventory.apply(lease("one", 32)).is_empty());
    inventory.delete::<NodeProbe>("shop", "p");
    inventory.apply(object::<Pod>(json!({
        "metadata": { "namespace": "shop", "name": "web" }, "spec": { "nodeName": "one" },
    })));
    inventory.observe_at(at(144));
    assert_eq!(
        inventory.apply(lease("one", 33)).len(),
        1,
        "Pods of its node may be asked about again"
    );
    inventory.observe_at(at(145));
    assert_eq!(
        inventory.apply(lease("three", 0)).len(),
        1,
        "an agent on another node"
    );
    let name = format!("{AGENT_LEASE_PREFIX}one");
    assert_eq!(inventory.delete::<Lease>("svcdiag-system", &name).len(), 1);
}

#[test]
fn a_lease_of_something_else_is_no_agent() {
    let mut inventory = inventory();
    let mut other = lease("one", 3);
    other.metadata.name = Some("one".to_owned());
    assert!(inventory.apply(other).is_empty());
    assert!(inventory.delete::<Lease>("svcdiag-system", "one").is_empty());
    assert_eq!(facts(&inventory).nodes.len(), 2);
}

#[test]
fn a_node_concerns_all_when_its_labels_change_and_it_has_an_agent() {
    let mut inventory = inventory();
    assert!(
        inventory.apply(node("one", "a")).is_empty(),
        "the kubelet's heartbeat"
    );
    assert_eq!(inventory.apply(node("one", "b")).len(), 1);
    inventory.apply(node("three", "a"));
    assert!(inventory.apply(node("three", "b")).is_empty(), "no agent there");
    assert_eq!(inventory.delete::<Node>("", "one").len(), 1);
}

#[test]
fn a_node_concerns_all_when_it_comes_goes_or_gets_another_address() {
    let mut inventory = inventory();
    let node = |ready: &str, beat: u32, address: &str| -> Node {
        object(
            json!({ "metadata": { "name": "three", "resourceVersion": beat.to_string() }, "status": {
            "addresses": [{ "type": "InternalIP", "address": address }],
            "conditions": [{ "type": "Ready", "status": ready, "lastHeartbeatTime": format!("2026-05-01T12:{beat:02}:00Z") }],
        } }),
        )
    };
    assert_eq!(inventory.apply(node("True", 1, "192.0.2.1")).len(), 1, "it comes");
    assert!(
        inventory.apply(node("True", 2, "192.0.2.1")).is_empty(),
        "its heartbeat"
    );
    assert_eq!(inventory.apply(node("True", 3, "192.0.2.2")).len(), 1);
    assert_eq!(inventory.delete::<Node>("", "three").len(), 1);
}

#[test]
fn a_node_that_is_lost_concerns_namespaces_with_pods_there_and_all_if_cluster_dns_is_there() {
    let mut inventory = inventory();
    let elsewhere = ServiceDiagnosis {
        metadata: object(json!({ "namespace": "elsewhere", "name": "other" })),
        ..diagnosis("")
    };
    inventory.set_interest(&elsewhere);
    let concerned = |inventory: &mut Inventory, ready: &str| -> Vec<String> {
        let node: Node = object(json!({ "metadata": { "name": "one" }, "status": {
            "conditions": [{ "type": "Ready", "status": ready }] } }));
        let concerned = inventory.apply(node).into_iter();
        concerned.map(|(namespace, _)| namespace).collect()
    };
    let pod = |namespace: &str, node: &str| -> svcdiag_objects::Pod {
        let metadata = json!({ "namespace": namespace, "name": "pod", "labels": { "app": namespace } });
        object(json!({ "metadata": metadata, "spec": { "nodeName": node } }))
    };
    concerned(&mut inventory, "True");
    assert!(
        concerned(&mut inventory, "Unknown").is_empty(),
        "there are no Pods"
    );
    inventory.apply(pod("shop", "one"));
    inventory.apply(pod("elsewhere", "two"));
    assert_eq!(concerned(&mut inventory, "True"), ["shop"]);
    inventory.apply(pod("kube-system", "one"));
    assert_eq!(concerned(&mut inventory, "Unknown"), ["shop"]);
    let dns = json!({ "metadata": { "namespace": "kube-system", "name": "kube-dns" },
        "spec": { "selector": { "app": "kube-system" } } });
    inventory.apply::<svcdiag_objects::Service>(object(dns));
    assert_eq!(concerned(&mut inventory, "True"), ["elsewhere", "shop"]);
}

#[test]
fn what_may_not_be_read_and_the_kinds_of_policies_are_news_once() {
    let mut inventory = inventory();
    let why = || Some("the controller is not allowed to list and watch events".to_owned());
    assert_eq!(inventory.note_unreadable("events", why()).len(), 1);
    assert!(inventory.note_unreadable("events", why()).is_empty());
    assert_eq!(facts(&inventory).why_unreadable("events"), why().as_deref());
    assert_eq!(inventory.note_unreadable("events", None).len(), 1);
    assert_eq!(facts(&inventory).why_unreadable("events"), None);
    let kinds = || BTreeSet::from(["CiliumNetworkPolicy".to_owned()]);
    assert_eq!(inventory.note_policy_kinds(kinds()).len(), 1);
    assert!(inventory.note_policy_kinds(kinds()).is_empty());
    assert_eq!(facts(&inventory).other_policy_kinds, ["CiliumNetworkPolicy"]);
}

#[test]
fn a_node_probe_concerns_its_diagnosis_when_it_says_something_new() {
    let mut inventory = inventory();
    assert_eq!(inventory.apply(probe("p", "one", "u", 1)).len(), 1);
    assert!(inventory.apply(probe("p", "one", "u", 1)).is_empty());
    assert_eq!(inventory.apply(probe("p", "one", "u", 2)).len(), 1);
    assert_eq!(inventory.delete::<NodeProbe>("shop", "p").len(), 1);
    let mut foreign = probe("q", "one", "u", 2);
    foreign.spec.diagnosis.name = "nobody".to_owned();
    assert!(inventory.apply(foreign).is_empty());
}

#[test]
fn an_answer_is_owed_since_the_first_question_without_one() {
    let mut inventory = inventory();
    let mut ask = |second: i64, generation: i64, observed: i64| {
        inventory.observe_at(at(second));
        let mut probe = probe("p", "one", "u", observed);
        probe.metadata.generation = Some(generation);
        inventory.apply(probe);
        report(&inventory, "one").probe.unwrap().owed_since
    };
    assert_eq!(ask(1, 2, 1), Some(at(1)));
    assert_eq!(ask(9, 3, 1), Some(at(1)), "another question instead");
    assert_eq!(ask(10, 3, 2), Some(at(1)), "an answer to an earlier one");
    assert_eq!(ask(11, 3, 3), None);
    assert_eq!(ask(20, 4, 3), Some(at(20)));
    inventory.delete::<NodeProbe>("shop", "p");
    inventory.observe_at(at(30));
    inventory.apply(probe("p", "one", "u", 1));
    assert_eq!(
        report(&inventory, "one").probe.unwrap().owed_since,
        Some(at(30)),
        "it is another one"
    );
}

#[test]
fn a_diagnosis_waits_until_every_agent_has_answered() {
    let mut inventory = inventory();
    let key = ("shop".to_owned(), diagnosis("").name().to_owned());
    let other = ("shop".to_owned(), "nobody".to_owned());
    assert!(!inventory.awaits_answers(&key), "nobody was asked");
    inventory.apply(probe("p", "one", "u", 1));
    inventory.apply(probe("q", "two", "u", 1));
    assert!(inventory.awaits_answers(&key) && !inventory.awaits_answers(&other));
    inventory.apply(probe("p", "one", "u", 2));
    assert!(inventory.awaits_answers(&key));
    inventory.apply(probe("q", "two", "u", 2));
    assert!(!inventory.awaits_answers(&key));
    inventory.apply(probe("q", "two", "u", 1));
    assert!(inventory.awaits_answers(&key));
    inventory.observe_at(at(11));
    assert!(!inventory.awaits_answers(&key), "it has had time");
    inventory.delete::<NodeProbe>("shop", "q");
    // By then the Lease of the agent has lapsed.
    inventory.observe_at(at(3600));
    inventory.apply(probe("q", "two", "u", 1));
    assert!(!inventory.awaits_answers(&key), "its agent is silent");
    inventory.apply(lease("two", 1));
    assert!(inventory.awaits_answers(&key));
    inventory.delete::<NodeProbe>("shop", "q");
    assert!(!inventory.awaits_answers(&key), "it is asked no more");
}

#[test]
fn an_answer_with_a_failure_tells_of_a_fault() {
    let mut answer = probe("p", "one", "u", 2);
    assert!(answer.tells_no_fault());
    answer
        .status
        .as_mut()
        .unwrap()
        .facts
        .as_mut()
        .unwrap()
        .probes_failed = 1;
    assert!(!answer.tells_no_fault());
    answer.status = None;
    assert!(answer.tells_no_fault(), "a question");
}

#[test]
fn an_answer_is_current_if_it_is_to_the_present_question() {
    let mut inventory = inventory();
    inventory.apply(probe("p", "one", "u", 1));
    inventory.apply(probe("q", "two", "an earlier diagnosis of that name", 2));
    assert!(!report(&inventory, "one").probe.unwrap().is_current);
    assert!(report(&inventory, "two").probe.is_none());
    inventory.apply(probe("p", "one", "u", 2));
    let answer = report(&inventory, "one").probe.unwrap();
    assert!(answer.is_current && answer.facts.is_some());
    let mut silent = probe("p", "one", "u", 2);
    silent.status = None;
    silent.metadata.generation = None;
    inventory.apply(silent);
    assert!(!report(&inventory, "one").probe.unwrap().is_current);
}

#[test]
fn the_wish_to_look_again_is_a_fact() {
    assert_eq!(facts(&inventory()).refresh, "again");
}

#[test]
fn the_annotations_of_static_pods_are_kept() {
    let mut pod: Pod = object(json!({ "metadata": { "name": "p", "annotations": {
        "kubernetes.io/config.hash": "h", "kubernetes.io/config.mirror": "m", "other": "o",
        "svcdiag.dev/refresh": "1", "svcdiag.dev/unknown": "u", "svcdiag.dev.example.com/x": "x" } } }));
    trim_metadata(&mut pod.metadata);
    let kept: Vec<String> = pod.metadata.annotations.unwrap().into_keys().collect();
    assert_eq!(
        kept,
        [
            "kubernetes.io/config.hash",
            "kubernetes.io/config.mirror",
            "svcdiag.dev/refresh"
        ]
    );
}

#[test]
fn an_agent_is_not_heard_on_what_it_was_not_asked() {
    let dial = |from: Option<&str>| json!({ "from": from, "path": "Service", "port": "80/TCP", "family": "IPv4", "made": 1, "failed": 1 });
    let lookup = |name: &str| json!({ "name": name, "result": "NotFound" });
    let resolver = |pod: &str, names: &[&str]| {
        json!({ "pod": pod, "servers": ["10.96.0.10"], "search": [], "ndots": 5,
        "cLibrary": "Glibc", "lookups": names.iter().map(|n| lookup(n)).collect::<Vec<_>>() })
    };
    let server = |from: Option<&str>, server: &str| json!({ "from": from, "server": server, "control": "TimedOut", "result": "TimedOut" });
    let listeners = |pod: &str| json!({ "pod": pod, "ips": ["10.0.0.1"], "sockets": [] });
    let hairpin = |pod: &str| json!({ "pod": pod, "target": "10.96.0.1:80" });
    let pod = |name: &str| json!({ "name": name, "namespace": "shop", "uid": name, "ips": ["10.0.0.1"] });
    let probe: NodeProbe = object(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "namespace": "shop", "name": "hostile", "uid": "p", "generation": 1 },
        "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60,
            "clients": [pod("client")], "endpoints": [pod("web-0")],
            "clusterDNS": { "addresses": ["10.96.0.10"], "endpoints": ["10.244.0.3:53"] },
            "clusterDns": { "addresses": ["10.96.0.10"], "endpoints": ["10.244.0.3:53"] } },
        "status": { "observedGeneration": 1, "facts": {
            "dials": [dial(None), dial(Some("shop/client")), dial(Some("shop/web-0")), dial(Some("kube-system/root"))],
            "listeners": [listeners("shop/web-0"), listeners("kube-system/root")],
            "resolvers": [resolver("shop/client", &["web", "web.shop.svc", "kubernetes.default", "web-of-lies", "evil.example"]),
                resolver("kube-system/root", &["web"])],
            "dnsServers": [server(Some("shop/client"), "10.96.0.10"), server(Some("shop/client"), "10.244.0.3"),
                server(None, "10.96.0.10"), server(None, "203.0.113.9"), server(Some("kube-system/root"), "10.96.0.10")],
            "hairpins": [hairpin("shop/web-0"), hairpin("kube-system/root")],
            "intercepted": ["shop/client", "kube-system/root"],
        } }
    }));
    let mut inventory = Inventory::default();
    inventory.apply(probe);
    let probe = inventory.probes.get("shop", "hostile").unwrap().object().unwrap();
    let facts = probe.status.as_ref().unwrap().facts.as_ref().unwrap();
    let from: Vec<Option<&str>> = facts.dials.iter().map(|d| d.from.as_deref()).collect();
    assert_eq!(from, [None, Some("shop/client")]);
    let names: Vec<&str> = facts
        .resolvers
        .iter()
        .flat_map(|r| &r.lookups)
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(names, ["web", "web.shop.svc", "kubernetes.default"]);
    let servers: Vec<&str> = facts.dns_servers.iter().map(|s| s.server.as_str()).collect();
    assert_eq!(servers, ["10.96.0.10", "10.244.0.3", "10.96.0.10"]);
    let rest = (
        facts.listeners.len(),
        facts.hairpins.len(),
        facts.intercepted.len(),
    );
    assert_eq!(rest, (1, 1, 1));
    assert!(!serde_json::to_string(facts).unwrap().contains("kube-system/root"));
}
