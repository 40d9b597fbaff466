//! How long a verdict takes, by the number of endpoints: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "../crates/engine/tests/engine/walkthrough.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod walkthrough;

use std::{hint::black_box, time::Instant};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::json;
use svcdiag::engine::{Facts, diagnose};
use walkthrough::{NS, app, healthy, owned, pod, policy, slice};

/// The walk-through with so many Pods, and 50 NetworkPolicies of which a tenth select them.
fn facts(endpoints: usize) -> Facts {
    let mut facts = healthy();
    facts.pods.drain(..3);
    let mut pods = Vec::new();
    for i in 0..endpoints {
        let mut pod = pod(
            &format!("hostnames-{i}"),
            &format!("n{}", i % 50),
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

fn main() {
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["endpoints", "policies", "microseconds", "per endpoint"]);
    for endpoints in [3, 100, 1000] {
        let facts = facts(endpoints);
        let rounds = 200_000 / (endpoints + 200);
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..rounds {
                black_box(diagnose(black_box(&facts)));
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e6 / rounds as f64);
        }
        table.add_row([
            endpoints.to_string(),
            facts.policies.len().to_string(),
            format!("{best:.1}"),
            format!("{:.2}", best / endpoints as f64),
        ]);
    }
    println!("diagnose, best of 5:\n{table}");
}
