//! Text evidence of nodes and client Pods, turned into what an agent would have reported.
//!
//! `nodes/NODE/...` holds outputs of commands that were typed on a node, `pods/NAMESPACE/NAME/...` those of a
//! client Pod; `files` tells by their names what they are. The engine sees [`NodeFacts`] as it does live, so
//! that there is one way from facts to verdicts. What no file tells stays unknown.

mod dials;
mod files;
mod mode;
mod names;
mod node;
mod rules;
mod saved_rules;
mod untranslated;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::SignedDuration;

use self::{
    files::{Evidence, Form, TextFile},
    mode::Mode,
};
use super::{Bundle, MANIFEST, Problem};
use crate::formats::text::sockets;
use crate::{
    api::{DiagnosisRef, NodeFacts, NodeProbeSpec, PodListeners, ProbePod, ServiceDiagnosis, bounded},
    diagnosis::{Facts, NodeReport, ProbeReport, Saved, plan},
    inventory::Inventory,
    objects::{Object, Pod},
    proxy::{Backend, ProxyMode},
};

/// A client Pod and its files.
type Client<'a> = (Arc<Pod>, &'a [TextFile<'a>]);

/// What a node said is taken for said when the bundle was made.
const LASTS: SignedDuration = SignedDuration::from_secs(40);

/// Adds what the text files tell to the reports of the nodes; what an agent reported of a node counts for
/// more than its text files. Returns what could not be understood.
pub(super) fn add(bundle: &Bundle, diagnosis: &ServiceDiagnosis, facts: &mut Facts) -> Vec<Problem> {
    let evidence = Evidence::of(&bundle.files.files);
    let mut problems: Vec<Problem> = evidence.unused().collect();
    let mut clients: BTreeMap<String, Vec<Client<'_>>> = BTreeMap::new();
    let mut by_node: BTreeMap<String, &[TextFile<'_>]> = BTreeMap::new();
    for (node, files) in &evidence.nodes {
        // A configuration for all nodes is no look at this one.
        if files.iter().any(|f| f.form != Form::CarrierConfig) {
            by_node.insert((*node).to_owned(), files);
        }
    }
    for ((namespace, name), files) in &evidence.pods {
        match client(facts, namespace, name) {
            Some((node, pod)) => clients.entry(node).or_default().push((pod, files)),
            None => problems.push(Problem {
                path: format!("pods/{namespace}/{name}"),
                what: why_unused(bundle, facts, namespace, name),
            }),
        }
    }
    for node in clients.keys() {
        by_node.entry(node.clone()).or_default();
    }
    let has_reported = |node: &String| facts.nodes.iter().any(|n| n.name == *node && n.probe.is_some());
    by_node.retain(|node, _| !has_reported(node));
    if by_node.is_empty() || facts.service.is_none() {
        return problems;
    }
    let labels = bundle.inventory.node_labels();
    for node in by_node.keys() {
        facts.nodes.retain(|n| n.name != *node);
        facts.nodes.push(NodeReport {
            name: node.clone(),
            labels: labels.get(node).cloned().unwrap_or_default(),
            alive_until: facts.now.checked_add(LASTS).ok(),
            probe: None,
            saved: None,
        });
    }
    let asked = plan(facts, &reference(diagnosis));
    let cluster = Cluster {
        mode: bundle.configured_mode.as_ref(),
        leaves_proxy_out: evidence
            .nodes
            .values()
            .any(|files| node::leaves_proxy_out(files, &mut problems)),
        inventory: &bundle.inventory,
    };
    for (node, files) in by_node {
        let of_node = clients.remove(&node).unwrap_or_default();
        let Some(asked) = asked_of(&node, &asked, &of_node) else {
            continue;
        };
        let (seen, saved, wrong) = read(facts, &node, cluster, files, &of_node);
        problems.extend(wrong);
        let report = facts.nodes.iter_mut().find(|n| n.name == node);
        if let Some(report) = report {
            report.saved = Some(saved);
            report.probe = Some(ProbeReport {
                asked,
                is_current: true,
                owed_since: None,
                facts: Some(Arc::new(bounded(&seen))),
            });
        }
    }
    problems
}

/// The namespace of the Pods that there are files of, where all of them are in one other than the Service's and
/// nobody says which the clients are: whoever saves what a Pod got takes it for one.
pub(super) fn only_namespace_of_clients(bundle: &Bundle, home: &str) -> Option<String> {
    let evidence = Evidence::of(&bundle.files.files);
    let known = evidence
        .pods
        .keys()
        .filter(|(ns, name)| bundle.inventory.has_pod(ns, name));
    let namespaces: BTreeSet<&str> = known.map(|(namespace, _)| *namespace).collect();
    let only = namespaces.first().filter(|_| namespaces.len() == 1)?;
    (*only != home).then(|| (*only).to_owned())
}

/// Why the files of a Pod tell nothing.
fn why_unused(bundle: &Bundle, facts: &Facts, namespace: &str, name: &str) -> String {
    let clients = facts.client_namespace.as_ref().map(|c| c.name.as_str());
    let is_elsewhere = namespace != facts.namespace && clients != Some(namespace);
    if is_elsewhere && bundle.inventory.has_pod(namespace, name) {
        return format!(
            "not used: the clients are taken to be in namespace {}; name {namespace} in spec.clients.namespace of {MANIFEST} to have its Pods judged",
            clients.unwrap_or(&facts.namespace),
        );
    }
    format!(
        "not used: no Pod {name} of namespace {namespace} with a node is among the objects; add `kubectl -n {namespace} get pod {name} -o json`"
    )
}

/// A client Pod and its node.
fn client(facts: &Facts, namespace: &str, name: &str) -> Option<(String, Arc<Pod>)> {
    let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
    let mut pods = facts.pods.iter().chain(others);
    let pod = pods.find(|p| p.namespace() == namespace && p.name() == name)?;
    Some((pod.spec.node_name.clone()?, pod.clone()))
}

fn reference(diagnosis: &ServiceDiagnosis) -> DiagnosisRef {
    DiagnosisRef {
        name: diagnosis.name().to_owned(),
        uid: diagnosis.metadata.uid.clone().unwrap_or_default(),
    }
}

/// What the node was asked, had it been an agent: about the client Pods that there are files of.
fn asked_of(
    node: &str,
    plan: &BTreeMap<String, NodeProbeSpec>,
    clients: &[Client<'_>],
) -> Option<NodeProbeSpec> {
    // All nodes are asked about the same Service.
    let mut asked = plan.get(node).or_else(|| plan.values().next())?.clone();
    node.clone_into(&mut asked.node_name);
    asked.endpoints.clear();
    asked.clients = clients
        .iter()
        .map(|(pod, _)| ProbePod {
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ips: pod.ips().map(str::to_owned).collect(),
            host_network: pod.is_host_network(),
            not_ready: false,
            runtime_class: None,
        })
        .collect();
    Some(asked)
}

/// What is told of kube-proxy for all nodes.
#[derive(Clone, Copy)]
struct Cluster<'a> {
    /// Its mode in its ConfigMap.
    mode: Option<&'a ProxyMode>,
    /// Whether the program that would carry it was told to leave it out: of k3s, its servers tell the others.
    leaves_proxy_out: bool,
    /// Where its Pods are known.
    inventory: &'a Inventory,
}

fn read(
    facts: &Facts,
    node: &str,
    cluster: Cluster<'_>,
    files: &[TextFile<'_>],
    clients: &[Client<'_>],
) -> (NodeFacts, Saved, Vec<Problem>) {
    let mut problems = Vec::new();
    let of_clients = clients.iter().flat_map(|(_, files)| files.iter());
    for file in files.iter().chain(of_clients).filter(|f| f.is_cut) {
        problems.push(file.problem(
            "its last line has no end, so that it may have been cut; what is not in it proves nothing",
        ));
    }
    let mut seen = NodeFacts::default();
    let programs = node::Programs::of(files, cluster.leaves_proxy_out, &mut problems);
    let programs = &programs;
    let mode = programs.mode();
    let told = Mode {
        known: mode.as_ref(),
        configured: cluster.mode,
    };
    let rules = rules::read(facts, node, told, files, &mut problems);
    let backend = rules.backend();
    let mut dialled = dials::Dialled::default();
    dialled.read(facts, node, None, files, &[], &mut problems);
    for (pod, files) in clients {
        let resolver = names::resolver(facts, pod, files, &mut problems);
        let found = resolver
            .as_ref()
            .map(|r| r.lookups.as_slice())
            .unwrap_or_default();
        dialled.read(facts, node, Some(pod), files, found, &mut problems);
        seen.resolvers.extend(resolver);
    }
    seen.dns_servers = names::servers(facts, files, &mut problems);
    let mut saved = Saved {
        proxy_port: rules.proxy_port.and_then(|port| dialled.on_loopback(port)),
        dialled: dialled.endpoints(),
        wanted_over_tcp: dialled.wanted_over_tcp(),
        untranslated: dialled.untranslated(),
        unlisted: dialled.unlisted(),
        not_resolved: dialled.not_resolved(),
        masquerades_nothing: programs.masquerades_nothing(),
        perhaps_itself: dialled.perhaps_itself(facts),
        asks_its_node: clients
            .iter()
            .filter(|(pod, files)| {
                names::asks_its_node(facts, pod) && files.iter().any(|f| f.form == Form::Names)
            })
            .map(|(pod, _)| format!("{}/{}", pod.namespace(), pod.name()))
            .collect(),
        ..Saved::default()
    };
    let (mut settings, lacks_bridge_netfilter) = node::settings(facts, files, &mut problems);
    settings.dead_ends.extend(rules.dead_ends);
    seen.settings = settings;
    seen.hairpins = dialled.hairpins(node::hairpin_mode(files, &mut problems), rules.masquerades);
    seen.listeners = dialled.listeners(facts);
    for (pod, files) in clients {
        seen.listeners.extend(listeners(pod, files, &mut problems));
    }
    (seen.dials, seen.failures) = dialled.told(
        facts,
        node,
        seen.settings.bridge_netfilter == Some(false) || lacks_bridge_netfilter,
    );
    seen.probes_made = seen.dials.iter().map(|d| d.made).sum();
    seen.probes_failed = seen.dials.iter().map(|d| d.failed).sum();
    let mode = mode
        .or_else(|| backend.map(Backend::mode))
        .or_else(|| cluster.mode.cloned());
    seen.rules = rules.rules;
    if let Some(rules) = &mut seen.rules {
        programs.mark_ports_in_use(rules);
    }
    seen.kube_proxy = programs.kube_proxy(facts, node, files, mode, &seen, &saved);
    saved.hairpin = node::hairpin(programs, files, rules.hairpin_set, &mut problems);
    seen.stale_connections = node::stale(facts, node, files, &mut problems);
    seen.problems = problems.iter().map(ToString::to_string).collect();
    // It leaves no question open.
    saved.conntrack_missing = programs.misses_conntrack(facts, files, &seen, &saved, &mut problems);
    let has_pod = cluster.inventory.runs_kube_proxy(node);
    saved.proxy_exit = programs.exit(facts, files, &seen, &saved, has_pod, &mut problems);
    (seen, saved, problems)
}

/// What listens in a Pod, as a list of its sockets shows.
fn listeners(pod: &Pod, files: &[TextFile<'_>], problems: &mut Vec<Problem>) -> Option<PodListeners> {
    let sockets = parse(files, Form::Sockets, problems, sockets::parse)
        .into_iter()
        .next()?;
    Some(PodListeners {
        pod: format!("{}/{}", pod.namespace(), pod.name()),
        ips: pod.ips().map(str::to_owned).collect(),
        sockets,
    })
}

/// The text of a file in the form that a parser makes of it; a problem where it cannot be read.
fn parse<T, E: std::fmt::Display>(
    files: &[TextFile<'_>],
    form: Form,
    problems: &mut Vec<Problem>,
    parser: impl Fn(&str) -> Result<T, E>,
) -> Vec<T> {
    let of_form = files.iter().filter(|f| f.form == form);
    of_form
        .filter_map(|file| match parser(file.text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                problems.push(file.problem(error));
                None
            }
        })
        .collect()
}
