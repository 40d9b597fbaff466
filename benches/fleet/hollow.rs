//! Node agents without nodes, all in this process: each renews its Lease and answers its NodeProbes as an agent does, and
//! finds all well.
//!
//! The requests are those of the real agent ([`Cluster`]). What differs: one watch serves all of them, where 1,000 agents
//! have a watch each; and a round is a pause, since there is nothing to dial.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use svcdiag::{
    agent::cluster::{Cluster, LEASE_RENEWAL},
    api::NodeProbe,
    objects::Object,
};
use tokio::task::JoinSet;

use crate::answers;

/// Where the agents have their Leases.
const NAMESPACE: &str = "svcdiag-system";

/// How long a round takes if all is well.
const ROUND: Duration = Duration::from_millis(100);

/// Pause after a report that could not be written, as the agent has it.
const RETRY: Duration = Duration::from_secs(2);

/// Namespace and name of a diagnosis.
pub(crate) type Key = (String, String);

/// How often NodeProbes were written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// By the controller.
    pub questions: u64,
    /// By agents.
    pub reports: u64,
}

/// The hollow agents. They stop when this is dropped.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    agents: HashMap<String, Cluster>,
    stopped: Mutex<HashSet<String>>,
    /// The NodeProbes, by UID.
    probes: Mutex<HashMap<String, Arc<NodeProbe>>>,
    /// Changes of NodeProbes that were seen, by diagnosis.
    changes: Mutex<HashMap<Key, Changes>>,
    /// Reports that could not be written at the first attempt.
    failures: AtomicU64,
}

impl Fleet {
    /// An agent for each of these nodes, whose Leases are all there when this returns.
    pub(crate) async fn start(client: &Client, nodes: Vec<String>) -> Self {
        let agents = nodes
            .into_iter()
            .map(|node| (node.clone(), Cluster::new(client.clone(), node)));
        let shared = Arc::new(Shared {
            agents: agents.collect(),
            stopped: Mutex::default(),
            probes: Mutex::default(),
            changes: Mutex::default(),
            failures: AtomicU64::new(0),
        });
        futures::stream::iter(shared.agents.values())
            .for_each_concurrent(16, |agent| async { renew(agent).await })
            .await;
        let mut tasks = JoinSet::new();
        for (n, node) in shared.agents.keys().enumerate() {
            // Agents that were not started together do not renew together.
            let first = LEASE_RENEWAL.mul_f64(n as f64 / shared.agents.len() as f64);
            tasks.spawn(keep_alive(shared.clone(), node.clone(), first));
        }
        tasks.spawn(follow(Api::all(client.clone()), shared.clone()));
        Self {
            shared,
            _tasks: tasks,
        }
    }

    /// Stops the agent of a node: it renews and reports no more.
    pub(crate) fn stop(&self, node: &str) {
        self.shared.stopped.lock().insert(node.to_owned());
    }

    /// How many NodeProbes there are, and how many of them have been answered.
    pub(crate) fn probes(&self) -> (usize, usize) {
        let probes = self.shared.probes.lock();
        let is_answered = |probe: &&Arc<NodeProbe>| {
            let status = probe.status.as_ref();
            status.is_some_and(|s| s.observed_generation == probe.metadata.generation)
        };
        (probes.len(), probes.values().filter(is_answered).count())
    }

    /// The diagnoses that ask each node.
    pub(crate) fn asked(&self) -> HashMap<String, HashSet<Key>> {
        let mut asked: HashMap<String, HashSet<Key>> = HashMap::new();
        for probe in self.shared.probes.lock().values() {
            let of = asked.entry(probe.spec.node_name.clone()).or_default();
            of.insert(key(probe));
        }
        asked
    }

    /// Changes of NodeProbes since the start, by diagnosis.
    pub(crate) fn changes(&self) -> HashMap<Key, Changes> {
        self.shared.changes.lock().clone()
    }

    /// Reports that had to be written again.
    pub(crate) fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }
}

fn key(probe: &NodeProbe) -> Key {
    (probe.namespace().to_owned(), probe.spec.diagnosis.name.clone())
}

fn uid(probe: &NodeProbe) -> String {
    probe.metadata.uid.clone().unwrap()
}

async fn renew(agent: &Cluster) {
    if let Err(error) = agent.renew_lease(NAMESPACE, Timestamp::now()).await {
        eprintln!("{error}");
    }
}

async fn keep_alive(shared: Arc<Shared>, node: String, first: Duration) {
    tokio::time::sleep(first).await;
    while !shared.stopped.lock().contains(&node) {
        renew(&shared.agents[&node]).await;
        tokio::time::sleep(LEASE_RENEWAL).await;
    }
}

/// Passes each NodeProbe to the agent of its node.
async fn follow(api: Api<NodeProbe>, shared: Arc<Shared>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut rounds = JoinSet::new();
    while let Some(event) = events.next().await {
        while rounds.try_join_next().is_some() {}
        match event {
            Ok(Event::Apply(probe) | Event::InitApply(probe)) => {
                let probe = Arc::new(probe);
                let before = shared.probes.lock().insert(uid(&probe), probe.clone());
                let generation = probe.metadata.generation;
                let mut changes = shared.changes.lock();
                let changes = changes.entry(key(&probe)).or_default();
                // An agent reacts to a new generation only.
                if before.is_none_or(|before| before.metadata.generation != generation) {
                    changes.questions += 1;
                    rounds.spawn(round(shared.clone(), uid(&probe), generation));
                } else {
                    changes.reports += 1;
                }
            }
            Ok(Event::Delete(probe)) => {
                shared.changes.lock().entry(key(&probe)).or_default().questions += 1;
                shared.probes.lock().remove(&uid(&probe));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => eprintln!("the watch of the hollow agents: {error}"),
        }
    }
}

/// Answers a generation of a NodeProbe, unless another one has come meanwhile.
async fn round(shared: Arc<Shared>, uid: String, generation: Option<i64>) {
    let mut pause = ROUND;
    loop {
        tokio::time::sleep(pause).await;
        let probe = shared.probes.lock().get(&uid).cloned();
        let Some(probe) = probe.filter(|p| p.metadata.generation == generation) else {
            return;
        };
        let node = &probe.spec.node_name;
        let Some(agent) = shared
            .agents
            .get(node)
            .filter(|_| !shared.stopped.lock().contains(node))
        else {
            return;
        };
        let facts = answers::all_is_well(probe.namespace(), &probe.spec);
        match agent.report(&probe, &facts, Timestamp::now()).await {
            Ok(()) => return,
            Err(error) => {
                if shared.failures.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("{error}");
                }
                pause = RETRY;
            }
        }
    }
}
