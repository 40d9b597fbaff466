//! How soon a diagnosis says what is the matter, with three nodes and an agent on each: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath},
    faults::{Fault, Fixture, Recorder, Verdict, catalogue, data_path_catalogue},
    kernel::Wiring,
    proxy::ProxyMode,
    svcdiag::{Agents, Controller},
};

/// The release build: `cargo bench` builds it with the benchmark.
const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

const NAMESPACE: &str = "default";

/// Diagnoses that are made.
const DIAGNOSES: usize = 20;

/// How often a fault is made, and which: a selector; of nodes one that a single probe shows, and one that rules show three
/// seconds later; and packets that a firewall drops, on their way to the Service and to the endpoints themselves, which takes
/// two probes and names the rule.
const INJECTIONS: usize = 5;
const FAULTS: [&str; 5] = ["A08", "N06", "N09", "N37", "N16"];

/// From packets that are dropped to the rule that drops them.
const NAMED_WITHIN: &str = "8 s";

/// Rolling restarts over which the writes are counted, and how long after one there may still be any.
const ROLLOUTS: usize = 3;
const AT_REST: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let config = ClusterConfig {
        data_path: Some(DataPath {
            proxy: ProxyMode::Nftables,
            wiring: Wiring::default(),
        }),
        assets: None,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let (program, state) = (Path::new(BINARY), cluster.state_dir());
    // Faults follow one another faster here than a tenant may have agents asked.
    let arguments = ["--min-probe-interval", "0"];
    let controller = Controller::start(program, cluster.kubeconfig_path(), state, &arguments).unwrap();
    let agents = Agents::start(program, &cluster).unwrap();
    let fixture = Fixture::of(&cluster, NAMESPACE);
    fixture.set_up().await.unwrap();
    until(async || fixture.verdict().await.unwrap().works()).await;

    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["from ... to ...", "times", "median", "longest", "goal"]);
    let diagnoses = Api::namespaced(cluster.client(), NAMESPACE);
    let mut times = Vec::new();
    for number in 0..DIAGNOSES {
        times.push(new_diagnosis(&diagnoses, number).await);
    }
    table.add_row(row(
        "a new ServiceDiagnosis to Ready=True",
        times,
        "median under 1 s",
    ));
    let all = catalogue()
        .unwrap()
        .into_iter()
        .chain(data_path_catalogue().unwrap());
    for fault in all.filter(|fault| FAULTS.contains(&fault.id.as_str())) {
        let (mut found, mut fixed) = (Vec::new(), Vec::new());
        for _ in 0..INJECTIONS {
            let times = broken_and_fixed(&fixture, &fault).await;
            found.push(times.0);
            fixed.push(times.1);
        }
        let what = format!("the fault to {}: {}", fault.expected, fault.title);
        let goal = match fault.id.as_str() {
            "N37" | "N16" => NAMED_WITHIN,
            _ => "",
        };
        table.add_row(row(&what, found, goal));
        table.add_row(row(
            &format!("the fix to Ready=True: {}", fault.title),
            fixed,
            "3 s",
        ));
    }
    println!(
        "three nodes, an agent on each; agents are asked to probe again at once after a change on a node:\n{table}"
    );
    let writes = writes_over_rollouts(&fixture).await;
    println!(
        "writes of a diagnosis in each of {ROLLOUTS} rolling restarts of {} Pods: {writes:?} (goal: at most 3)",
        Fixture::ENDPOINTS
    );
    let nodes = cluster.kernel().unwrap().nodes();
    let peaks = nodes
        .iter()
        .map(|node| peak_mebibytes(agents.pid(node.name()).unwrap()));
    println!(
        "peak resident memory of an agent: {:.1} MiB",
        peaks.fold(0.0, f64::max)
    );
    agents.stop().await;
    controller.stop().await;
    cluster.stop().await;
}

async fn new_diagnosis(diagnoses: &Api<ServiceDiagnosis>, number: usize) -> Duration {
    let name = format!("fresh-{number}");
    let manifest = json!({
        "apiVersion": "svcdiag.dev/v1alpha1",
        "kind": "ServiceDiagnosis",
        "metadata": { "name": name },
        "spec": { "serviceName": Fixture::NAME },
    });
    let begun = Instant::now();
    diagnoses
        .patch(&name, &PatchParams::apply("bench"), &Patch::Apply(manifest))
        .await
        .unwrap();
    until(async || {
        let diagnosis = serde_json::to_value(diagnoses.get(&name).await.unwrap()).unwrap();
        Verdict::read(&diagnosis).works()
    })
    .await;
    let time = begun.elapsed();
    diagnoses.delete(&name, &DeleteParams::default()).await.unwrap();
    until(async || diagnoses.get_opt(&name).await.unwrap().is_none()).await;
    time
}

/// How soon a fault is found, and how soon after it is fixed all is well. Steps that only make a fix possible are
/// over when the time begins.
async fn broken_and_fixed(fixture: &Fixture, fault: &Fault) -> (Duration, Duration) {
    fault.inject(fixture).await.unwrap();
    let begun = Instant::now();
    until(async || fault.expected.is_met_by(&fixture.verdict().await.unwrap())).await;
    let found = begun.elapsed();
    fault.undo(fixture).await.unwrap();
    let begun = Instant::now();
    until(async || fixture.verdict().await.unwrap().works()).await;
    (found, begun.elapsed())
}

/// Versions of the diagnosis in each of a few rolling restarts.
async fn writes_over_rollouts(fixture: &Fixture) -> Vec<usize> {
    tokio::time::sleep(AT_REST).await;
    let recorder = Recorder::start(fixture).await.unwrap();
    let count = || recorder.counts()[Fixture::NAME];
    let mut writes = Vec::new();
    for _ in 0..ROLLOUTS {
        let before = count();
        fixture.roll_out().await.unwrap();
        tokio::time::sleep(AT_REST).await;
        writes.push(count() - before);
    }
    let not_ready = recorder.ready_other_than(&["True"]);
    assert!(not_ready.is_empty(), "{not_ready:?}");
    writes
}

async fn until(holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "it did not come about");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn peak_mebibytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes / 1024.0
}

fn row(what: &str, mut times: Vec<Duration>, goal: &str) -> [String; 5] {
    times.sort_unstable();
    let words = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    [
        what.to_owned(),
        times.len().to_string(),
        words(times[times.len() / 2]),
        words(times[times.len() - 1]),
        goal.to_owned(),
    ]
}
