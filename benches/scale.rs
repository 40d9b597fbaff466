//! The controller with 2,000 diagnoses, and one check beside the commands it replaces: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "scale/population.rs"]
mod population;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use futures::StreamExt;
use kube::{
    Client,
    api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::json;
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    kubectl::Kubectl,
    svcdiag::Controller,
};

/// The release build: `cargo bench` builds it with the benchmark.
const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

const DIAGNOSES: usize = 2_000;

/// Pause between the rounds of each diagnosis, in seconds: the smallest that the API takes.
const INTERVAL: u64 = 10;

/// Changes of a Service that are timed.
const CHANGES: usize = 200;

/// Runs of a command that are timed.
const RUNS: usize = 10;

#[tokio::main]
async fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let config = ClusterConfig {
        assets: None,
        controllers: false,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let server = cluster.embedded().unwrap();
    let objects = population::objects(DIAGNOSES, |_, pod| format!("sandbox-{pod}"));
    population::put(&server.store(), objects);
    population::create_diagnoses(&cluster.client(), DIAGNOSES, INTERVAL).await;

    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["figure", "measured", "goal"]);
    let start = Instant::now();
    let controller = Controller::start(
        Path::new(BINARY),
        cluster.kubeconfig_path(),
        cluster.state_dir(),
        &[],
    )
    .unwrap();
    let writes = || server.store().writes("servicediagnoses", "svcdiag-controller");
    while writes() < DIAGNOSES as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "not all have conditions"
        );
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_all_judged(&cluster.client()).await;
    table.add_row([
        "from the start until all have conditions".to_owned(),
        format!("{seconds:.2} s"),
        String::new(),
    ]);

    let before = writes();
    tokio::time::sleep(Duration::from_secs(2 * INTERVAL + INTERVAL / 5 + 1)).await;
    table.add_row([
        "status writes over two intervals at rest".to_owned(),
        (writes() - before).to_string(),
        "0".to_owned(),
    ]);

    let mut times = changes(&cluster.client()).await;
    times.sort_unstable();
    let at = |share: usize| {
        let milliseconds = times[(times.len() * share).div_ceil(100) - 1].as_secs_f64() * 1e3;
        format!("{milliseconds:.1} ms")
    };
    let row = |p: &str, value, goal: &str| {
        [
            format!("Service change to changed condition, {p}"),
            value,
            goal.to_owned(),
        ]
    };
    table.add_row(row("median", at(50), ""));
    table.add_row(row("p99", at(99), "under 1 s"));
    for (what, line, goal) in [("peak", "VmHWM:", "under 100 MiB"), ("present", "VmRSS:", "")] {
        table.add_row([
            format!("controller's {what} resident memory"),
            format!("{:.1} MiB", memory(controller.pid().unwrap(), line)),
            goal.to_owned(),
        ]);
    }
    println!(
        "controller with {DIAGNOSES} diagnoses, {DIAGNOSES} Services, {} Pods, rounds every {INTERVAL} s:\n{table}",
        DIAGNOSES * population::PODS
    );
    controller.stop().await;
    check_beside_kubectl(&cluster).await;
    cluster.stop().await;
}

async fn assert_all_judged(client: &Client) {
    let all = Api::<ServiceDiagnosis>::all(client.clone());
    let list = all.list(&ListParams::default()).await.unwrap();
    let judged = |d: &&ServiceDiagnosis| {
        let conditions = d.status.iter().flat_map(|s| &s.conditions);
        conditions
            .filter(|c| c.type_ == "EndpointsPopulated" && c.status == "True")
            .count()
            == 1
    };
    assert_eq!(list.items.iter().filter(judged).count(), DIAGNOSES);
}

/// From the moment that a client sends a change of a Service to the moment that a watch brings the
/// changed condition: a selector broken and fixed in turn, every time of another Service.
async fn changes(client: &Client) -> Vec<Duration> {
    let all = Api::<ServiceDiagnosis>::all(client.clone());
    let version = all.list(&ListParams::default().limit(1)).await.unwrap();
    let version = version.metadata.resource_version.unwrap();
    let stream = all
        .watch(&WatchParams::default().timeout(290), &version)
        .await
        .unwrap();
    let mut stream = std::pin::pin!(stream);
    let mut times = Vec::new();
    for i in 0..CHANGES {
        let (namespace, name) = population::key(i / 2 * 19);
        let broken = i % 2 == 0;
        let app = if broken { "typo" } else { name.as_str() };
        let services = Api::<k8s_openapi::api::core::v1::Service>::namespaced(client.clone(), &namespace);
        let patch = json!({ "spec": { "selector": { "app": app } } });
        let start = Instant::now();
        services
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        loop {
            let Some(Ok(WatchEvent::Modified(seen))) = stream.next().await else {
                panic!("the watch has ended");
            };
            let root_cause = seen.status.is_some_and(|s| s.root_cause.is_some());
            if seen.metadata.name.as_deref() == Some(&name) && root_cause == broken {
                break;
            }
        }
        times.push(start.elapsed());
    }
    times
}

/// A line of a process' status that is about memory, in MiB.
fn memory(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let kibibytes: f64 = found.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes / 1024.0
}

/// What the page has one type for the questions that the API answers.
async fn check_beside_kubectl(cluster: &Cluster) {
    let kubectl = Kubectl::find()
        .await
        .unwrap()
        .with_kubeconfig(cluster.kubeconfig_path());
    let (namespace, name) = population::key(0);
    let label = format!("app={name}");
    let slices = format!("kubernetes.io/service-name={name}");
    let by_hand: [&[&str]; 5] = [
        &["get", "service", &name, "-o", "json"],
        &["get", "pods", "-l", &label, "-o", "wide"],
        &["get", "endpointslices", "-l", &slices, "-o", "yaml"],
        &["describe", "deployment", &name],
        &["get", "networkpolicies", "-o", "yaml"],
    ];
    let arguments = ["check", &name, "-n", &namespace, "--api-only"];
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    for _ in 0..RUNS {
        let start = Instant::now();
        let output = tokio::process::Command::new(BINARY)
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig_path())
            .output();
        assert!(output.await.unwrap().status.success());
        ours = ours.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for command in by_hand {
            let all = [&["-n", &namespace], command].concat();
            kubectl.run(&all).await.unwrap();
        }
        theirs = theirs.min(start.elapsed().as_secs_f64());
    }
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["what", "milliseconds", "ratio"])
        .add_row([
            "svcdiag check".to_owned(),
            format!("{:.1}", ours * 1e3),
            "1".to_owned(),
        ])
        .add_row([
            format!("{} kubectl commands that read the same", by_hand.len()),
            format!("{:.1}", theirs * 1e3),
            format!("{:.1}", theirs / ours),
        ]);
    println!("one Service with faultless objects, best of {RUNS}:\n{table}");
}
