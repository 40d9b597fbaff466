//! Saved rules of a big cluster, read and audited, beside `grep` over the same file: `make bench`.
//!
//! Every row is measured in one run, each in a process of its own that reads the file from the page cache;
//! for what is not `grep` the benchmark starts itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    hint::black_box,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use svcdiag::{
    formats::rules::iptables_save::IptablesSave,
    kube_proxy::{ExpectedPort, IpFamily, Ruleset, Vantage, audit, expected},
    objects::{EndpointSlice, Service},
};
use svcdiag_sandbox::proxy::{Cluster, NodeView, ProxyMode, rules};

const SERVICES: usize = 10_000;

/// A Service has so many endpoints.
const ENDPOINTS: usize = 3;

/// Each row is the median of so many runs.
const RUNS: usize = 15;

/// With more endpoints than this kube-proxy leaves its comments off, which makes the rules shorter.
const WITH_COMMENTS: usize = 300;

/// What something took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Without the start of the process that measures.
    time: Duration,
    /// With it, as `grep`'s time is with that of `grep`.
    wall: Duration,
    mebibytes: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("audit") => audit_file(&arguments[2], arguments[3].parse().unwrap()),
        Some("by-hand") => by_hand(&arguments[2]),
        // `cargo test --benches` builds it only.
        _ if !arguments.iter().any(|a| a == "--bench") => {}
        _ => compare(),
    }
}

fn compare() {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "file",
        "what",
        "time",
        "ratio",
        "MB/s",
        "peak memory",
        "of the file",
    ]);
    let directory = tempfile::tempdir().unwrap();
    for (what, batch) in [("with comments", WITH_COMMENTS), ("without", SERVICES)] {
        let path = directory.path().join(format!("{batch}.txt"));
        std::fs::write(&path, saved(batch)).unwrap();
        for row in rows(what, &path) {
            eprintln!("{}", row.join(" | "));
            table.add_row(row);
        }
    }
    println!("saved rules of {SERVICES} Services of {ENDPOINTS} endpoints:\n{table}");
}

/// The rows of one file.
fn rows(what: &str, path: &Path) -> Vec<[String; 7]> {
    let bytes = std::fs::metadata(path).unwrap().len() as f64;
    let file = path.to_str().unwrap();
    let grep = format!("grep {} {file}", cluster_ip(SERVICES / 2));
    let all = SERVICES.to_string();
    let [by_grep, read, one, all] = measure([
        &["by-hand", &grep],
        &["audit", file, "0"],
        &["audit", file, "1"],
        &["audit", file, &all],
    ]);
    let row = |label: &str, cost: Cost| {
        let seconds = cost.time.as_secs_f64();
        [
            format!("{:.1} MB {what}", bytes / 1e6),
            label.to_owned(),
            format!("{:.1} ms", seconds * 1e3),
            format!("{:.1}", seconds / by_grep.time.as_secs_f64()),
            format!("{:.0}", bytes / 1e6 / seconds),
            format!("{:.1} MiB", cost.mebibytes),
            format!("{:.2}", cost.mebibytes * 1024.0 * 1024.0 / bytes),
        ]
    };
    vec![
        row("`grep` for one ClusterIP", by_grep),
        row("read, find the chains", whole(read)),
        row("and audit one Service", whole(one)),
        row(
            &format!("and audit all {SERVICES}; memory with what they need"),
            all,
        ),
    ]
}

/// With the start of the process, for a fair comparison with another one.
fn whole(cost: Cost) -> Cost {
    Cost {
        time: cost.wall,
        ..cost
    }
}

/// Starts the benchmark anew, for figures of processes of their own: the median times of some runs. They
/// take turns, so that whatever else the machine does slows all of them down.
fn measure<const N: usize>(arguments: [&[&str]; N]) -> [Cost; N] {
    let mut costs = [const { Vec::new() }; N];
    for _ in 0..RUNS {
        for (costs, arguments) in costs.iter_mut().zip(arguments) {
            costs.push(run(arguments));
        }
    }
    costs.map(|mut costs| {
        costs.sort_unstable_by_key(|cost| cost.wall);
        costs[RUNS / 2]
    })
}

fn run(arguments: &[&str]) -> Cost {
    let begun = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let wall = begun.elapsed();
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (seconds, mebibytes) = text.trim().split_once(' ').unwrap();
    let own = Duration::from_secs_f64(seconds.parse().unwrap());
    assert!(own <= wall);
    Cost {
        time: own,
        wall,
        mebibytes: mebibytes.parse().unwrap(),
    }
}

fn tell(time: Duration, kibibytes: i64) {
    println!("{} {}", time.as_secs_f64(), kibibytes as f64 / 1024.0);
}

/// Runs a command of a user, and tells what it took.
fn by_hand(command: &str) {
    let mut words = command.split(' ');
    let begun = Instant::now();
    let status = Command::new(words.next().unwrap())
        .args(words)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let time = begun.elapsed();
    assert!(status.success(), "{command}");
    tell(time, getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss());
}

/// Reads a file and audits so many Services; tells what it took.
fn audit_file(path: &str, services: usize) {
    let middle = SERVICES / 2;
    let ports: Vec<ExpectedPort> = (0..services)
        .flat_map(|service| ports((middle + service) % SERVICES))
        .collect();
    let begun = Instant::now();
    let text = std::fs::read_to_string(path).unwrap();
    let rules = IptablesSave::parse(text, IpFamily::V4).unwrap();
    assert!(rules.is_whole(IpFamily::V4));
    compare_all(&rules, &ports);
    let time = begun.elapsed();
    tell(time, peak_memory());
}

/// Of this process. Its rusage would count what it was before it became the benchmark.
fn peak_memory() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn compare_all(rules: &dyn Ruleset, ports: &[ExpectedPort]) {
    for port in ports {
        let gaps = black_box(audit(rules, port).unwrap());
        assert!(gaps.is_empty(), "{gaps:?}");
    }
}

/// What `iptables-save` would write, of rules rendered for so many Services at a time: chains declared
/// first, then the rules of one chain after the other.
fn saved(batch: usize) -> String {
    let mut tables: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for first in (0..SERVICES).step_by(batch) {
        let cluster = cluster(first..(first + batch).min(SERVICES));
        let scripts = rules(ProxyMode::Iptables, &cluster, &node());
        let mut table = "";
        for line in scripts.iter().flat_map(|script| script.wanted.lines()) {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            }
            let chains = tables.entry(table.to_owned()).or_default();
            if let Some(declared) = line.strip_prefix(':') {
                chains
                    .entry(declared.split(' ').next().unwrap().to_owned())
                    .or_default();
            }
            let rule = line.strip_prefix("-A ").or_else(|| line.strip_prefix("-I "));
            if let Some((chain, rule)) = rule.and_then(|rule| rule.split_once(' ')) {
                let line = format!("-A {chain} {rule}");
                // What is for all Services is rendered with each batch.
                if seen.insert(format!("{table} {line}")) {
                    chains.entry(chain.to_owned()).or_default().push(line);
                }
            }
        }
    }
    let mut text = String::new();
    for (table, chains) in &tables {
        writeln!(text, "# Generated by iptables-save v1.8.9 (nf_tables)\n*{table}").unwrap();
        for chain in chains.keys() {
            writeln!(text, ":{chain} - [0:0]").unwrap();
        }
        for line in chains.values().flatten() {
            writeln!(text, "{line}").unwrap();
        }
        writeln!(text, "COMMIT\n# Completed").unwrap();
    }
    text
}

/// What a node has to hold for a Service.
fn ports(service: usize) -> Vec<ExpectedPort> {
    let [object, slice] = objects(service);
    let object: Service = serde_json::from_value(object).unwrap();
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    let vantage = Vantage {
        node: NODE,
        zone: None,
    };
    let ports = expected(&object, &[&slice], vantage);
    assert_eq!(ports.len(), 1);
    ports
}

const NODE: &str = "n1";

fn node() -> NodeView {
    NodeView {
        name: NODE.to_owned(),
        ips: vec![[192, 0, 2, 1].into()],
        pod_cidrs: vec!["10.244.0.0/14".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        ..NodeView::default()
    }
}

fn cluster(services: std::ops::Range<usize>) -> Cluster {
    let mut cluster = Cluster::default();
    for service in services {
        let [object, slice] = objects(service);
        cluster.services.push(serde_json::from_value(object).unwrap());
        cluster.slices.push(serde_json::from_value(slice).unwrap());
    }
    cluster
}

/// The ClusterIP of a Service.
fn cluster_ip(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0100 + u32::try_from(service).unwrap())
}

/// A Service and its EndpointSlice.
fn objects(service: usize) -> [serde_json::Value; 2] {
    let name = format!("svc-{service}");
    let ip = cluster_ip(service).to_string();
    let first = 0x0af4_0000 + service * ENDPOINTS;
    let endpoints: Vec<_> = (first..first + ENDPOINTS)
        .map(|ip| Ipv4Addr::from(u32::try_from(ip).unwrap()).to_string())
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true }, "nodeName": NODE }))
        .collect();
    [
        json!({
            "metadata": { "name": name, "namespace": "scale" },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ip,
                "clusterIPs": [ip],
                "ports": [{ "port": 80, "targetPort": 9376, "protocol": "TCP" }],
            },
        }),
        json!({
            "metadata": {
                "name": name,
                "namespace": "scale",
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "", "port": 9376, "protocol": "TCP" }],
        }),
    ]
}
