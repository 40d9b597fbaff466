//! What is seen from outside: the conditions that a watch brings, the requests that the API server counts, and what the
//! system says of the controller's process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use svcdiag::{api::ServiceDiagnosis, objects::Object};
use svcdiag_sandbox::cluster::Cluster;
use tokio::task::JoinSet;

use crate::hollow::Key;

/// The last status of a diagnosis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Status, reason and message of Ready.
    pub ready: (String, String, String),
    pub has_root_cause: bool,
    /// When the watch brought it.
    pub at: Option<Instant>,
    /// How often it has changed.
    pub changes: u64,
}

/// All diagnoses, as a watch shows them.
pub(crate) struct Diagnoses {
    seen: Arc<Mutex<HashMap<Key, Seen>>>,
    _task: JoinSet<()>,
}

impl Diagnoses {
    pub(crate) fn watch(client: &Client) -> Self {
        let seen: Arc<Mutex<HashMap<Key, Seen>>> = Arc::default();
        let api = Api::<ServiceDiagnosis>::all(client.clone());
        let mut task = JoinSet::new();
        let known = seen.clone();
        task.spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(diagnosis) | Event::InitApply(diagnosis)) => note(&known, &diagnosis),
                    Ok(_) => {}
                    Err(error) => eprintln!("the watch of diagnoses: {error}"),
                }
            }
        });
        Self { seen, _task: task }
    }

    pub(crate) fn get(&self, key: &Key) -> Seen {
        self.seen.lock().get(key).cloned().unwrap_or_default()
    }

    /// How many there are with a status of Ready.
    pub(crate) fn count(&self, ready: &str) -> usize {
        self.seen
            .lock()
            .values()
            .filter(|seen| seen.ready.0 == ready)
            .count()
    }

    /// How many there are with each status and reason of Ready.
    pub(crate) fn summary(&self) -> BTreeMap<(String, String), usize> {
        let mut summary = BTreeMap::new();
        for seen in self.seen.lock().values() {
            *summary
                .entry((seen.ready.0.clone(), seen.ready.1.clone()))
                .or_default() += 1;
        }
        summary
    }

    /// Any that is not ready, in words.
    pub(crate) fn example(&self) -> Option<String> {
        let seen = self.seen.lock();
        let (key, seen) = seen.iter().find(|(_, seen)| seen.ready.0 != "True")?;
        Some(format!("{key:?}: {:?}", seen.ready))
    }
}

fn note(known: &Mutex<HashMap<Key, Seen>>, diagnosis: &ServiceDiagnosis) {
    let key = (diagnosis.namespace().to_owned(), diagnosis.name().to_owned());
    let status = diagnosis.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
    let mut known = known.lock();
    let seen = known.entry(key).or_default();
    seen.ready = ready
        .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        .unwrap_or_default();
    seen.has_root_cause = status.is_some_and(|s| s.root_cause.is_some());
    seen.at = Some(Instant::now());
    seen.changes += 1;
}

/// How often it is looked whether something is so: where one diagnosis is looked at, and where all are.
pub(crate) const FOR_ONE: Duration = Duration::from_millis(5);
pub(crate) const FOR_ALL: Duration = Duration::from_millis(100);

/// Waits until something is so.
pub(crate) async fn until(what: &str, every: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(every).await;
    }
}

/// What takes longer than this does not end at all.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Requests that the API server has counted.
#[derive(Clone)]
pub(crate) struct Requests(BTreeMap<(String, String), u64>);

impl Requests {
    pub(crate) async fn now(cluster: &Cluster) -> Self {
        Self(match cluster.embedded() {
            Some(server) => server.store().requests(),
            None => from_metrics(&cluster.client()).await,
        })
    }

    /// What has come since, without the requests of this benchmark itself.
    pub(crate) async fn since(&self, cluster: &Cluster) -> BTreeMap<(String, String), u64> {
        let Self(now) = Self::now(cluster).await;
        now.into_iter()
            .filter(|((client, _), _)| client != BENCHMARK)
            .map(|(key, n)| (key.clone(), n - self.0.get(&key).copied().unwrap_or(0)))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

/// The requests about objects in the metrics of kube-apiserver, as `VERB PLURAL.GROUP/SUBRESOURCE CODE`. They do not say who
/// has sent one: only agents apply Leases; among the others are those of the API server itself (its Lease, what is behind the
/// Service `kubernetes`). Watches are left out: they are counted when they end, this benchmark's and the API server's own too.
async fn from_metrics(client: &Client) -> BTreeMap<(String, String), u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let mut requests = BTreeMap::new();
    for line in text.lines() {
        if let Some((key, n)) = counted(line) {
            *requests.entry(key).or_default() += n;
        }
    }
    requests
}

fn counted(line: &str) -> Option<((String, String), u64)> {
    let (labels, n) = line.strip_prefix("apiserver_request_total{")?.split_once("} ")?;
    let labels: HashMap<&str, &str> = labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    let part = |separator: &str, name: &str| match labels.get(name) {
        None | Some(&"") => String::new(),
        Some(value) => format!("{separator}{value}"),
    };
    let (verb, resource) = (labels.get("verb")?, labels.get("resource")?);
    if resource.is_empty() || *verb == "WATCH" {
        return None;
    }
    let (group, subresource) = (part(".", "group"), part("/", "subresource"));
    let right = format!("{verb} {resource}{group}{subresource}{}", part(" ", "code"));
    let client = match (*verb, *resource) {
        ("APPLY", "leases") => AGENTS,
        _ => ANY,
    };
    Some(((client.to_owned(), right), n.parse::<f64>().ok()? as u64))
}

/// Writes about diagnoses.
#[derive(Clone, Copy)]
pub(crate) struct Writes {
    pub questions: u64,
    pub reports: u64,
    pub statuses: u64,
}

impl Writes {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            questions: self.questions - before.questions,
            reports: self.reports - before.reports,
            statuses: self.statuses - before.statuses,
        }
    }

    pub(crate) fn sum(self) -> u64 {
        self.questions + self.reports + self.statuses
    }
}

impl std::fmt::Display for Writes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            questions,
            reports,
            statuses,
        } = self;
        write!(
            f,
            "{questions} of NodeProbes, {reports} of reports, {statuses} of statuses"
        )
    }
}

/// Names of the clients of this process, by which requests are told apart: their User-Agent.
pub(crate) const BENCHMARK: &str = "benchmark";
pub(crate) const AGENTS: &str = "hollow-agents";

/// In place of the name where the API server does not count clients apart.
const ANY: &str = "any";

/// A client with a name.
pub(crate) async fn client(cluster: &Cluster, name: &'static str) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.default_retry = false;
    config.proxy_url = None;
    let name = http::HeaderValue::from_static(name);
    config.headers.push((http::header::USER_AGENT, name));
    Client::try_from(config).unwrap()
}

/// Who sends a request, in words.
pub(crate) fn sender(client: &str) -> &str {
    match client {
        AGENTS => "agents",
        ANY => "any client:",
        _ => "controller",
    }
}

/// A line of a process' status that is about memory, in MiB.
pub(crate) fn memory(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let kibibytes: f64 = found.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes / 1024.0
}

/// Processor time of a process.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before it may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|f| f.parse::<u64>().unwrap())
        .sum();
    // USER_HZ is 100 on every Linux that Rust runs on.
    Duration::from_millis(ticks * 10)
}

/// The processes beside the controller, by what runs in them.
pub(crate) fn others(cluster: &Cluster) -> Vec<(&'static str, u32)> {
    let own = std::process::id();
    let Some(plane) = cluster.control_plane() else {
        return vec![("agents, API server and benchmark", own)];
    };
    let [apiserver, etcd] = plane.pids().map(|pid| pid.expect("it runs"));
    vec![
        ("agents and benchmark", own),
        ("kube-apiserver", apiserver),
        ("etcd", etcd),
    ]
}

/// Processor time of each of these processes.
pub(crate) fn cpus(processes: &[(&'static str, u32)]) -> Vec<Duration> {
    processes.iter().map(|(_, pid)| cpu(*pid)).collect()
}
