//! What the agent of a node costs at rest: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "../tests/node/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod namespace;
#[path = "../tests/node/pocket.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod pocket;

use std::time::Instant;

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use pocket::{NAMESPACE, Pocket, Same};
use svcdiag::agent::round::{Memory, look};

/// Rounds that are measured.
const ROUNDS: u32 = 100;

/// NodeProbes of the node, and the seconds between the rounds of each.
const NODE_PROBES: f64 = 100.0;
const INTERVAL: f64 = 60.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let pocket = Pocket::new();
    let (node, spec, subject, memory) = (
        pocket.as_node(),
        pocket.spec(),
        pocket.subject(),
        Memory::default(),
    );
    let source = Same(subject.clone());
    let mut dials = 0;
    // The first round does what later ones need not.
    look(&node, NAMESPACE, &spec, &subject, &source, &memory).await;
    let (begun, used) = (Instant::now(), cpu_seconds());
    for _ in 0..ROUNDS {
        let facts = look(&node, NAMESPACE, &spec, &subject, &source, &memory).await;
        assert_eq!((facts.probes_failed, facts.problems.len()), (0, 0), "{facts:#?}");
        dials += facts.probes_made;
    }
    let per_round = (cpu_seconds() - used) / f64::from(ROUNDS);
    let elapsed = begun.elapsed().as_secs_f64() / f64::from(ROUNDS);
    let share = per_round * NODE_PROBES / INTERVAL * 100.0;
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["figure", "measured", "goal"])
        .add_row(["dials counted in a round", &(dials / ROUNDS).to_string(), ""])
        .add_row(["a round takes", &format!("{:.1} ms", elapsed * 1e3), ""])
        .add_row(["CPU time of a round", &format!("{:.2} ms", per_round * 1e3), ""])
        .add_row(["share of a core", &format!("{share:.2} %"), "under 1 %"]);
    println!(
        "agent with {NODE_PROBES} NodeProbes every {INTERVAL} s, each a healthy Service with 3 endpoints and 2 clients:\n{table}"
    );
}

/// Of this process, its DNS server included; the Pods are processes of their own.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}
