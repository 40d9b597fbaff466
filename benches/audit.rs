//! The audit of one Service among many, beside what a user would run on the node: `make bench`.
//!
//! Every row is measured in one run, in one network namespace that holds the rules, each command in a
//! process of its own; for the agent's side the benchmark starts itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use std::{
    hint::black_box,
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use svcdiag::netns::{
    Netns,
    netfilter::{legacy::Legacy, rulesets::Rulesets},
};
use svcdiag::{
    kube_proxy::{ExpectedPort, Ruleset, Vantage, audit, expected},
    objects::{EndpointSlice, Service},
};
use svcdiag_sandbox::proxy::{Cluster, NodeView, ProxyMode, Script, rules};

/// Numbers of Services.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// `iptables-nft-restore` takes time by the square of what it is given at once: it gets so many lines.
const LINES_AT_ONCE: usize = 5_000;

/// Audits that are timed, and of iptables-legacy, where each takes all tables from the kernel.
const AUDITS: usize = 200;
const BLOBS: usize = 20;

/// A Service has so many endpoints.
const ENDPOINTS: usize = 3;

/// What a user would run to see one Service in the rules of a mode.
const BY_HAND: [(ProxyMode, &[&str]); 3] = [
    (
        ProxyMode::Nftables,
        &[
            "nft list table ip kube-proxy",
            "nft -j list table ip kube-proxy",
            "nft get element ip kube-proxy service-ips '{ IP . tcp . 80 }'",
        ],
    ),
    (ProxyMode::Iptables, &["iptables-nft-save -t nat | grep IP/32"]),
    (
        ProxyMode::IptablesLegacy,
        &["iptables-legacy-save -t nat | grep IP/32"],
    ),
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
        Some("agent") => agent(arguments[2].parse().unwrap(), arguments[3].parse().unwrap()),
        Some("getsockopt") => getsockopt(),
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
    for (mode, commands) in BY_HAND {
        for services in SIZES {
            let scripts = rules(mode, &cluster(services), &node());
            std::thread::scope(|scope| {
                let rows = scope.spawn(|| {
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    scripts.iter().for_each(feed);
                    rows(mode, services, commands)
                });
                for row in rows.join().unwrap() {
                    eprintln!("{}", row.join(" | "));
                    table.add_row(row);
                }
            });
        }
    }
    println!(
        "one Service of {ENDPOINTS} endpoints among many, its rules compared with what they must be:\n{table}"
    );
}

/// The rows of one set of rules, in the namespace that has them.
fn rows(mode: ProxyMode, services: usize, commands: &[&str]) -> Vec<[String; 7]> {
    let ip = cluster_ip(services / 2).to_string();
    let number = services.to_string();
    let [first, later] = *measure(&["agent", &mode.to_string(), &number]) else {
        panic!("two figures")
    };
    let ratio = |ratio: f64| format!("{ratio:.*}", usize::from(ratio < 10.0));
    let row = |what: &str, cost: Cost| {
        [
            mode.to_string(),
            services.to_string(),
            what.to_owned(),
            words(cost.time),
            ratio(cost.time.as_secs_f64() / later.time.as_secs_f64()),
            format!("{:.1} MiB", cost.mebibytes),
            format!("{:.1}", cost.mebibytes / later.mebibytes),
        ]
    };
    let mut rows = vec![
        row("audit", later),
        row("audit, the first since the rules changed", first),
    ];
    if mode == ProxyMode::IptablesLegacy {
        // The kernel's share of either side.
        let costs = measure(&["getsockopt"]);
        rows.push(row("getsockopt alone, part of all others", costs[0]));
    }
    for command in commands {
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

/// Runs a script where nothing is there yet: the wanted rules are written as they are.
fn feed(script: &Script) {
    let mut command = Command::new(script.program);
    command.args(script.args);
    if script.program.ends_with("-nft-restore") {
        pieces(&script.wanted)
            .iter()
            .for_each(|piece| give(&mut command, piece));
    } else {
        give(&mut command, &script.wanted);
    }
}

/// What `iptables-restore` reads, a part of a table at a time.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for table in lines.split(|line| *line == "COMMIT") {
        let Some((name, lines)) = table.split_first() else {
            continue;
        };
        let piece = |lines: &[&str]| format!("{name}\n{}\nCOMMIT\n", lines.join("\n"));
        pieces.extend(lines.chunks(LINES_AT_ONCE).map(piece));
    }
    pieces
}

/// Runs a command to its end with something to read.
fn give(command: &mut Command, stdin: &str) {
    let mut child = command
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
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

/// What the agent does in every round, and tells what the first takes and the median of the later ones.
fn agent(mode: ProxyMode, services: usize) {
    let rulesets = Rulesets::of(Netns::current().unwrap());
    let ports = ports(services / 2);
    let sample = || -> Box<dyn Fn() + '_> {
        match mode {
            ProxyMode::Nftables | ProxyMode::NftablesOld => {
                Box::new(|| compare_all(rulesets.nftables().unwrap().as_ref(), &ports))
            }
            ProxyMode::Iptables => Box::new(|| compare_all(rulesets.iptables().unwrap().as_ref(), &ports)),
            ProxyMode::IptablesLegacy => Box::new(|| compare_all(&Legacy::open().unwrap(), &ports)),
        }
    };
    let sample = sample();
    let begun = Instant::now();
    sample();
    let first = begun.elapsed();
    let number = if mode == ProxyMode::IptablesLegacy {
        BLOBS
    } else {
        AUDITS
    };
    let later = median(number, sample);
    let peak = peak_memory();
    tell(first, peak);
    tell(later, peak);
}

/// Takes the tables of iptables-legacy from the kernel, reads nothing in them and returns the median.
fn getsockopt() {
    let time = median(BLOBS, || {
        black_box(Legacy::open().unwrap());
    });
    tell(time, peak_memory());
}

fn median(number: usize, what: impl Fn()) -> Duration {
    let time = || {
        let begun = Instant::now();
        what();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..number).map(|_| time()).collect();
    times.sort_unstable();
    times[number / 2]
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

fn cluster(services: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for service in 0..services {
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
