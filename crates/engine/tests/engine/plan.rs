//! What the agents are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{DiagnosisRef, NodeProbeSpec};
use svcdiag_engine::{Facts, NodeReport, plan};
use svcdiag_objects::Object;

use crate::{agents::*, fixtures::default_deny, walkthrough::*};

fn asked(facts: &Facts) -> BTreeMap<String, NodeProbeSpec> {
    plan(facts, &diagnosis_ref())
}

fn nodes(facts: &Facts) -> Vec<String> {
    asked(facts).into_keys().collect()
}

fn clients(facts: &Facts) -> Vec<String> {
    asked(facts)
        .into_values()
        .flat_map(|s| s.clients)
        .map(|c| c.name)
        .collect()
}

/// The walk-through with this many agents.
fn agents(number: usize) -> Facts {
    let mut facts = healthy();
    facts.nodes = (1..=number).map(|i| agent(&format!("n{i}"))).collect();
    facts
}

fn add_client(facts: &mut Facts, name: &str, node: &str) {
    facts.pods.push(pod(
        name,
        node,
        &format!("10.244.7.{}", facts.pods.len()),
        json!({ "app": "client" }),
    ));
}

#[test]
fn clients_are_spread_over_the_nodes() {
    let mut facts = agents(3);
    add_client(&mut facts, "client-b", "n1");
    add_client(&mut facts, "client-c", "n3");
    let node_of = |name: &String| match name.as_str() {
        "client" | "client-b" => "n1",
        _ => "n3",
    };
    let nodes: Vec<&str> = clients(&facts).iter().map(node_of).collect();
    assert_eq!(nodes, ["n1", "n3"]);
    patch(&mut facts.spec, json!({ "clients": { "maxPods": 1 } }));
    assert_eq!(clients(&facts).len(), 1);
}

#[test]
fn diagnoses_of_a_namespace_have_different_clients_and_keep_them() {
    let mut facts = agents(3);
    for number in 1..4 {
        add_client(&mut facts, &format!("client-{number}"), "n1");
    }
    patch(&mut facts.spec, json!({ "clients": { "maxPods": 1 } }));
    let client_of = |number: usize| {
        let reference = DiagnosisRef {
            uid: format!("uid-{number}"),
            ..diagnosis_ref()
        };
        let asked = plan(&facts, &reference).into_values();
        asked.flat_map(|spec| spec.clients).next().unwrap().name
    };
    let mut diagnoses_of: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..100 {
        let client = client_of(number);
        assert_eq!(client, client_of(number));
        *diagnoses_of.entry(client).or_default() += 1;
    }
    let are_even = diagnoses_of.values().all(|count| (12..40).contains(count));
    assert!(diagnoses_of.len() == 4 && are_even, "{diagnoses_of:?}");
}

#[test]
fn clients_are_taken_where_nodes_are_selected() {
    let mut facts = agents(2);
    add_client(&mut facts, "elsewhere", "n2");
    let only = json!({ "matchLabels": { "kubernetes.io/hostname": "n1" } });
    patch(
        &mut facts.spec,
        json!({ "clients": { "maxPods": 1 }, "nodes": { "maxNodes": 0, "selector": only } }),
    );
    for number in 0..20 {
        let reference = DiagnosisRef {
            uid: format!("uid-{number}"),
            ..diagnosis_ref()
        };
        let asked = plan(&facts, &reference).into_values();
        let clients: Vec<String> = asked.flat_map(|spec| spec.clients).map(|c| c.name).collect();
        assert_eq!(clients, ["client"]);
    }
}

#[test]
fn clients_come_from_nodes_whose_agents_live() {
    let mut facts = agents(3);
    add_client(&mut facts, "client-b", "n2");
    add_client(&mut facts, "client-c", "n2");
    facts.nodes[0].alive_until = None;
    let mut names = clients(&facts);
    names.sort();
    assert_eq!(names, ["client-b", "client-c"]);
}

#[test]
fn clients_stay_the_same_where_it_makes_no_difference() {
    let mut facts = agents(3);
    patch(&mut facts.spec, json!({ "clients": { "maxPods": 1 } }));
    look(&mut facts);
    add_client(&mut facts, "another", "n1");
    assert_eq!(clients(&facts), ["client"]);
}

#[test]
fn pods_that_a_rollout_has_just_made_are_no_clients_where_there_are_others() {
    let mut facts = agents(3);
    patch(&mut facts.spec, json!({ "clients": { "maxPods": 1 } }));
    let mut add = |name: &str, created: &str, ready: &str| {
        add_client(&mut facts, name, "n1");
        let state = json!({ "metadata": { "creationTimestamp": created },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        patch(Arc::make_mut(facts.pods.last_mut().unwrap()), state);
    };
    add("a-new-one", "2026-05-01T11:59:00Z", "True");
    add("an-old-one", "2026-01-01T00:00:00Z", "True");
    add("an-older-one", "2025-01-01T00:00:00Z", "False");
    facts.pods.retain(|pod| pod.name() != "client");
    assert_eq!(clients(&facts), ["an-old-one"]);
    facts.pods.retain(|pod| pod.name() != "an-old-one");
    assert_eq!(clients(&facts), ["a-new-one"]);
}

#[test]
fn pods_that_policies_keep_away_are_asked_only_if_all_are() {
    let mut facts = agents(3);
    add_client(&mut facts, "web", "n2");
    patch(
        Arc::make_mut(facts.pods.last_mut().unwrap()),
        json!({ "metadata": { "labels": { "app": "web" } } }),
    );
    policy(
        &mut facts,
        "web-only",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }] }),
    );
    assert_eq!(clients(&facts), ["web"]);
    facts.policies.clear();
    default_deny(&mut facts);
    assert_eq!(clients(&facts), ["client", "web"]);
}

#[test]
fn pods_on_the_hosts_network_are_asked_only_if_named() {
    let mut facts = agents(3);
    Arc::make_mut(facts.pods.last_mut().unwrap()).spec.host_network = Some(true);
    assert!(!clients(&facts).contains(&"client".to_owned()));
    name_clients(&mut facts);
    assert_eq!(clients(&facts), ["client"]);
    assert!(asked(&facts)["n1"].clients[0].host_network);
}

#[test]
fn the_sample_of_further_nodes_moves_on_until_all_were_looked_at() {
    let mut facts = agents(12);
    let mut seen = BTreeSet::new();
    for minute in 0..24 * 60 {
        facts.now = now() + SignedDuration::from_mins(minute);
        facts
            .nodes
            .iter_mut()
            .for_each(|n| n.alive_until = Some(facts.now + SignedDuration::from_secs(40)));
        let chosen = nodes(&facts);
        // Those with endpoints and clients always, and three more.
        assert_eq!(chosen.len(), 6);
        assert!(
            ["n1", "n2", "n3"]
                .iter()
                .all(|n| chosen.contains(&(*n).to_owned()))
        );
        seen.extend(chosen);
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn silent_nodes_are_no_part_of_the_sample() {
    let mut facts = agents(5);
    facts.nodes[3].alive_until = Some(now());
    assert_eq!(nodes(&facts), ["n1", "n2", "n3", "n5"]);
}

#[test]
fn a_node_of_the_sample_that_falls_silent_keeps_its_place_until_its_time_is_over() {
    let mut facts = agents(12);
    look(&mut facts);
    let before = nodes(&facts);
    let plan = asked(&facts);
    facts.ask(&plan);
    let is_sampled = |node: &NodeReport| {
        let asked = plan.get(&*node.name);
        asked.is_some_and(|asked: &NodeProbeSpec| asked.clients.is_empty() && asked.endpoints.is_empty())
    };
    let mut silent = Vec::new();
    for node in facts.nodes.iter_mut().filter(|node| is_sampled(node)) {
        node.alive_until = Some(now());
        silent.push(node.name.clone());
    }
    assert_eq!(silent.len(), 3);
    assert_eq!(nodes(&facts), before, "nothing is written about it");
    // Nobody judges by it, nor waits for it.
    let mut judged = facts.clone();
    judged.ask(&plan);
    let mut asked = judged.nodes.iter().filter(|node| node.probe.is_some());
    assert!(asked.all(|node| !silent.contains(&node.name)));
    let kept = |hours: i64| {
        let mut facts = facts.clone();
        facts.now = now() + SignedDuration::from_hours(hours);
        for node in &mut facts.nodes {
            let is_silent = silent.contains(&node.name);
            node.alive_until = (!is_silent).then(|| facts.now + SignedDuration::from_secs(40));
        }
        let is_silent = |node: &&String| silent.iter().any(|name| **name == ***node);
        nodes(&facts).iter().filter(is_silent).count()
    };
    assert_eq!(kept(24), 0);

    // Where nobody else looks, others take its place.
    for node in facts.nodes.iter_mut().take(3) {
        node.alive_until = Some(now());
    }
    let chosen = nodes(&facts);
    let is_alive = |name: &String| {
        facts
            .nodes
            .iter()
            .any(|n| *n.name == **name && n.alive_until > Some(now()))
    };
    assert_eq!(chosen.iter().filter(|name| is_alive(name)).count(), 3);
}

#[test]
fn a_node_that_failed_stays_in_the_sample() {
    let mut facts = agents(12);
    let failing = |facts: &Facts, hour: i64| {
        let mut facts = facts.clone();
        facts.now = now() + SignedDuration::from_hours(hour);
        facts
            .nodes
            .iter_mut()
            .for_each(|n| n.alive_until = Some(facts.now + SignedDuration::from_secs(40)));
        nodes(&facts)
    };
    look(&mut facts);
    let chosen = nodes(&facts)
        .into_iter()
        .find(|n| !["n1", "n2", "n3"].contains(&n.as_str()))
        .unwrap();
    on(&mut facts, &chosen, |f| f.probes_failed = 1);
    for hour in 0..4 {
        assert!(failing(&facts, hour).contains(&chosen));
    }
}

#[test]
fn the_number_of_nodes_is_bounded() {
    let mut facts = agents(12);
    patch(&mut facts.spec, json!({ "nodes": { "maxNodes": 0 } }));
    assert_eq!(nodes(&facts), ["n1", "n2", "n3"]);
    patch(
        &mut facts.spec,
        json!({ "nodes": { "selector": { "matchLabels": { "kubernetes.io/hostname": "n7" } }, "maxNodes": 3 } }),
    );
    assert_eq!(nodes(&facts), ["n7"]);
}

#[test]
fn at_most_fifty_endpoints_are_listed() {
    let mut facts = agents(1);
    facts.pods.retain(|p| p.name() == "client");
    for i in 0..80 {
        facts.pods.push(pod(
            &format!("hostnames-{i}"),
            "n1",
            &format!("10.244.1.{}", i + 20),
            app(),
        ));
    }
    resync(&mut facts);
    assert_eq!(asked(&facts)["n1"].endpoints.len(), 50);
}

/// NodeProbes that are written when one of so many endpoints on ten nodes goes, and the size of the largest.
fn cost_of_a_change(endpoints: usize) -> (usize, usize) {
    let mut facts = agents(10);
    facts.pods.retain(|p| p.name() == "client");
    for i in 0..endpoints {
        let (name, node) = (format!("hostnames-{i}"), format!("n{}", i % 10 + 1));
        let address = format!("10.244.{}.{}", 10 + i / 200, i % 200 + 1);
        facts.pods.push(pod(&name, &node, &address, app()));
    }
    resync(&mut facts);
    look(&mut facts);
    let before = asked(&facts);
    facts.pods.pop();
    resync(&mut facts);
    Arc::make_mut(&mut facts.slices[0]).metadata.resource_version = Some("2".into());
    let after = asked(&facts);
    let written = after
        .iter()
        .filter(|(node, spec)| before.get(*node) != Some(spec));
    let sizes = after.values().map(|spec| serde_json::to_vec(spec).unwrap().len());
    (written.count(), sizes.max().unwrap())
}

#[test]
fn a_change_of_an_endpoint_costs_a_write_for_each_chosen_node_however_many_there_are() {
    for endpoints in [5, 100, 1000] {
        let (writes, bytes) = cost_of_a_change(endpoints);
        println!("{endpoints} endpoints: {writes} NodeProbes are written, the largest has {bytes} bytes");
        assert!(
            writes <= 8 && bytes <= 128 * 1024,
            "{endpoints}: {writes} writes, {bytes} bytes"
        );
    }
}

#[test]
fn the_revision_follows_what_the_agent_should_look_at_again() {
    let facts = agents(3);
    let revision = |f: &Facts| asked(f)["n1"].revision.clone();
    let first = revision(&facts);
    let mut later = facts.clone();
    later.now = now() + SignedDuration::from_secs(30);
    assert_eq!(revision(&later), first);
    let mut changed = facts.clone();
    Arc::make_mut(&mut changed.slices[0]).endpoints.pop();
    assert_ne!(revision(&changed), first);
    // Not ready, and ready again: the slice is another though it says the same.
    let mut changed = facts.clone();
    Arc::make_mut(&mut changed.slices[0]).metadata.resource_version = Some("2".into());
    assert_ne!(revision(&changed), first);
    // Whoever was shut out may be let in now.
    let mut changed = facts.clone();
    policy(
        &mut changed,
        "deny",
        json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
    );
    assert_ne!(revision(&changed), first);
    let mut changed = facts;
    changed.refresh = "again".into();
    assert_ne!(revision(&changed), first);
}

#[test]
fn nobody_is_asked_without_a_service_or_an_agent_or_while_suspended() {
    let mut facts = agents(3);
    facts.spec.suspend = true;
    assert!(asked(&facts).is_empty());
    let mut facts = agents(3);
    facts.service = None;
    assert!(asked(&facts).is_empty());
    assert!(asked(&healthy()).is_empty());
}

#[test]
fn only_a_pod_of_the_kubelet_is_found_by_a_hash() {
    let client = |owner: serde_json::Value, ips: bool| {
        let mut facts = agents(3);
        let client = facts.pods.iter_mut().find(|p| p.name() == "client").unwrap();
        let client = Arc::make_mut(client);
        client.metadata.annotations = Some(
            ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"]
                .map(|key| (key.to_owned(), "stolen".to_owned()))
                .into(),
        );
        client.metadata.owner_references = serde_json::from_value(json!([owner])).unwrap();
        if !ips {
            client.status.pod_ips.clear();
            client.status.pod_ip = None;
        }
        let asked: Vec<String> = asked(&facts)
            .into_values()
            .flat_map(|s| s.clients)
            .map(|c| c.uid)
            .collect();
        asked.iter().any(|uid| uid == "stolen")
    };
    let node = json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1" });
    let other = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "n1", "uid": "n1" });
    assert!(client(node.clone(), true));
    assert!(!client(other, true));
    assert!(!client(node, false));
}

#[test]
fn node_ports_are_tried_from_other_nodes_that_are_asked_for_as_long_as_nothing_changes() {
    let others = |facts: &Facts| -> Vec<Vec<String>> {
        let asked = asked(facts).into_values();
        asked
            .map(|s| s.other_nodes.into_iter().map(|n| n.name).collect())
            .collect()
    };
    let mut facts = agents(4);
    crate::blame::nodes(
        &mut facts,
        &["192.168.0.1", "192.168.0.2", "192.168.0.3", "192.168.0.4"],
    );
    assert_eq!(others(&facts), [[""; 0]; 4], "the Service has no node port");
    crate::fixtures::node_port(&mut facts);
    // Node n4 is of the sample.
    assert_eq!(
        others(&facts),
        [["n2", "n3"], ["n3", "n1"], ["n1", "n2"], ["n1", "n2"]]
    );
    // A node without an endpoint drops what comes from outside.
    service(
        &mut facts,
        json!({ "spec": { "externalTrafficPolicy": "Local" } }),
    );
    for endpoint in &mut Arc::make_mut(&mut facts.slices[0]).endpoints {
        endpoint.node_name = Some("n2".into());
    }
    assert!(others(&facts).concat().iter().all(|node| node == "n2"));
}
