//! What the agents are asked: from Facts to one NodeProbe for each chosen node. Pure, like the verdict.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{
    Facts,
    clients::{Clients, Role},
    stages, vantage,
};
use crate::{
    api::{DiagnosisRef, NodeProbeSpec, ProbePod, ServiceRef},
    objects::{LabelSelector, Object, Pod, STATIC_POD_HASH, STATIC_POD_MIRROR},
};

/// Nodes with endpoints that are always looked at.
const NODES_WITH_ENDPOINTS: usize = 3;

/// Most endpoints that a NodeProbe lists.
const MAX_ENDPOINTS: usize = 50;

/// The sample of nodes moves on once an hour.
const ROTATION_SECONDS: i64 = 3600;

/// What each chosen node is asked, by its name. Nothing while the diagnosis is suspended or nobody could answer.
#[must_use]
pub fn plan(facts: &Facts, diagnosis: &DiagnosisRef) -> BTreeMap<String, NodeProbeSpec> {
    if facts.spec.suspend || facts.nodes.is_empty() || facts.service.is_none() {
        return BTreeMap::new();
    }
    let clients = chosen_clients(facts);
    let endpoints = endpoint_pods(facts);
    let revision = revision(facts);
    let from_node = may_be_dialled_from_nodes(facts);
    chosen_nodes(facts, &clients, &endpoints)
        .into_iter()
        .map(|node| {
            let here = |pods: &[&Pod], most: usize| -> Vec<ProbePod> {
                let on_node = pods.iter().filter(|p| p.spec.node_name.as_deref() == Some(node));
                on_node.take(most).map(|p| probe_pod(p)).collect()
            };
            let spec = NodeProbeSpec {
                node_name: node.to_owned(),
                diagnosis: diagnosis.clone(),
                service_name: facts.spec.service_name.clone(),
                ports: facts.spec.ports.clone(),
                interval_seconds: facts.spec.interval_seconds,
                probe: facts.spec.probe.clone(),
                cluster_domain: facts.spec.cluster_domain.clone(),
                cluster_dns: facts.cluster_dns.as_ref().map(|dns| ServiceRef {
                    namespace: dns.service.namespace().to_owned(),
                    name: dns.service.name().to_owned(),
                }),
                from_node,
                clients: here(&clients, 10),
                endpoints: here(&endpoints, MAX_ENDPOINTS),
                revision: revision.clone(),
            };
            (node.to_owned(), spec)
        })
        .collect()
}

/// Whether any node is to be asked.
pub(super) fn asks_anybody(facts: &Facts) -> bool {
    if facts.spec.suspend || facts.nodes.is_empty() || facts.service.is_none() {
        return false;
    }
    !chosen_nodes(facts, &chosen_clients(facts), &endpoint_pods(facts)).is_empty()
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
fn chosen_clients(facts: &Facts) -> Vec<&Pod> {
    let Clients::Pods { pods, role } = Clients::of(facts) else {
        return Vec::new();
    };
    let with_agent: BTreeSet<&str> = facts.nodes.iter().map(|n| n.name.as_str()).collect();
    let on_agent = |p: &&Pod| {
        p.spec
            .node_name
            .as_deref()
            .is_some_and(|n| with_agent.contains(n))
    };
    let pods: Vec<&Pod> = pods.into_iter().filter(on_agent).collect();
    let pods = match role {
        Role::Named => pods,
        Role::Candidate | Role::Endpoint => {
            let admitted: Vec<&Pod> = pods
                .iter()
                .copied()
                .filter(|p| !stages::shut_out(facts, p))
                .collect();
            if admitted.is_empty() { pods } else { admitted }
        }
    };
    spread(facts, pods)
}

/// First one Pod of each node, then the second of each, up to the number asked for; nodes whose agents
/// are alive come before all, and where it makes no difference those that were chosen before.
fn spread<'a>(facts: &Facts, pods: Vec<&'a Pod>) -> Vec<&'a Pod> {
    let most = usize::try_from(facts.spec.clients.max_pods).unwrap_or(1);
    let known: BTreeSet<&str> = facts
        .nodes
        .iter()
        .filter_map(|n| n.probe.as_ref())
        .flat_map(|p| &p.asked.clients)
        .map(|c| c.uid.as_str())
        .collect();
    let is_known = |p: &Pod| p.metadata.uid.as_deref().is_some_and(|uid| known.contains(uid));
    let mut pods = pods;
    pods.sort_by_key(|p| (!is_known(p), p.name().to_owned()));
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
        (
            !is_alive(facts, node),
            *nth,
            !is_known(pod),
            pod.name().to_owned(),
        )
    });
    ranked.into_iter().take(most).map(|(_, pod)| pod).collect()
}

fn is_alive(facts: &Facts, node: &str) -> bool {
    let report = facts.nodes.iter().find(|n| n.name == node);
    report.is_some_and(|n| vantage::is_alive(facts, n.alive_until))
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

/// The nodes of the clients, up to three with endpoints, those that failed last time, and a sample of
/// the others.
fn chosen_nodes<'a>(facts: &'a Facts, clients: &[&'a Pod], endpoints: &[&'a Pod]) -> BTreeSet<&'a str> {
    let selector = facts.spec.nodes.selector.as_ref().map(LabelSelector::from);
    let mut eligible: Vec<&str> = facts
        .nodes
        .iter()
        .filter(|n| selector.as_ref().is_none_or(|s| s.matches(&n.labels)))
        .map(|n| n.name.as_str())
        .collect();
    eligible.sort_unstable();
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    let node_of = |p: &&'a Pod| p.spec.node_name.as_deref().filter(|n| eligible.contains(n));
    chosen.extend(clients.iter().filter_map(node_of));
    let with_endpoints: BTreeSet<&str> = endpoints.iter().filter_map(node_of).collect();
    // Those that were looked at before stay, so that the choice does not wander with a rollout.
    let mut with_endpoints: Vec<&str> = with_endpoints.into_iter().collect();
    with_endpoints.sort_by_key(|n| (!is_alive(facts, n), !was_asked(facts, n), *n));
    chosen.extend(with_endpoints.into_iter().take(NODES_WITH_ENDPOINTS));
    // Further nodes are a sample: one whose agent is silent would only leave the question open.
    let others: Vec<&str> = eligible
        .iter()
        .copied()
        .filter(|n| !chosen.contains(n) && is_alive(facts, n))
        .collect();
    let (failing, rest): (Vec<&str>, Vec<&str>) = others.into_iter().partition(|n| failed(facts, n));
    let most = usize::try_from(facts.spec.nodes.max_nodes).unwrap_or_default();
    let start = usize::try_from(facts.now.as_second() / ROTATION_SECONDS).unwrap_or_default() * most;
    let count = rest.len();
    let sample = (0..count).map(|i| rest[(start + i) % count]);
    chosen.extend(failing.into_iter().chain(sample).take(most));
    chosen
}

fn probe_of<'a>(facts: &'a Facts, node: &str) -> Option<&'a super::facts::ProbeReport> {
    facts.nodes.iter().find(|n| n.name == node)?.probe.as_ref()
}

fn was_asked(facts: &Facts, node: &str) -> bool {
    probe_of(facts, node).is_some()
}

fn failed(facts: &Facts, node: &str) -> bool {
    let reported = probe_of(facts, node).and_then(|p| p.facts.as_deref());
    reported.is_some_and(|f| f.probes_failed > 0 || f.rules.as_ref().is_some_and(|r| !r.gaps.is_empty()))
}

fn probe_pod(pod: &Pod) -> ProbePod {
    let hash = pod
        .annotation(STATIC_POD_MIRROR)
        .and_then(|_| pod.annotation(STATIC_POD_HASH));
    let uid = hash.or(pod.metadata.uid.as_deref()).unwrap_or_default();
    ProbePod {
        name: pod.name().to_owned(),
        namespace: pod.namespace().to_owned(),
        uid: uid.to_owned(),
        ips: pod.ips().take(4).map(str::to_owned).collect(),
        host_network: pod.is_host_network(),
        runtime_class: pod.spec.runtime_class_name.clone(),
    }
}

/// Whether the Service is the one that the API server makes for itself.
fn is_api_server(facts: &Facts) -> bool {
    (facts.namespace.as_str(), facts.spec.service_name.as_str()) == ("default", "kubernetes")
}

/// Whether every endpoint is what it says: an address of its Pod in this namespace. A slice made by hand
/// could name any address, which a node might reach though its author may not.
fn may_be_dialled_from_nodes(facts: &Facts) -> bool {
    // The endpoints of the API server are no Pods' addresses, and every node has to reach them anyway.
    if is_api_server(facts) {
        return true;
    }
    let ips: BTreeMap<&str, BTreeSet<&str>> = facts
        .pods
        .iter()
        .filter_map(|p| Some((p.metadata.uid.as_deref()?, p.ips().collect())))
        .collect();
    facts.slices.iter().flat_map(|s| &s.endpoints).all(|endpoint| {
        let own = endpoint.pod_uid().and_then(|uid| ips.get(uid));
        // A Pod that has just gone has no address to compare with; its endpoint goes at once, too.
        own.is_some_and(|own| endpoint.addresses.iter().all(|a| own.contains(a.as_str())))
            || !endpoint.is_ready()
    })
}

/// Changes when an agent should not wait for its next round: with the Service, with its endpoints, and
/// when the user asks.
fn revision(facts: &Facts) -> String {
    let mut hasher = Sha256::new();
    hasher.update(&facts.refresh);
    if let Some(service) = &facts.service {
        // Serialising cannot fail: these are maps with strings for keys.
        hasher.update(serde_json::to_vec(&service.spec).unwrap_or_default());
    }
    let mut endpoints: BTreeSet<String> = BTreeSet::new();
    for slice in &facts.slices {
        for endpoint in &slice.endpoints {
            endpoints.insert(format!(
                "{:?} {:?} {} {}",
                endpoint.addresses,
                slice.ports,
                endpoint.is_ready(),
                endpoint.is_serving()
            ));
        }
    }
    for endpoint in endpoints {
        hasher.update(endpoint);
    }
    hasher
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
