//! The audit of one Service among many, beside what a user would run on the node: `make bench`.
//!
//! Every row is measured in one run, in one network namespace that holds the rules, each command in a
//! process of its own; for the agent's side the benchmark starts itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "audit/rules.rs"]
mod generated;

use std::{
    hint::black_box,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use svcdiag::{
    agent::{
        netfilter::{legacy::Legacy, rulesets::Rulesets},
        netns::Netns,
    },
    objects::{EndpointSlice, Service},
    proxy::{ExpectedPort, Ruleset, Vantage, audit, expected},
};

/// Numbers of Services.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// Audits that are timed.
const AUDITS: usize = 200;

/// How a set of rules is written, and what a user would run to see one Service in it.
struct Mode {
    name: &'static str,
    rules: fn(usize) -> String,
    load: &'static [&'static str],
    by_hand: &'static [&'static str],
}

const MODES: [Mode; 3] = [
    Mode {
        name: "nftables",
        rules: generated::nftables,
        load: &["nft", "-f", "-"],
        by_hand: &[
            "nft list table ip kube-proxy",
            "nft -j list table ip kube-proxy",
            "nft get element ip kube-proxy service-ips '{ IP . tcp . 80 }'",
        ],
    },
    Mode {
        name: "iptables-nft",
        rules: generated::iptables,
        load: &["iptables-nft-restore"],
        by_hand: &["iptables-nft-save -t nat | grep IP/32"],
    },
    Mode {
        name: "iptables-legacy",
        rules: generated::iptables,
        load: &["iptables-legacy-restore"],
        by_hand: &["iptables-legacy-save -t nat | grep IP/32"],
    },
];

/// What something took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    time: Duration,
    mebibytes: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("agent") => agent(&arguments[2], arguments[3].parse().unwrap()),
        Some("by-hand") => by_hand(&arguments[2]),
        // `cargo test --benches` builds it only.
        _ if !arguments.iter().any(|a| a == "--bench") => {}
        _ => compare(),
    }
}

fn compare() {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "rules",
        "Services",
        "what",
        "time",
        "ratio",
        "peak memory",
        "ratio",
    ]);
    for mode in &MODES {
        for services in SIZES {
            let rules = (mode.rules)(services);
            std::thread::scope(|scope| {
                let rows = scope.spawn(|| {
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    feed(mode.load, &rules);
                    rows(mode, services)
                });
                for row in rows.join().unwrap() {
                    table.add_row(row);
                }
            });
            eprintln!("{} with {services} Services: done", mode.name);
        }
    }
    println!("one Service of 3 endpoints among many, its rules compared with what they must be:\n{table}");
}

/// The rows of one set of rules, in the namespace that has them.
fn rows(mode: &Mode, services: usize) -> Vec<[String; 7]> {
    let ip = generated::cluster_ip(services / 2).to_string();
    let number = services.to_string();
    let [first, later] = *measure(&["agent", mode.name, &number]) else {
        panic!("two figures")
    };
    let row = |what: &str, cost: Cost| {
        [
            mode.name.to_owned(),
            services.to_string(),
            what.to_owned(),
            words(cost.time),
            format!("{:.0}", cost.time.as_secs_f64() / later.time.as_secs_f64()),
            format!("{:.1} MiB", cost.mebibytes),
            format!("{:.1}", cost.mebibytes / later.mebibytes),
        ]
    };
    let mut rows = vec![
        row("audit", later),
        row("audit, the first since the rules changed", first),
    ];
    for command in mode.by_hand {
        let costs = measure(&["by-hand", &command.replace("IP", &ip)]);
        rows.push(row(command, costs[0]));
    }
    rows
}

fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.1 {
        format!("{:.3} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn feed(command: &[&str], input: &str) {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

/// Starts the benchmark anew in the namespace of the calling thread, for figures of a process of its own.
fn measure(arguments: &[&str]) -> Box<[Cost]> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let cost = |line: &str| {
        let (seconds, mebibytes) = line.split_once(' ').unwrap();
        Cost {
            time: Duration::from_secs_f64(seconds.parse().unwrap()),
            mebibytes: mebibytes.parse().unwrap(),
        }
    };
    text.lines().map(cost).collect()
}

fn tell(time: Duration, kibibytes: i64) {
    println!("{} {}", time.as_secs_f64(), kibibytes as f64 / 1024.0);
}

/// Runs a command of a user, and tells what it and its children took.
fn by_hand(command: &str) {
    let begun = Instant::now();
    let status = Command::new("sh")
        .args(["-c", command])
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let time = begun.elapsed();
    assert!(status.success(), "{command}");
    tell(time, getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss());
}

/// What the agent does in every round, and tells what the first and the later ones take.
fn agent(mode: &str, services: usize) {
    let rulesets = Rulesets::of(Netns::current().unwrap());
    let ports = ports(services / 2);
    let look = || -> Box<dyn Fn() + '_> {
        match mode {
            "nftables" => Box::new(|| compare_all(rulesets.nftables().unwrap().as_ref(), &ports)),
            "iptables-nft" => Box::new(|| compare_all(rulesets.iptables().unwrap().as_ref(), &ports)),
            _ => Box::new(|| compare_all(&Legacy::open().unwrap(), &ports)),
        }
    };
    let look = look();
    let begun = Instant::now();
    look();
    let first = begun.elapsed();
    let number = if mode == "iptables-legacy" { 10 } else { AUDITS };
    let begun = Instant::now();
    for _ in 0..number {
        look();
    }
    let later = begun.elapsed() / u32::try_from(number).unwrap();
    let peak = peak_memory();
    tell(first, peak);
    tell(later, peak);
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

/// What a node has to hold for a Service.
fn ports(service: usize) -> Vec<ExpectedPort> {
    let name = format!("svc-{service}");
    let ip = generated::cluster_ip(service).to_string();
    let endpoints: Vec<_> = generated::endpoints(service)
        .iter()
        .map(|e| json!({ "addresses": [e.ip().to_string()], "conditions": { "ready": true } }))
        .collect();
    let object: Service = serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "scale" },
        "spec": { "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{ "port": 80, "targetPort": 9376 }] },
    }))
    .unwrap();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "scale", "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "", "port": 9376, "protocol": "TCP" }],
    }))
    .unwrap();
    let vantage = Vantage {
        node: "n1",
        zone: None,
    };
    let ports = expected(&object, &[&slice], vantage);
    assert_eq!(ports.len(), 1);
    ports
}
