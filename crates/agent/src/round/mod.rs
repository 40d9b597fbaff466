//! One round: all probes for one NodeProbe, in parallel.
//!
//! Each kind of probe is one file. A failure is confirmed by a second probe before it is reported, which begins at least
//! three seconds after the first and is judged by the NodeProbe as it is then. What could not be probed becomes a problem,
//! never a failure.

mod accept_queues;
mod attempts;
mod departures;
mod dials;
mod dns_clients;
mod dns_servers;
mod endpoints;
mod hairpin;
mod kube_proxy;
mod lookups;
mod loss_counters;
mod losses;
mod mesh_interception;
mod neighbours;
mod node_ports;
mod other_node_ports;
mod path_mtu;
mod repeat;
mod rules;
mod service;
mod stale_conntrack;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OnceCell;

use super::{
    blocking::{Pool, blocking},
    budget::Budget,
    kubeproxy,
    pods::{self, Census},
    settings,
};
use svcdiag_api::{DialPath, NodeFacts, NodeProbeSpec, OtherNodePort, PortProtocol, ProbePod, SliceVersion};
use svcdiag_drops::Paths;
use svcdiag_engine::asked::Subject;
use svcdiag_kube_proxy::{ProxyMode, Vantage};
use svcdiag_netns::{
    Netns, links,
    netfilter::{conntrack::Conntrack, rulesets::Rulesets},
    rootfs::CLibraries,
};
use svcdiag_objects::Endpoint;

/// A failure counts only if a second probe fails as well, which begins at least this much later than the first.
const CONFIRM_AFTER: Duration = Duration::from_secs(3);

/// Maximum entries of a list in a NodeProbe.
const MAX_FAILURES: usize = 32;
const MAX_PROBLEMS: usize = 16;

/// The node, and what the rounds of its NodeProbes share.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Dials of all probes together.
    pub dials: Budget,
    /// Its rules.
    pub rulesets: Rulesets,
    /// The processes of its Pods.
    census: Arc<Census>,
    /// Its kube-proxy.
    kube_proxy: kubeproxy::Watch,
    /// The C libraries of its clients.
    c_libraries: Arc<CLibraries>,
    /// Its conntrack, once it was opened.
    conntrack: Mutex<Option<Arc<Conntrack>>>,
    /// Who watches what it drops.
    watches: Arc<watch::Watches>,
    /// Paths to other nodes on which packets of full size have just arrived.
    full_size_paths: Mutex<path_mtu::Shared>,
}

impl Node {
    /// A node about which nothing is known yet.
    #[must_use]
    pub fn new(name: impl Into<String>, netns: Netns, dials: Budget) -> Self {
        Self {
            name: name.into(),
            rulesets: Rulesets::of(netns.clone()),
            netns,
            dials,
            census: Arc::default(),
            kube_proxy: kubeproxy::Watch::default(),
            c_libraries: Arc::default(),
            conntrack: Mutex::default(),
            watches: Arc::default(),
            full_size_paths: Mutex::default(),
        }
    }

    /// A node whose kernel describes its types in another file than usual, or in none.
    #[must_use]
    pub fn with_kernel_types(self, file: PathBuf) -> Self {
        let paths = Paths {
            btf: file,
            ..Paths::default()
        };
        Self {
            watches: Arc::new(watch::Watches::with(paths)),
            ..self
        }
    }

    /// Whether the agent itself reaches the API server, to which kube-proxy is compared.
    #[must_use]
    pub fn reached(&self) -> &kubeproxy::Reached {
        self.kube_proxy.reached()
    }

    fn conntrack(&self) -> std::io::Result<Arc<Conntrack>> {
        let mut known = self.conntrack.lock();
        if let Some(conntrack) = known.as_ref() {
            return Ok(conntrack.clone());
        }
        let conntrack = Arc::new(self.netns.run(Conntrack::open)?);
        *known = Some(conntrack.clone());
        Ok(conntrack)
    }
}

/// Source of the current subject.
pub trait Source: Send + Sync {
    /// The subject of the NodeProbe, as it is now.
    fn latest(&self) -> Subject;
}

/// State of a NodeProbe that is kept between rounds.
#[derive(Debug, Default)]
pub struct Memory {
    /// The revision of the last round.
    revision: Mutex<Option<String>>,
    /// Conntrack entries that may be stale.
    suspects: Mutex<stale_conntrack::Suspects>,
    /// Start of the window of endpoints.
    window: Mutex<usize>,
    /// Results of Pods' dials to themselves.
    hairpins: Mutex<hairpin::Known>,
    /// What was lost at times.
    losses: Mutex<losses::History>,
    /// On which paths packets of full size arrive.
    path_mtu: Mutex<path_mtu::Known>,
    /// What was asked to be watched of clients on other nodes.
    arrivals: watch::arrivals::Known,
    /// What left the node of the dials that were repeated.
    left: watch::leaving::Known,
    /// Node ports of other nodes that were closed.
    closed_node_ports: Mutex<Vec<OtherNodePort>>,
    /// The Pods that were intercepted, for which NodeProbe, and when.
    intercepted: Mutex<Option<(String, Instant, Vec<String>)>>,
}

impl Memory {
    fn hairpins(&self) -> MutexGuard<'_, hairpin::Known> {
        self.hairpins.lock()
    }
}

/// A client Pod, or an endpoint's Pod, on the node.
struct LocalPod<'a> {
    pod: &'a ProbePod,
    /// As namespace/name.
    key: String,
    netns: Netns,
    pids: Vec<i32>,
}

/// An endpoint that receives traffic.
#[derive(Clone, Debug, PartialEq)]
struct Ready {
    address: SocketAddr,
    /// The Service port.
    port: PortProtocol,
    /// Whether it is on this node; None if it is on no known node.
    same_node: Option<bool>,
}

/// What all probes of a round share.
struct Round<'a> {
    node: &'a Node,
    spec: &'a NodeProbeSpec,
    namespace: &'a str,
    subject: Subject,
    source: &'a dyn Source,
    clients: Vec<LocalPod<'a>>,
    endpoints: Vec<LocalPod<'a>>,
    /// The node's conntrack; None if it cannot be queried.
    conntrack: Option<Arc<Conntrack>>,
    /// The EndpointSlices that were last compared with.
    versions: Mutex<Vec<SliceVersion>>,
    /// The node's addresses, once they were needed.
    addresses: OnceCell<Vec<IpAddr>>,
    /// Packets that were dropped.
    seen: watch::Seen,
    /// Packets that were sent again.
    tries: losses::Tries,
    problems: Mutex<Vec<String>>,
}

/// Runs all probes of a NodeProbe. `source` returns the current subject before a second probe.
pub async fn probe(
    node: &Node,
    namespace: &str,
    spec: &NodeProbeSpec,
    source: &dyn Source,
    memory: &Memory,
) -> NodeFacts {
    let mut round = Round::of(node, namespace, spec, source);
    round.conntrack = node
        .conntrack()
        .inspect_err(|error| round.problem(format!("Conntrack entries could not be queried: {error}.")))
        .ok();
    round.find_pods().await;
    let drops_before = settings::reverse_path_drops(&node.netns).ok();
    let has_losses = memory.losses.lock().has_losses();
    let counters_before = match has_losses {
        true => Some(round.loss_counters().await),
        false => None,
    };
    // A failed dial through the Service proves nothing until kube-proxy has had time to write its rules.
    let through = async {
        let rules = async {
            let kube_proxy = kube_proxy::probe(&round, memory).await;
            let mode = kube_proxy.mode.as_deref().and_then(ProxyMode::parse);
            let rules = rules::probe(&round, mode.as_ref()).await;
            (kube_proxy, rules)
        };
        let rules = rules.shared();
        let service = async {
            let (first, _) = tokio::join!(service::first_probe(&round), rules.clone());
            service::probe(&round, first).await
        };
        let hairpins = async {
            rules.clone().await;
            hairpin::probe(&round, memory).await
        };
        let dials = tokio::join!(service, hairpins);
        let (kube_proxy, rules) = rules.await;
        (kube_proxy, rules, dials)
    };
    let ((kube_proxy, rules, (service, hairpins)), direct, names, other_node_ports, packet_sizes) = tokio::join!(
        through,
        endpoints::probe(&round, memory),
        lookups::probe(&round),
        other_node_ports::probe(&round, memory),
        path_mtu::probe(&round, memory)
    );
    let is_all_well = direct.failures.is_empty() && service.failures.is_empty();
    let listeners = endpoints::listeners(&round, &direct.failures).await;
    let mut facts = NodeFacts {
        listeners,
        kube_proxy: Some(kube_proxy),
        rules,
        other_node_ports,
        packet_sizes,
        intercepted: mesh_interception::probe(&round, memory, is_all_well).await,
        stale_connections: stale_conntrack::probe(&round, memory),
        hairpins,
        ..NodeFacts::default()
    };
    (facts.resolvers, facts.dns_servers) = names;
    for tally in [direct, service] {
        facts.dials.extend(tally.counts);
        facts.failures.extend(tally.failures);
    }
    round.forget_vanished(&mut facts);
    facts.dials = dials::by_worth(facts.dials);
    facts.probes_made = facts.dials.iter().map(|d| d.made).sum();
    facts.probes_failed = facts.dials.iter().map(|d| d.failed).sum();
    // Some failures of each path are kept, so that many of one do not hide the other.
    facts.failures = mixed(facts.failures);
    (facts.departures, facts.wrong_neighbours) = tokio::join!(
        departures::probe(&round, &facts.failures),
        neighbours::probe(&round, &facts.failures)
    );
    // Every node drops some packets; this matters only if there is a failure.
    facts.settings = round.settings(drops_before.filter(|_| facts.probes_failed > 0));
    // The links to other nodes matter only if some packets did not arrive.
    if facts.probes_failed > 0 {
        let found = node.netns.run(links::tunnels);
        let problem = |error: &std::io::Error| {
            round.problem(format!("The node's network links could not be listed: {error}."))
        };
        facts.tunnels = found.inspect_err(problem).ok();
        facts.settings.dead_ends = settings::dead_ends(&node.rulesets);
    }
    let window = round.rises_since(counters_before).await;
    facts.losses = losses::over_rounds(&round, memory, &window);
    watch::arrivals::probe(&round, &memory.arrivals, &mut facts).await;
    facts.repeated.clone_from(&spec.repeat);
    facts.left = memory.left.get();
    facts.drops = round.seen.of_failures(&facts);
    facts.slices = round.versions.into_inner();
    facts.problems = round.problems.into_inner();
    facts.problems.sort();
    facts.problems.dedup();
    facts.problems.truncate(MAX_PROBLEMS);
    facts
}

/// Watches what arrives from other nodes, and repeats dials that are watched there, for a NodeProbe that these facts answer
/// already. None where they no longer do, so that a round is due.
pub async fn look_again(
    node: &Node,
    namespace: &str,
    spec: &NodeProbeSpec,
    source: &dyn Source,
    memory: &Memory,
    mut facts: NodeFacts,
) -> Option<NodeFacts> {
    let mut round = Round::of(node, namespace, spec, source);
    round.find_pods().await;
    watch::arrivals::probe(&round, &memory.arrivals, &mut facts).await;
    if spec.repeat != facts.repeated {
        let left = repeat::still_lost(&round, &facts).await?;
        memory.left.set(left);
        facts.left = memory.left.get();
        facts.repeated.clone_from(&spec.repeat);
    }
    let known = facts.problems.iter().cloned();
    let problems: BTreeSet<String> = known.chain(round.problems.into_inner()).collect();
    facts.problems = problems.into_iter().take(MAX_PROBLEMS).collect();
    Some(facts)
}

fn mixed(failures: Vec<svcdiag_api::DialFailure>) -> Vec<svcdiag_api::DialFailure> {
    let (mut direct, mut through): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|f| f.path == DialPath::Endpoint);
    let spare = MAX_FAILURES.saturating_sub(through.len()).max(MAX_FAILURES / 2);
    direct.truncate(spare);
    through.truncate(MAX_FAILURES - direct.len());
    direct.extend(through);
    direct
}

impl<'a> Round<'a> {
    fn of(node: &'a Node, namespace: &'a str, spec: &'a NodeProbeSpec, source: &'a dyn Source) -> Self {
        let subject = Subject::of(spec);
        Self {
            node,
            spec,
            namespace,
            versions: Mutex::new(subject.versions.clone()),
            subject,
            source,
            clients: Vec::new(),
            endpoints: Vec::new(),
            conntrack: None,
            addresses: OnceCell::new(),
            seen: watch::Seen::default(),
            tries: losses::Tries::default(),
            problems: Mutex::default(),
        }
    }

    /// Finds the network namespaces of the Pods; Pods without one here become problems.
    async fn find_pods(&mut self) {
        let wanted = self.spec.clients.iter().chain(&self.spec.endpoints);
        let uids: Vec<String> = wanted.map(|pod| pod.uid.clone()).collect();
        let census = self.node.census.clone();
        let listed = blocking(Pool::Node, move || census.of(&uids)).await.flatten();
        let processes = match listed {
            Ok(processes) => processes,
            Err(error) => {
                self.problem(format!("The node's processes could not be listed: {error}."));
                HashMap::new()
            }
        };
        self.clients = self.local(&self.spec.clients, &processes).await;
        self.endpoints = self.local(&self.spec.endpoints, &processes).await;
    }

    async fn local(&self, pods: &'a [ProbePod], processes: &HashMap<String, Vec<i32>>) -> Vec<LocalPod<'a>> {
        let mut found = Vec::new();
        for pod in pods {
            let pids = processes.get(&pod.uid).cloned().unwrap_or_default();
            match self.namespace_of(pod, &pids).await {
                Ok(netns) => found.push(LocalPod {
                    pod,
                    key: format!("{}/{}", pod.namespace, pod.name),
                    netns,
                    pids,
                }),
                Err(error) => self.problem(format!(
                    "Pod {}/{} was skipped: {error}.",
                    pod.namespace, pod.name
                )),
            }
        }
        found
    }

    async fn namespace_of(&self, pod: &ProbePod, pids: &[i32]) -> Result<Netns, pods::Error> {
        if pod.host_network {
            return Ok(self.node.netns.clone());
        }
        let ips: Vec<IpAddr> = pod.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        pods::network_namespace(&pod.uid, pids, &ips).await
    }

    fn problem(&self, what: String) {
        let mut problems = self.problems.lock();
        problems.push(what);
    }

    fn vantage(&self) -> Vantage<'_> {
        Vantage {
            node: &self.node.name,
            zone: self.subject.zone.as_deref(),
        }
    }

    fn settings(&self, drops_before: Option<u64>) -> svcdiag_api::NodeSettings {
        let mut read = settings::read(&self.node.netns, &self.node.rulesets).unwrap_or_default();
        read.reverse_path_drops = drops_before.and_then(|before| {
            let after = settings::reverse_path_drops(&self.node.netns).ok()?;
            Some(after > before)
        });
        read
    }

    /// Results of a client that has terminated meanwhile say nothing about the Service.
    fn forget_vanished(&self, facts: &mut NodeFacts) {
        let runs = |client: &LocalPod<'_>| {
            let is_there = |pid| client.netns.has_process(pid);
            client.pod.host_network || client.pids.iter().copied().any(is_there)
        };
        for client in self.clients.iter().filter(|client| !runs(client)) {
            let is_its = |from: &Option<String>| from.as_ref() == Some(&client.key);
            facts.dials.retain(|dials| !is_its(&dials.from));
            facts.failures.retain(|failure| !is_its(&failure.from));
            facts.resolvers.retain(|resolver| resolver.pod != client.key);
            facts.packet_sizes.retain(|size| size.from != client.key);
            facts.departures.retain(|departure| !is_its(&departure.from));
            facts
                .wrong_neighbours
                .retain(|neighbour| !is_its(&neighbour.from));
            self.problem(format!("Pod {} terminated during the round.", client.key));
        }
    }

    /// The current subject, for a second probe.
    fn read_again(&self) -> Subject {
        let subject = self.source.latest();
        (*self.versions.lock()).clone_from(&subject.versions);
        subject
    }

    /// Whether a Service port is to be probed.
    fn is_asked(&self, port: &svcdiag_objects::ServicePort) -> bool {
        self.spec.ports.is_empty() || self.spec.ports.iter().any(|wanted| port.is_named_by(wanted))
    }
}

/// The endpoints of the requested ports that receive traffic.
fn ready(round: &Round<'_>, subject: &Subject) -> Vec<Ready> {
    let mut all = Vec::new();
    for port in subject.service.spec.ports.iter().filter(|p| round.is_asked(p)) {
        let Some(asked) = port.port_protocol() else {
            continue;
        };
        for slice in &subject.slices {
            let number = slice
                .ports
                .iter()
                .find(|p| p.name() == port.name() && p.protocol == port.protocol)
                .and_then(|p| u16::try_from(p.port?).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().filter(|e| e.is_ready()) {
                let Some(ip) = address(endpoint) else { continue };
                all.push(Ready {
                    address: SocketAddr::new(ip, number),
                    port: asked,
                    same_node: endpoint.node_name.as_ref().map(|node| *node == round.node.name),
                });
            }
        }
    }
    all.sort_by_key(|ready| (ready.port, ready.address));
    all.dedup();
    all
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}
