//! How long a verdict takes, by the number of endpoints: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "../crates/engine/tests/engine/agents/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod agents;
#[path = "../crates/engine/tests/engine/walkthrough.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod walkthrough;

use std::{hint::black_box, time::Instant};

use agents::{agent, endpoints, everywhere, look};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::json;
use svcdiag::{
    api::{Answer, DialFailure, DialPath},
    engine::{Facts, diagnose},
};
use walkthrough::{NS, app, healthy, owned, patch, pod, policy, slice};

/// Nodes that the Pods are on, each with an agent where there are agents.
const NODES: usize = 50;

/// Failed dials that a report carries at most (`MAX_FAILURES` of the agent).
const FAILURES: usize = 32;

/// Batches of which the median is taken, and about how many endpoints are judged in each.
const BATCHES: usize = 21;
const BATCH: usize = 20_000;

/// The walk-through with so many Pods, and 50 NetworkPolicies of which a tenth select them.
fn facts(endpoints: usize) -> Facts {
    let mut facts = healthy();
    facts.pods.drain(..3);
    let mut pods = Vec::new();
    for i in 0..endpoints {
        let mut pod = pod(
            &format!("hostnames-{i}"),
            &format!("n{}", i % NODES),
            &format!("10.244.{}.{}", i / 250, i % 250 + 1),
            app(),
        );
        owned(std::sync::Arc::make_mut(&mut pod), "uid-rs");
        pods.push(pod);
    }
    // The endpoints controller puts at most 100 endpoints into a slice.
    facts.slices = pods
        .chunks(100)
        .map(|chunk| {
            slice(
                "hostnames",
                chunk,
                json!({ "name": "default", "port": 9376, "protocol": "TCP" }),
            )
        })
        .collect();
    facts.pods.extend(pods);
    for i in 0..50 {
        let selector = if i % 10 == 0 {
            json!({ "app": "hostnames" })
        } else {
            json!({ "app": format!("other-{i}") })
        };
        let rule = json!({ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }], "ports": [{ "port": 9376 }] });
        policy(
            &mut facts,
            &format!("p{i}"),
            json!({ "podSelector": { "matchLabels": selector }, "ingress": [rule] }),
        );
    }
    assert_eq!(facts.namespace, NS);
    facts
}

/// The same with an agent on every node, each of which saw it work.
fn with_agents(endpoints: usize) -> Facts {
    let mut facts = facts(endpoints);
    facts.nodes = (0..NODES).map(|i| agent(&format!("n{i}"))).collect();
    patch(&mut facts.spec, json!({ "nodes": { "maxNodes": NODES } }));
    look(&mut facts);
    facts
}

/// The same where every report is full of failed dials: the largest Facts that agents can lead to.
fn with_failures(count: usize) -> Facts {
    let mut facts = with_agents(count);
    let targets = endpoints(&facts);
    everywhere(&mut facts, |seen| {
        let dials = seen.dials.clone();
        let failures = targets.iter().zip(dials.iter().cycle()).take(FAILURES);
        seen.failures = failures
            .map(|((address, _, _), dial)| DialFailure {
                from: dial.from.clone(),
                path: dial.path,
                port: dial.port,
                target: match dial.path {
                    DialPath::Endpoint => address.clone(),
                    DialPath::Service | DialPath::NodePort => agents::VIP.to_owned(),
                },
                endpoint: Some(address.clone()),
                same_node: dial.same_node,
                same_bridge: false,
                answer: Answer::TimedOut,
                detail: None,
            })
            .collect();
        for dial in &mut seen.dials {
            dial.failed = dial.made;
        }
    });
    facts
}

/// Makes facts with so many endpoints.
type Build = fn(usize) -> Facts;

/// The median time of a diagnosis in microseconds.
fn median(facts: &Facts, rounds: usize) -> f64 {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..rounds {
                black_box(diagnose(black_box(facts)));
            }
            start.elapsed().as_secs_f64() * 1e6 / rounds as f64
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

fn main() {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "endpoints",
        "agents",
        "reports",
        "microseconds",
        "per endpoint",
    ]);
    let kinds: [(&str, Build); 3] = [
        ("none", facts),
        ("all is well", with_agents),
        ("all dials fail", with_failures),
    ];
    for (reports, facts) in kinds {
        for endpoints in [3, 100, 1000] {
            let facts = facts(endpoints);
            let micros = median(&facts, (BATCH / (endpoints + 200)).max(1));
            table.add_row([
                endpoints.to_string(),
                facts.nodes.len().to_string(),
                reports.to_owned(),
                format!("{micros:.1}"),
                format!("{:.2}", micros / endpoints as f64),
            ]);
        }
    }
    println!("diagnose with 50 NetworkPolicies, median of {BATCHES}:\n{table}");
}
