//! What the agents are asked: from Facts to one NodeProbe for each chosen node. Pure, like the verdict.

pub(crate) mod approval;
mod arrivals;
mod full_size_paths;
pub(crate) mod other_nodes;
mod sample;
mod subject;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::{
    Facts, NodeReport,
    clients::{Clients, Role},
    facts::is_well,
    policies::effects,
    time::later,
};
use svcdiag_api::{DiagnosisRef, NodeProbeSpec, ProbePod, ProbeService};
use svcdiag_objects::{LabelSelector, NetworkPolicy, Object, Pod, STATIC_POD_HASH, STATIC_POD_MIRROR};

/// Nodes with endpoints that are always looked at.
const NODES_WITH_ENDPOINTS: usize = 3;

/// A Pod younger than this may be one of a rollout that has not ended.
const YOUNG_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Most endpoints that a NodeProbe lists.
const MAX_ENDPOINTS: usize = 50;

/// What each chosen node is asked, by its name. Nothing while the diagnosis is suspended or nobody could answer.
#[must_use]
pub fn plan(facts: &Facts, diagnosis: &DiagnosisRef) -> BTreeMap<String, NodeProbeSpec> {
    let Some(service) = facts.service.as_deref() else {
        return BTreeMap::new();
    };
    if facts.spec.suspend || facts.nodes.is_empty() {
        return BTreeMap::new();
    }
    let eligible = Agents::of(facts).eligible(facts);
    let chosen = chosen_clients(facts, &eligible, &diagnosis.uid);
    let endpoints = endpoint_pods(facts);
    let of_clients = policies(facts, &chosen);
    let revision = revision(facts, &policies(facts, &endpoints), &of_clients);
    let from_node = approval::may_be_dialled_from_nodes(facts);
    let of_service = subject::service(facts, service);
    let slices = subject::slices(facts);
    let full_size_ends = full_size_paths::Ends::of(facts, &chosen);
    let lasting = lasting_nodes(&eligible, &chosen, &endpoints);
    let mut questions: BTreeMap<String, NodeProbeSpec> =
        chosen_nodes(facts, &eligible, lasting.clone(), &diagnosis.uid)
            .into_iter()
            .map(|node| {
                let here = |pods: &[&Pod], most: usize, may_be_unready: bool| -> Vec<ProbePod> {
                    let on_node = pods.iter().filter(|p| p.spec.node_name.as_deref() == Some(node));
                    let pods = on_node.take(most);
                    pods.map(|p| probe_pod(p, may_be_unready && !p.is_ready()))
                        .collect()
                };
                let of_node = subject::node(facts.cluster_node(node));
                let (subsets, is_cut) = subject::subsets(facts, service, node, of_node.zone.as_deref());
                let clients = here(&chosen, 10, false);
                let before = probe_of(facts, node).and_then(|p| p.asked.cluster_dns.as_ref());
                let spec = NodeProbeSpec {
                    node_name: node.to_owned(),
                    diagnosis: diagnosis.clone(),
                    service_name: facts.spec.service_name.clone(),
                    ports: facts.spec.ports.clone(),
                    interval_seconds: facts.spec.interval_seconds,
                    probe: facts.spec.probe.clone(),
                    cluster_domain: facts.spec.cluster_domain.clone(),
                    cluster_dns: subject::dns(facts, before, !clients.is_empty()),
                    node: of_node,
                    service: ProbeService {
                        is_cut: of_service.is_cut || is_cut,
                        ..of_service.clone()
                    },
                    subsets,
                    slices: slices.clone(),
                    from_node,
                    other_nodes: match from_node {
                        true => other_nodes::of(facts, service, node, &lasting),
                        false => Vec::new(),
                    },
                    full_size_paths: full_size_ends.paths(facts, node),
                    arrivals: None,
                    repeat: String::new(),
                    clients,
                    endpoints: here(&endpoints, MAX_ENDPOINTS, service.publishes_not_ready()),
                    revision: revision.clone(),
                };
                (node.to_owned(), spec)
            })
            .collect();
    arrivals::add(facts, &mut questions);
    questions
}

/// Whether any node is to be asked.
pub(crate) fn asks_anybody(facts: &Facts) -> bool {
    if facts.spec.suspend || facts.nodes.is_empty() || facts.service.is_none() {
        return false;
    }
    let eligible = Agents::of(facts).eligible(facts);
    // Whether there are any does not depend on which of them are clients, or in the sample.
    let clients = chosen_clients(facts, &eligible, "");
    let lasting = lasting_nodes(&eligible, &clients, &endpoint_pods(facts));
    let chosen = chosen_nodes(facts, &eligible, lasting.clone(), "");
    chosen
        .iter()
        .any(|node| lasting.contains(node) || eligible.is_alive(node))
}

/// Whether a node is asked as one of the sample: what is seen from there is of no more weight than from any other.
pub(crate) fn is_of_sample(asked: &NodeProbeSpec) -> bool {
    asked.clients.is_empty() && asked.endpoints.is_empty()
}

/// Name of the NodeProbe of a diagnosis on a node.
#[must_use]
pub fn probe_name(diagnosis: &DiagnosisRef, node: &str) -> String {
    const MAX: usize = 253 - 9;
    let digest = Sha256::digest(format!("{}/{node}", diagnosis.uid));
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let start: String = diagnosis.name.chars().take(MAX).collect();
    format!("{}-{hex}", start.trim_end_matches(['-', '.']))
}

/// The Pods that clients stand for: those that no policy shuts out, spread over the nodes. Where all are
/// shut out they are tried all the same: only so can it be seen whether policies are enforced.
fn chosen_clients<'a>(facts: &'a Facts, agents: &Agents<'_>, uid: &str) -> Vec<&'a Pod> {
    if approval::foreign_clients_are_kept_away(facts) {
        return Vec::new();
    }
    let Clients::Pods { pods, role } = Clients::of(facts) else {
        return Vec::new();
    };
    let on_agent = |p: &&Pod| {
        p.spec
            .node_name
            .as_deref()
            .is_some_and(|n| agents.get(n).is_some())
    };
    let pods: Vec<&Pod> = pods.into_iter().filter(on_agent).collect();
    let pods = match role {
        Role::Named => pods,
        Role::Candidate | Role::Endpoint => {
            let admitted = effects::admitted(facts, &pods);
            if admitted.is_empty() { pods } else { admitted }
        }
    };
    spread(facts, agents, pods, uid)
}

/// First one Pod of each node, then the second of each, up to the number asked for; nodes whose agents
/// are alive come before all, and where it makes no difference those that were chosen before. Then come Pods that are ready,
/// and of them those that have been there for a while: one that a rollout has just made will be replaced by the next, and each
/// change of a client is another question to agents. Which of these come first differs from diagnosis to diagnosis, or all of a
/// namespace would have to find other clients when one node fails.
fn spread<'a>(facts: &Facts, agents: &Agents<'_>, pods: Vec<&'a Pod>, uid: &str) -> Vec<&'a Pod> {
    let most = usize::try_from(facts.spec.clients.max_pods).unwrap_or(1);
    let known: BTreeSet<&str> = facts
        .nodes
        .iter()
        .filter_map(|n| n.probe.as_ref())
        .flat_map(|p| &p.asked.clients)
        .map(|c| c.uid.as_str())
        .collect();
    let is_known = |p: &Pod| p.metadata.uid.as_deref().is_some_and(|uid| known.contains(uid));
    let preference = |p: &Pod| {
        let created = p.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let young = created.filter(|created| later(*created, YOUNG_FOR) > facts.now);
        let place = sample::place(&format!("{uid}/{}", p.name()));
        (!is_known(p), !p.is_ready(), young, place, p.name().to_owned())
    };
    // The second sort leaves the order of the first where it makes no difference.
    let mut pods = pods;
    pods.sort_by_cached_key(|p| preference(p));
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let nth: Vec<usize> = pods
        .iter()
        .map(|pod| {
            let count = taken
                .entry(pod.spec.node_name.as_deref().unwrap_or_default())
                .or_default();
            *count += 1;
            *count
        })
        .collect();
    let mut ranked: Vec<(usize, &Pod)> = nth.into_iter().zip(pods).collect();
    ranked.sort_by_key(|(nth, pod)| {
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        (!agents.is_alive(node), *nth)
    });
    ranked.into_iter().take(most).map(|(_, pod)| pod).collect()
}

/// The Pods behind the Service's endpoints, by name.
fn endpoint_pods(facts: &Facts) -> Vec<&Pod> {
    let uids: BTreeSet<&str> = facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter_map(|e| e.pod_uid())
        .collect();
    let listed = |p: &&Pod| p.metadata.uid.as_deref().is_some_and(|uid| uids.contains(uid));
    let mut pods: Vec<&Pod> = facts.pods.iter().map(AsRef::as_ref).filter(listed).collect();
    pods.sort_by(|a, b| a.name().cmp(b.name()));
    pods
}

/// The nodes with agents, by name: in large clusters they are looked up much more often than there are some.
struct Agents<'a> {
    nodes: Vec<&'a NodeReport>,
    now: Timestamp,
}

impl<'a> Agents<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut nodes: Vec<&NodeReport> = facts.nodes.iter().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            nodes,
            now: facts.now,
        }
    }

    fn get(&self, name: &str) -> Option<&'a NodeReport> {
        let at = self.nodes.binary_search_by(|node| (*node.name).cmp(name)).ok()?;
        self.nodes.get(at).copied()
    }

    fn is_alive(&self, name: &str) -> bool {
        self.get(name).is_some_and(|node| node.is_alive(self.now))
    }

    /// Those that may be asked.
    fn eligible(&self, facts: &Facts) -> Self {
        let selector = facts.spec.nodes.selector.as_ref().map(LabelSelector::from);
        let nodes = self.nodes.iter().copied();
        let is_selected = |n: &&NodeReport| selector.as_ref().is_none_or(|s| s.matches(&n.labels));
        Self {
            nodes: nodes.filter(is_selected).collect(),
            now: self.now,
        }
    }
}

/// The nodes of the clients, and up to three with endpoints.
fn lasting_nodes<'a>(eligible: &Agents<'a>, clients: &[&'a Pod], endpoints: &[&'a Pod]) -> BTreeSet<&'a str> {
    let node_of = |p: &&'a Pod| Some(eligible.get(p.spec.node_name.as_deref()?)?.name.as_ref());
    let with_endpoints: BTreeSet<&str> = endpoints.iter().filter_map(node_of).collect();
    // Those that were looked at before stay, so that the choice does not wander with a rollout.
    let mut with_endpoints: Vec<&str> = with_endpoints.into_iter().collect();
    let was_asked = |n: &str| eligible.get(n).is_some_and(|node| node.probe.is_some());
    with_endpoints.sort_by_key(|n| (!eligible.is_alive(n), !was_asked(n), *n));
    let of_clients = clients.iter().filter_map(node_of);
    of_clients
        .chain(with_endpoints.into_iter().take(NODES_WITH_ENDPOINTS))
        .collect()
}

/// These nodes, those that failed last time, and a sample of the others.
fn chosen_nodes<'a>(
    facts: &'a Facts,
    eligible: &Agents<'a>,
    lasting: BTreeSet<&'a str>,
    uid: &str,
) -> BTreeSet<&'a str> {
    let mut chosen = lasting;
    // Further nodes are a sample: one whose agent is silent would only leave the question open. But one that has fallen
    // silent keeps its place until its time is over, and is left out by whoever judges: when a zone fails, as many NodeProbes
    // would be written as it had nodes in samples, just when the API server has other things to do.
    let others = eligible.nodes.iter().copied();
    let others = others.filter(|n| !chosen.contains(&*n.name));
    let (alive, silent): (Vec<&NodeReport>, Vec<&NodeReport>) = others.partition(|n| n.is_alive(facts.now));
    let (failing, mut rest): (Vec<&NodeReport>, Vec<&NodeReport>) =
        alive.into_iter().partition(|n| failed(n));
    let was_in_sample = |n: &&NodeReport| n.probe.as_ref().is_some_and(|p| is_of_sample(&p.asked));
    // Somebody has to look.
    let is_anybody_alive = !failing.is_empty() || chosen.iter().any(|node| eligible.is_alive(node));
    if is_anybody_alive {
        rest.extend(silent.into_iter().filter(was_in_sample));
    }
    let name = |n: &'a NodeReport| &*n.name;
    let most = usize::try_from(facts.spec.nodes.max_nodes).unwrap_or_default();
    let failing: Vec<&str> = failing.into_iter().map(name).take(most).collect();
    let rest: Vec<&str> = rest.into_iter().map(name).collect();
    let hand = sample::Hand::of(uid, eligible.nodes.len(), facts.now);
    chosen.extend(hand.next(rest, most - failing.len()));
    chosen.extend(failing);
    chosen
}

fn probe_of<'a>(facts: &'a Facts, node: &str) -> Option<&'a crate::facts::ProbeReport> {
    facts.report_of(node)?.probe.as_deref()
}

fn failed(node: &NodeReport) -> bool {
    let reported = node.probe.as_ref().and_then(|p| p.facts.as_deref());
    reported.is_some_and(|seen| !is_well(seen))
}

fn probe_pod(pod: &Pod, not_ready: bool) -> ProbePod {
    // Anybody may annotate a Pod of his own with the hash of another one, whose processes would be found by it. Only
    // the kubelet makes Pods that their Node owns, and by its addresses a Pod is told from another.
    let owners = pod.metadata.owner_references.iter().flatten();
    let is_mirror = pod.annotation(STATIC_POD_MIRROR).is_some()
        && owners
            .into_iter()
            .any(|o| o.kind == "Node" && o.api_version == "v1")
        && pod.ips().next().is_some();
    let hash = pod.annotation(STATIC_POD_HASH).filter(|_| is_mirror);
    let uid = hash.or(pod.metadata.uid.as_deref()).unwrap_or_default();
    ProbePod {
        name: pod.name().to_owned(),
        namespace: pod.namespace().to_owned(),
        uid: uid.to_owned(),
        ips: pod.ips().take(4).map(str::to_owned).collect(),
        host_network: pod.is_host_network(),
        not_ready,
        runtime_class: pod.spec.runtime_class_name.clone(),
    }
}

/// Changes when an agent should not wait for its next round: with the Service, with its endpoints, with the policies
/// about it, and when the user asks. The versions of the slices are part of it, so that a change that is undone at once
/// is one as well.
fn revision(facts: &Facts, policies: &str, of_clients: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(&facts.refresh);
    hasher.update(of_clients);
    if let Some(service) = &facts.service {
        // Serialising cannot fail: these are maps with strings for keys.
        hasher.update(serde_json::to_vec(&service.spec).unwrap_or_default());
    }
    let mut all: BTreeSet<String> = BTreeSet::new();
    for slice in &facts.slices {
        let version = slice.metadata.resource_version.as_deref().unwrap_or_default();
        all.insert(format!("{} {version}", slice.name()));
        all.extend(slice.endpoints.iter().map(|e| subject::state(slice, e)));
    }
    for one in all {
        hasher.update(one);
    }
    format!("{policies}{}", hex(hasher, 8))
}

/// What a revision says of the policies about the Service's Pods. Those about the clients are as much part of it, but
/// who stands for clients changes with the endpoints.
pub(crate) fn policies_in(revision: &str) -> &str {
    revision.get(..2 * POLICIES).unwrap_or_default()
}

/// Bytes of a revision that are about the policies.
const POLICIES: usize = 4;

fn hex(hasher: Sha256, bytes: usize) -> String {
    let digest = hasher.finalize();
    digest.iter().take(bytes).map(|b| format!("{b:02x}")).collect()
}

/// The policies that select the Service's Pods, or others.
fn policies(facts: &Facts, others: &[&Pod]) -> String {
    let selected = facts.selected_pods();
    let pods = || selected.iter().chain(others);
    let selects = |policy: &&Arc<NetworkPolicy>| {
        pods().any(|p| policy.namespace() == p.namespace() && policy.spec.pod_selector.matches(p.labels()))
    };
    let all: BTreeSet<(&str, &str, Vec<u8>)> = facts
        .policies
        .iter()
        .filter(selects)
        .map(|p| {
            // Serialising cannot fail, as above.
            let spec = serde_json::to_vec(&p.spec).unwrap_or_default();
            (p.namespace(), p.name(), spec)
        })
        .collect();
    let mut hasher = Sha256::new();
    for (namespace, name, spec) in all {
        hasher.update(format!("{namespace}/{name} "));
        hasher.update(spec);
    }
    hex(hasher, POLICIES)
}
