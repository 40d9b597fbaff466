//! Text evidence of nodes and client Pods, turned into what an agent would have reported.
//!
//! `nodes/NODE/...` holds outputs of commands that were typed on a node, `pods/NAMESPACE/NAME/...` those of a
//! client Pod. In two steps: [`files`] says by names what they are and [`text`] reads each into one typed value; then
//! [`node`] judges the values of one node, with a module for each thing that an agent looks at. The engine sees
//! [`NodeFacts`](crate::api::NodeFacts) as it does live, so that there is one way from facts to verdicts. What no file
//! tells stays unknown.
//!
//! One node is read and judged after the other: the values of all of them together would take too much memory.

mod connections;
mod dials;
mod dns_logs;
mod files;
mod hairpin;
mod kube_proxy;
mod names;
mod node;
mod programs;
mod routes;
mod rules;
mod saved_rules;
mod settings;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::SignedDuration;

pub(super) use self::files::is_read;
use self::{
    files::{Evidence, Form, TextFile},
    node::{Client, Cluster, Node},
    text::{Context, Parsed},
};
use super::{Bundle, MANIFEST, Problem};
use crate::{
    api::{DiagnosisRef, NodeProbeSpec, ProbePod, ServiceDiagnosis, bounded},
    engine::{Facts, NodeReport, ProbeReport, plan},
    formats::text::{carrier_config::CarrierConfig, ps::Ps},
    objects::{Object, Pod},
};

/// What a node said is taken for said when the bundle was made.
const LASTS: SignedDuration = SignedDuration::from_secs(40);

/// A client Pod and its files.
type PodFiles<'a> = (Arc<Pod>, &'a [TextFile<'a>]);

/// Adds what the text files tell to the reports of the nodes; what an agent reported of a node counts for
/// more than its text files. Returns what could not be understood.
pub(super) fn add(bundle: &Bundle, diagnosis: &ServiceDiagnosis, facts: &mut Facts) -> Vec<Problem> {
    let evidence = Evidence::of(&bundle.files.files);
    let mut problems: Vec<Problem> = evidence.unused(&bundle.read_as_tables).collect();
    problems.extend(dns_logs::add(facts, &evidence));
    let (mut clients, not_used) = clients(bundle, facts, &evidence);
    problems.extend(not_used);
    let nodes = nodes(facts, &evidence, clients.keys());
    if nodes.is_empty() || facts.service.is_none() {
        return problems;
    }
    let labels = bundle.inventory.node_labels();
    for node in nodes.keys() {
        facts.nodes.retain(|n| *n.name != **node);
        facts.nodes.push(NodeReport {
            name: node.as_str().into(),
            labels: labels.get(node).cloned().unwrap_or_default(),
            alive_until: facts.now.checked_add(LASTS).ok(),
            probe: None,
            saved: None,
        });
    }
    let asked = plan(facts, &reference(diagnosis));
    let (leaves_proxy_out, not_understood) = leaves_proxy_out(&evidence);
    problems.extend(not_understood);
    let cluster = Cluster {
        mode: bundle.configured_mode.as_ref(),
        leaves_proxy_out,
        inventory: &bundle.inventory,
    };
    let context = Context {
        now: facts.now,
        endpoints: endpoints(facts),
    };
    for (name, files) in nodes {
        let of_node = clients.remove(&name).unwrap_or_default();
        let Some(asked) = asked_of(&name, &asked, &of_node) else {
            continue;
        };
        let node = Node {
            facts,
            name: &name,
            cluster,
            files: parse_all(files, &context),
            clients: of_node.into_iter().map(|of| parse_client(of, &context)).collect(),
        };
        let judged = node.judge();
        problems.extend(judged.problems);
        let report = facts.nodes.iter_mut().find(|n| *n.name == *name);
        if let Some(report) = report {
            report.saved = Some(Box::new(judged.saved));
            report.probe = Some(Box::new(ProbeReport {
                asked,
                is_current: true,
                question: String::new(),
                owed_since: None,
                facts: Some(Arc::new(bounded(&judged.seen))),
            }));
        }
    }
    problems
}

fn parse_all<'a>(files: &[TextFile<'a>], context: &Context) -> Vec<Parsed<'a>> {
    files.iter().map(|file| Parsed::of(file, context)).collect()
}

fn parse_client<'a>((pod, files): PodFiles<'a>, context: &Context) -> Client<'a> {
    Client {
        pod,
        files: parse_all(files, context),
    }
}

/// The client Pods that there are files of, by node; and why files of other Pods are not used.
fn clients<'a>(
    bundle: &Bundle,
    facts: &Facts,
    evidence: &'a Evidence<'a>,
) -> (BTreeMap<String, Vec<PodFiles<'a>>>, Vec<Problem>) {
    let mut clients: BTreeMap<String, Vec<PodFiles<'a>>> = BTreeMap::new();
    let mut problems = Vec::new();
    for ((namespace, name), files) in &evidence.pods {
        match client(facts, namespace, name) {
            Some((node, pod)) => clients.entry(node).or_default().push((pod, files)),
            None => problems.push(Problem {
                path: format!("pods/{namespace}/{name}"),
                what: why_unused(bundle, facts, namespace, name),
            }),
        }
    }
    (clients, problems)
}

/// The nodes to judge: those that there are files of, or of their clients, and of which no agent has reported.
fn nodes<'a, 'n>(
    facts: &Facts,
    evidence: &'a Evidence<'a>,
    of_clients: impl Iterator<Item = &'n String>,
) -> BTreeMap<String, &'a [TextFile<'a>]> {
    let with_files = evidence.nodes.iter();
    let mut nodes: BTreeMap<String, &[TextFile<'_>]> = with_files
        .map(|(node, files)| ((*node).to_owned(), files.as_slice()))
        .collect();
    for node in of_clients {
        nodes.entry(node.clone()).or_default();
    }
    let has_reported = |node: &String| facts.nodes.iter().any(|n| *n.name == **node && n.probe.is_some());
    nodes.retain(|node, _| !has_reported(node));
    nodes
}

/// Whether a program that would carry kube-proxy was told to leave it out, on any node; and what of it was not
/// understood. Only this is asked of all nodes at once, so that lists of processes are read for it by themselves; those
/// that are none are told of with their node.
fn leaves_proxy_out(evidence: &Evidence<'_>) -> (bool, Vec<Problem>) {
    let mut leaves_out = false;
    let mut problems = Vec::new();
    for file in &evidence.carriers {
        match CarrierConfig::parse(file.text) {
            Ok(config) => leaves_out |= config.leaves_proxy_out,
            Err(error) => problems.push(file.problem(error)),
        }
    }
    let mut files = evidence.nodes.values().flatten();
    let is_told = |file: &TextFile<'_>| {
        file.form == Form::Processes && Ps::parse(file.text).is_ok_and(|ps| ps.leaves_proxy_out())
    };
    (leaves_out || files.any(is_told), problems)
}

/// Addresses of the Service's endpoints.
fn endpoints(facts: &Facts) -> Vec<std::net::IpAddr> {
    let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    endpoints
        .flat_map(|e| &e.addresses)
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// The namespace of the Pods that there are files of, where all of them are in one other than the Service's and
/// nobody says which the clients are: whoever saves what a Pod got takes it for one.
pub(super) fn only_namespace_of_clients(bundle: &Bundle, home: &str) -> Option<String> {
    let evidence = Evidence::of(&bundle.files.files);
    let known = evidence
        .pods
        .keys()
        .filter(|(ns, name)| bundle.inventory.has_pod(ns, name) || is_one_off(bundle, ns, name));
    let namespaces: BTreeSet<&str> = known.map(|(namespace, _)| *namespace).collect();
    let only = namespaces.first().filter(|_| namespaces.len() == 1)?;
    (*only != home).then(|| (*only).to_owned())
}

fn is_one_off(bundle: &Bundle, namespace: &str, name: &str) -> bool {
    let key = (namespace.to_owned(), name.to_owned());
    bundle.one_offs.contains_key(&key)
}

/// Why the files of a Pod tell nothing.
fn why_unused(bundle: &Bundle, facts: &Facts, namespace: &str, name: &str) -> String {
    let clients = facts.client_namespace.as_ref().map(|c| c.name.as_str());
    let is_elsewhere = namespace != facts.namespace && clients != Some(namespace);
    let is_known = bundle.inventory.has_pod(namespace, name) || is_one_off(bundle, namespace, name);
    if is_elsewhere && is_known {
        return format!(
            "not used: the clients are assumed to be in namespace {}; set spec.clients.namespace to {namespace} in {MANIFEST} to use its Pods as clients",
            clients.unwrap_or(&facts.namespace),
        );
    }
    if is_one_off(bundle, namespace, name) && namespace == facts.namespace {
        return format!("not used: the labels of Pod {namespace}/{name} make it one of the Service's own");
    }
    format!(
        "not used: the bundle has no Pod {namespace}/{name} that runs on a node; add `kubectl -n {namespace} get pod {name} -o json`"
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
    clients: &[PodFiles<'_>],
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
