//! What the agent of a node costs at rest: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "../tests/node/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod namespace;
#[path = "../tests/node/test_cluster.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod test_cluster;

use std::time::{Duration, Instant};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use svcdiag::{
    agent::round::{Memory, probe},
    api::NodeFacts,
};
use test_cluster::{DNS_THREAD, NAMESPACE, Same, TestCluster};

/// NodeProbes of the node, and the time between the rounds of each. So much is measured: one round of each.
const NODE_PROBES: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let cluster = TestCluster::new();
    let (node, spec) = (cluster.as_node(), cluster.spec());
    let source = Same(spec.clone());
    let memories: Vec<Memory> = (0..NODE_PROBES).map(|_| Memory::default()).collect();
    let round = async |memory: &Memory| -> NodeFacts {
        let facts = probe(&node, NAMESPACE, &spec, &source, memory).await;
        assert_eq!((facts.probes_failed, facts.problems.len()), (0, 0), "{facts:#?}");
        facts
    };
    // The first round of each does what later ones need not.
    for memory in &memories {
        round(memory).await;
    }
    let (begun, used) = (Instant::now(), cpu_seconds());
    let (mut dials, mut busy) = (0, Duration::ZERO);
    // They come one after the other, as on a node where each has its own moment of the minute.
    for (number, memory) in (0..NODE_PROBES).zip(&memories) {
        let due = begun + INTERVAL / NODE_PROBES * number;
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
        let start = Instant::now();
        dials += round(memory).await.probes_made;
        busy += start.elapsed();
    }
    tokio::time::sleep(INTERVAL.saturating_sub(begun.elapsed())).await;
    let cpu = cpu_seconds() - used;
    let milliseconds = |seconds: f64| format!("{:.2} ms", seconds * 1e3 / f64::from(NODE_PROBES));
    let share = cpu / begun.elapsed().as_secs_f64() * 100.0;
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["figure", "measured", "goal"])
        .add_row(["dials counted in a round", &(dials / NODE_PROBES).to_string(), ""])
        .add_row(["a round takes", &milliseconds(busy.as_secs_f64()), ""])
        .add_row(["CPU time of a round", &milliseconds(cpu), ""])
        .add_row(["share of a core", &format!("{share:.2} %"), "under 1 %"])
        .add_row([
            "peak resident memory",
            &format!("{:.1} MiB", peak_mebibytes()),
            "",
        ]);
    println!(
        "agent with {NODE_PROBES} NodeProbes every {} s, each a healthy Service with 3 endpoints and 2 clients:\n{table}",
        INTERVAL.as_secs()
    );
}

fn peak_mebibytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes / 1024.0
}

/// Of this process without its DNS server; the Pods are processes of their own.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let all: f64 = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum();
    all - dns_seconds()
}

/// The first number of schedstat is the time on a CPU in nanoseconds (the kernel's Documentation/scheduler/sched-stats.rst).
fn dns_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_dns = |task: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.trim() == DNS_THREAD
    };
    let task = tasks.into_iter().find(is_dns).unwrap();
    let times = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
    let nanoseconds: f64 = times.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}
