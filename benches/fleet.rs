//! The controller with a large cluster: 5,000 diagnoses, 1,000 nodes with an agent each, 15,000 Pods: `make bench`.
//!
//! The controller is the real one, a process. The agents are hollow: tasks of this process that write what agents write and
//! find all well ([`hollow`]). The API server is the stand-in, in this process too, so all share the machine's cores.
//! `SVCDIAG_FLEET=500` measures with so many diagnoses, and a fifth as many nodes.
//!
//! With `KUBEBUILDER_ASSETS` it is the real etcd and kube-apiserver, with 1,000 diagnoses. All objects go through the API then
//! ([`create`]), and requests are those that the API server's own metrics count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "fleet/answers.rs"]
mod answers;
#[path = "fleet/cluster.rs"]
mod cluster;
#[path = "fleet/create.rs"]
mod create;
#[path = "fleet/hollow.rs"]
mod hollow;
#[path = "fleet/measure.rs"]
mod measure;
#[path = "scale/population.rs"]
mod population;
#[path = "fleet/rotation.rs"]
mod rotation;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    svcdiag::Controller,
};
use svcdiag_testing_apiserver::Store;

use hollow::{Changes, Fleet, Key};
use measure::{
    AGENTS, BENCHMARK, Diagnoses, FOR_ALL, FOR_ONE, Requests, Writes, client, cpu, cpus, memory, others,
    until,
};

/// The release build: `cargo bench` builds it with the benchmark.
const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

/// Environment variable with the number of diagnoses, and the number without it, with the stand-in and the real API server.
const SIZE: &str = "SVCDIAG_FLEET";
const DIAGNOSES: usize = 5_000;
const DIAGNOSES_ON_REAL: usize = 1_000;

/// Diagnoses for each node.
const FOR_EACH_NODE: usize = 5;

/// Seconds between the rounds of each diagnosis: the default.
const INTERVAL: u64 = 60;

/// How long is watched what happens at rest, and after a node has failed.
const AT_REST: Duration = Duration::from_secs(120);
const AFTER_A_FAILURE: Duration = Duration::from_secs(90);

/// Rollouts at the same time, and changes of other Services that are timed meanwhile.
const ROLLOUTS: usize = 50;
const CHANGES: usize = 200;

/// Changes that take longer are told one by one.
const SLOW: Duration = Duration::from_millis(500);

/// No further change is timed after this: where an API server is not up to the rollouts, each takes many seconds.
const ENOUGH: Duration = Duration::from_secs(240);

/// Services that break when the leader ends, evenly spread.
const BROKEN: usize = 100;

/// What is measured, and with what.
struct Bench {
    cluster: Cluster,
    client: Client,
    fleet: Fleet,
    diagnoses: Diagnoses,
    /// Those with Pods on the node that has failed.
    failed: HashSet<Key>,
    /// How many diagnoses and nodes there are.
    size: (usize, usize),
    table: Table,
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut bench = Bench::start().await;
    let before = Requests::now(&bench.cluster).await;
    let controller = bench.cold_start().await;
    bench.rest(&controller).await;
    bench.hour().await;
    bench.failure().await;
    bench.changes().await;
    bench.new_leader(controller).await;
    bench.errors(&before).await;
    let (services, nodes) = bench.size;
    let on = bench
        .cluster
        .control_plane()
        .map_or("", |_| ", on etcd and kube-apiserver");
    println!(
        "{services} diagnoses of {services} Services with {} Pods, {nodes} nodes with a hollow agent each, rounds every {INTERVAL} s{on}:\n{}",
        services * population::PODS,
        bench.table
    );
    bench.cluster.stop().await;
}

impl Bench {
    async fn start() -> Self {
        let config = ClusterConfig {
            controllers: false,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::start(config).await.unwrap();
        let default = cluster.embedded().map_or(DIAGNOSES_ON_REAL, |_| DIAGNOSES);
        let services = std::env::var(SIZE).map_or(default, |n| n.parse().expect("a number of diagnoses"));
        let nodes = services / FOR_EACH_NODE;
        let client = client(&cluster, BENCHMARK).await;
        let node_of = |service, pod| cluster::node_of(service, pod, nodes);
        let objects = cluster::objects(nodes).chain(population::objects(services, node_of));
        match cluster.embedded() {
            Some(server) => population::put(&server.store(), objects),
            None => create::all(&client, objects).await,
        }
        population::create_diagnoses(&client, services, INTERVAL).await;
        let agents = measure::client(&cluster, AGENTS).await;
        let fleet = Fleet::start(&agents, (0..nodes).map(cluster::node).collect()).await;
        let diagnoses = Diagnoses::watch(&client);
        let mut table = Table::new();
        table
            .load_style(ASCII_MARKDOWN)
            .set_header(["figure", "measured", "goal"]);
        Self {
            cluster,
            client,
            fleet,
            diagnoses,
            failed: HashSet::new(),
            size: (services, nodes),
            table,
        }
    }

    fn row(&mut self, figure: &str, measured: String, goal: &str) {
        eprintln!("{figure}: {measured}");
        self.table.add_row([figure.to_owned(), measured, goal.to_owned()]);
    }

    /// The store of the stand-in.
    fn store(&self) -> Option<Arc<Store>> {
        self.cluster
            .embedded()
            .map(svcdiag_testing_apiserver::ApiServer::store)
    }

    /// Starts a controller that takes part in the election, with its log in a directory of its own.
    fn controller(&self, name: &str) -> Controller {
        let directory: PathBuf = self.cluster.state_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let kubeconfig = self.cluster.kubeconfig_path();
        Controller::start(Path::new(BINARY), kubeconfig, &directory, &["--leader-elect"]).unwrap()
    }

    /// From the start of a controller, with all agents there and nothing asked of them yet.
    async fn cold_start(&mut self) -> Controller {
        let services = self.size.0;
        let others = others(&self.cluster);
        let (start, before) = (Instant::now(), cpus(&others));
        let controller = self.controller("first");
        let pid = controller.pid().unwrap();
        let mut told = Instant::now();
        let mut judged = None;
        until("every diagnosis is Ready", FOR_ALL, || {
            let open = self.diagnoses.count("");
            if open == 0 && self.diagnoses.count("True") + self.diagnoses.count("Unknown") == services {
                judged.get_or_insert(start.elapsed());
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                eprintln!(
                    "{:.0} s: {:?}, NodeProbes and answers {:?}, {:.0} MiB, {:.1} s of processor time; {:?}",
                    start.elapsed().as_secs_f64(),
                    self.diagnoses.summary(),
                    self.fleet.probes(),
                    memory(pid, "VmRSS:"),
                    cpu(pid).as_secs_f64(),
                    self.diagnoses.example()
                );
            }
            self.diagnoses.count("True") == services
        })
        .await;
        let all = start.elapsed();
        let mut names = vec!["controller"];
        let mut used = vec![format!("{:.1} s", cpu(pid).as_secs_f64())];
        for ((who, pid), before) in others.iter().zip(before) {
            names.push(who);
            used.push(format!("{:.1} s", (cpu(*pid) - before).as_secs_f64()));
        }
        let (probes, _) = self.fleet.probes();
        let first = judged.unwrap_or(all).as_secs_f64();
        self.row(
            "cold start until every diagnosis has conditions",
            format!("{first:.1} s"),
            "",
        );
        let goal = "under 60 s";
        self.row(
            "cold start until every verdict is there (Ready=True)",
            format!("{:.1} s", all.as_secs_f64()),
            goal,
        );
        self.row(
            "NodeProbes written for that, and answered",
            probes.to_string(),
            "",
        );
        let figure = format!("processor time for that: {}", names.join("; "));
        self.row(&figure, used.join("; "), "");
        controller
    }

    /// Waits until nothing is written any more that is not a Lease, or long enough.
    async fn calm(&self) {
        for _ in 0..30 {
            let before = Requests::now(&self.cluster).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let since = before.since(&self.cluster).await;
            let others = since
                .into_iter()
                .filter(|((_, right), _)| !right.contains("leases"));
            let per_second = others.map(|(_, n)| n).sum::<u64>() as f64 / 5.0;
            // The sample of nodes moves on all the time.
            if per_second < 15.0 * self.size.0 as f64 / DIAGNOSES as f64 + 0.5 {
                break;
            }
        }
    }

    async fn rest(&mut self, controller: &Controller) {
        self.calm().await;
        let pid = controller.pid().unwrap();
        let processes = [vec![("controller", pid)], others(&self.cluster)].concat();
        let (before, used) = (Requests::now(&self.cluster).await, cpus(&processes));
        tokio::time::sleep(AT_REST).await;
        let all = cpus(&processes);
        let sent = before.since(&self.cluster).await;
        let rate = |n: u64| n as f64 / AT_REST.as_secs_f64();
        let of = |is_wanted: &dyn Fn(&str, &str) -> bool| {
            let wanted = sent
                .iter()
                .filter(|((client, right), _)| is_wanted(client, right));
            rate(wanted.map(|(_, n)| n).sum())
        };
        let renewals = of(&|client, right| client == AGENTS && right.contains("leases"));
        self.row(
            "at rest: renewals of the agents' Leases",
            format!("{renewals:.1} a second"),
            "at most 40 a second",
        );
        for ((client, right), n) in &sent {
            if client != AGENTS || !right.contains("leases") {
                let figure = format!("at rest: {} {right}", measure::sender(client));
                self.row(&figure, format!("{:.2} a second", rate(*n)), "");
            }
        }
        for (n, (who, _)) in processes.iter().enumerate() {
            let share = (all[n] - used[n]).as_secs_f64() / AT_REST.as_secs_f64() * 100.0;
            let goal = if n == 0 { "under 5 %" } else { "" };
            self.row(&format!("{who} at rest"), format!("{share:.1} % of a core"), goal);
        }
        for (what, line) in [("present", "VmRSS:"), ("peak", "VmHWM:")] {
            let measured = format!("{:.0} MiB", memory(pid, line));
            self.row(
                &format!("controller's {what} resident memory"),
                measured,
                "under 300 MiB",
            );
        }
    }

    /// What the rotation of the sample writes in an hour: computed, since nobody waits for it here.
    async fn hour(&mut self) {
        let moves = rotation::an_hour(&self.client).await;
        let rate = |moved: f64| format!("{:.1} a second", moved * rotation::WRITES as f64 / 60.0);
        let average = moves.iter().sum::<usize>() as f64 / moves.len() as f64;
        let most = *moves.iter().max().unwrap() as f64;
        self.row(
            "rotation, computed from the plan for an hour: writes, average",
            rate(average),
            "",
        );
        self.row(
            "rotation, computed: writes in its busiest minute",
            rate(most),
            "at most 10 a second",
        );
    }

    /// Breaks a Service's selector, or fixes it.
    async fn change(&self, (namespace, name): &Key, is_broken: bool) {
        let app = if is_broken { "typo" } else { name.as_str() };
        let services = Api::<Service>::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({ "spec": { "selector": { "app": app } } }));
        services
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// From the moment that a client sends a change of a Service to the moment that a watch brings the changed condition,
    /// every time of another Service, while others are rolled out.
    async fn changes(&mut self) {
        let services = self.size.0;
        let mut rollouts = tokio::task::JoinSet::new();
        let every = services / ROLLOUTS;
        for n in 0..ROLLOUTS {
            rollouts.spawn(cluster::roll_out(self.store(), self.client.clone(), n * every));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Beside those that are rolled out, and all over the cluster.
        let is_free = |n: &usize| !n.is_multiple_of(every) && !self.failed.contains(&population::key(*n));
        let others: Vec<usize> = (0..services).filter(is_free).collect();
        let mut times = Vec::new();
        let first = Instant::now();
        for n in 0..CHANGES {
            if n % 2 == 0 && n > 0 && first.elapsed() > ENOUGH {
                break;
            }
            let key = population::key(others[n / 2 * others.len() / (CHANGES / 2)]);
            let is_broken = n % 2 == 0;
            let start = Instant::now();
            self.change(&key, is_broken).await;
            let what = format!("{key:?} is broken: {is_broken}");
            until(&what, FOR_ONE, || {
                self.diagnoses.get(&key).has_root_cause == is_broken
            })
            .await;
            times.push(start.elapsed());
            if start.elapsed() > SLOW {
                eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f64());
            }
        }
        let unwell: Vec<String> = (0..ROLLOUTS)
            .map(|n| self.diagnoses.get(&population::key(n * every)).ready)
            .filter(|ready| ready.0 == "False")
            .map(|ready| ready.2)
            .collect();
        eprintln!("rolled out and False: {unwell:?}");
        rollouts.shutdown().await;
        times.sort_unstable();
        let at = |share: usize| {
            let time = times[(times.len() * share).div_ceil(100) - 1];
            let of = match times.len() {
                CHANGES => String::new(),
                fewer => format!(" ({fewer} changes only)"),
            };
            format!("{:.0} ms{of}", time.as_secs_f64() * 1e3)
        };
        let (median, p99) = (at(50), at(99));
        let figure = |p: &str| format!("{ROLLOUTS} rollouts: Service change to changed condition, {p}");
        self.row(&figure("median"), median, "");
        self.row(&figure("p99"), p99, "under 1 s");
    }

    /// How often anything about these diagnoses has been written.
    fn writes(&self, of: &[&Key]) -> Writes {
        let changes = self.fleet.changes();
        let asked: Vec<Changes> = of.iter().filter_map(|key| changes.get(*key).copied()).collect();
        Writes {
            questions: asked.iter().map(|changes| changes.questions).sum(),
            reports: asked.iter().map(|changes| changes.reports).sum(),
            statuses: of.iter().map(|key| self.diagnoses.get(key).changes).sum(),
        }
    }

    /// A node falls silent. Its agent stops, and a moment later the cluster says that the node is not ready.
    async fn failure(&mut self) {
        self.calm().await;
        let (services, nodes) = self.size;
        let asked = self.fleet.asked();
        let concerned = |node: &String| {
            let on = cluster::services_on(node, services, nodes);
            let asked = asked.get(node).cloned().unwrap_or_default();
            asked.into_iter().chain(on).collect::<HashSet<Key>>()
        };
        // The worst that there is, but without cluster DNS, which concerns everybody.
        let all = (2..nodes).map(cluster::node).map(|node| (concerned(&node), node));
        let (concerned, node) = all.max_by_key(|(concerned, _)| concerned.len()).unwrap();
        let on = cluster::services_on(&node, services, nodes);
        let (near, far): (Vec<&Key>, Vec<&Key>) = concerned.iter().partition(|key| on.contains(key));
        let before = (self.writes(&near), self.writes(&far));
        self.fleet.stop(&node);
        let start = Instant::now();
        cluster::fail_node(self.store().as_deref(), &self.client, &node, services, nodes).await;
        let written = start.elapsed();
        until("the failure is reported", FOR_ALL, || {
            on.iter().all(|key| self.diagnoses.get(key).ready.0 != "True")
        })
        .await;
        let reported = start.elapsed();
        eprintln!("for example {:?}", self.diagnoses.get(&on[0]).ready);
        eprintln!("the cluster said so within {written:?}");
        tokio::time::sleep(AFTER_A_FAILURE.saturating_sub(start.elapsed())).await;
        let with_pods = self.writes(&near).since(before.0);
        let others = self.writes(&far).since(before.1);
        self.failed.extend(on.iter().cloned());
        let figure = format!(
            "node fails: from its Node being marked not ready until no longer Ready=True, of the {} diagnoses with Pods there",
            on.len()
        );
        self.row(&figure, format!("{:.1} s", reported.as_secs_f64()), "under 15 s");
        let figure = format!(
            "node fails: writes about the {} diagnoses with Pods, clients or dials there, within {} s",
            concerned.len(),
            AFTER_A_FAILURE.as_secs()
        );
        let measured = format!(
            "{} (with Pods there: {with_pods}; others: {others})",
            with_pods.sum() + others.sum()
        );
        self.row(&figure, measured, "under 300");
        eprintln!("{:?}", self.diagnoses.summary());
    }

    /// Requests that were answered with an error, those of rollouts that were cut off among them; the stand-in does not count
    /// answers.
    async fn errors(&mut self, before: &Requests) {
        for ((_, right), n) in before.since(&self.cluster).await {
            let code = right.rsplit(' ').next().and_then(|code| code.parse::<u16>().ok());
            if code.is_some_and(|code| code >= 400) {
                self.row(&format!("answered with an error: {right}"), n.to_string(), "");
            }
        }
    }

    /// Kills the leader while another controller stands by, and breaks Services that nobody has seen broken.
    async fn new_leader(&mut self, leader: Controller) {
        self.calm().await;
        let second = self.controller("second");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let number = BROKEN.min(self.size.0 / 2);
        let every = self.size.0 / number;
        let start = Instant::now();
        leader.kill().await;
        // Not those that were rolled out last.
        let keys = (0..number).map(|n| population::key(n * every + 1));
        let broken: Vec<Key> = keys.filter(|key| !self.failed.contains(key)).collect();
        for key in &broken {
            self.change(key, true).await;
        }
        until("the new leader has seen all", FOR_ALL, || {
            broken.iter().all(|key| self.diagnoses.get(key).has_root_cause)
        })
        .await;
        let figure = format!(
            "leader killed: until the other has judged all ({} Services that broke meanwhile)",
            broken.len()
        );
        self.row(
            &figure,
            format!("{:.1} s", start.elapsed().as_secs_f64()),
            "under 30 s",
        );
        let failures = self.fleet.failures();
        eprintln!("reports that were written again: {failures}");
        second.stop().await;
    }
}
