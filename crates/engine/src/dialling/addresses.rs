//! Addresses that cannot work, where dials failed: what the objects say of those that the dials went to and came from.
//!
//! None of it is a fault of its own: a range that overlaps on paper may be one that nobody uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    Facts,
    evidence::{Evidence, dials::Failed},
    pods::{node::ranges_in_use, shared_addresses},
    text::{self, quoted},
};
use svcdiag_api::DialPath;
use svcdiag_objects::Object;

/// What may be wrong with the addresses of failed dials, in whole sentences.
pub(super) fn trouble(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Vec<String> {
    let facts = evidence.facts;
    let lost = || failures.iter().copied().filter(|f| f.is_lost());
    let between_nodes: Vec<&Failed<'_>> = lost().filter(|f| f.dial.same_node != Some(true)).collect();
    let lost: Vec<&Failed<'_>> = lost().collect();
    let ends = ends(&between_nodes);
    let mut found: Vec<String> = shared_by_pods(facts, failures).collect();
    found.extend(wrong_neighbour(evidence, failures));
    found.extend(one_internal_ip(facts, &ends).map(|(said, _)| said));
    found.extend(
        node_in_pod_range(facts, &ends)
            .or_else(|| ranges_overlap(facts, &ends))
            .or_else(|| service_in_pod_range(facts, &lost)),
    );
    found
}

/// The nodes that dials began and ended at.
pub(crate) fn ends<'a>(failures: &[&Failed<'a>]) -> BTreeSet<&'a str> {
    let nodes = failures
        .iter()
        .flat_map(|f| [Some(f.node), f.target.and_then(|t| t.node)]);
    nodes.flatten().collect()
}

/// Endpoints whose address another Pod has, too.
fn shared_by_pods(facts: &Facts, failures: &[&Failed<'_>]) -> impl Iterator<Item = String> {
    let is_of_host = |f: &Failed<'_>| f.target.is_some_and(|t| t.is_host_network());
    let dialled: BTreeSet<IpAddr> = failures
        .iter()
        .filter(|f| !is_of_host(f))
        .filter_map(|f| Some(f.endpoint?.ip()))
        .collect();
    let shared = shared_addresses::shared(facts);
    let own = shared.into_iter().filter(move |(ip, _)| dialled.contains(ip));
    own.take(1).map(|(ip, pods)| {
        format!(
            "{}. A Pod that is created again gets another address.",
            shared_addresses::describe(ip, &pods)
        )
    })
}

/// An endpoint on the node of the dial whose packets are sent to somebody else.
fn wrong_neighbour(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<String> {
    let reports = evidence.reports.current.iter();
    let known = reports.flat_map(|report| {
        let neighbours = report.facts.wrong_neighbours.iter();
        neighbours.map(|neighbour| (report.node, neighbour))
    });
    let (node, neighbour) = known.into_iter().find(|(node, neighbour)| {
        let ip = neighbour.ip.parse();
        let mut failures = failures.iter().filter(|failed| failed.node == *node);
        failures.any(|failed| failed.endpoint.is_some_and(|endpoint| Ok(endpoint.ip()) == ip))
    })?;
    let (ip, pod) = (quoted(&neighbour.ip), quoted(&neighbour.pod));
    let (sender, place) = match &neighbour.from {
        None => (format!("Node {node}"), "there".to_owned()),
        Some(client) => (
            format!("Pod {} on node {node}", quoted(client)),
            "in it".to_owned(),
        ),
    };
    Some(format!(
        "{sender} sends packets for {ip} to the link-layer address {}, but Pod {pod}, which has that IP address, has {}: another host answers ARP for it, or the neighbour table is out of date (`ip neigh show {ip}` {place}).",
        quoted(&neighbour.sent_to),
        quoted(&neighbour.own),
    ))
}

/// Nodes that the cluster knows under one address: the sentence, and what to do.
pub(crate) fn one_internal_ip(facts: &Facts, ends: &BTreeSet<&str>) -> Option<(String, String)> {
    let mut by_address: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for node in &facts.cluster_nodes {
        for ip in node.internal_ips() {
            by_address.entry(ip).or_default().insert(node.name());
        }
    }
    let (ip, nodes) = by_address
        .into_iter()
        .find(|(_, nodes)| nodes.len() > 1 && !nodes.is_disjoint(ends))?;
    let nodes: Vec<&str> = nodes.into_iter().collect();
    Some((
        format!(
            "The {} have the same InternalIP, {ip}, so packets from one to another may never leave it.",
            text::nodes(&nodes)
        ),
        "Give each Node its own address that the others can reach (the kubelet's --node-ip, and the interface that the network plugin uses). Compare `kubectl get nodes -o wide`.".to_owned(),
    ))
}

/// The nodes that dials began or ended at, with the Pod ranges in use there.
fn used_ranges<'a>(facts: &'a Facts, ends: &'a BTreeSet<&str>) -> impl Iterator<Item = (&'a str, IpNet)> {
    let nodes = facts.cluster_nodes.iter().filter(|n| ends.contains(n.name()));
    nodes.flat_map(|node| {
        let ranges = ranges_in_use(facts, node).into_iter();
        ranges.map(|range| (node.name(), range))
    })
}

/// A Node whose address is in the Pod range of a node.
fn node_in_pod_range(facts: &Facts, ends: &BTreeSet<&str>) -> Option<String> {
    used_ranges(facts, ends).find_map(|(owner, range)| {
        let (node, ip) = facts.cluster_nodes.iter().find_map(|node| {
            let ip = node.internal_ips().into_iter().find(|ip| range.contains(ip))?;
            Some((node.name(), ip))
        })?;
        Some(format!(
            "The address {ip} of node {node} is in the Pod range {range} of node {owner}: the two networks overlap, and packets for one may go to the other."
        ))
    })
}

/// Two Nodes whose Pod ranges overlap.
fn ranges_overlap(facts: &Facts, ends: &BTreeSet<&str>) -> Option<String> {
    used_ranges(facts, ends).find_map(|(owner, range)| {
        let others = facts.cluster_nodes.iter().filter(|n| n.name() != owner);
        let (other, theirs) = others
            .flat_map(|node| {
                let ranges = ranges_in_use(facts, node).into_iter();
                ranges.map(|range| (node.name(), range))
            })
            .find(|(_, theirs)| range.contains(theirs) || theirs.contains(&range))?;
        Some(format!(
            "The Pod ranges of nodes {owner} ({range}) and {other} ({theirs}) overlap, so packets for Pods of one may go to the other."
        ))
    })
}

/// The Service's address is in the Pod range of the node that it was dialled from.
fn service_in_pod_range(facts: &Facts, lost: &[&Failed<'_>]) -> Option<String> {
    let through = lost
        .iter()
        .filter(|f| f.dial.path == DialPath::Service && f.dial.from.is_some());
    let nodes: BTreeSet<&str> = through.map(|f| f.node).collect();
    let service = facts.service.as_deref()?;
    let ips: Vec<IpAddr> = service
        .cluster_ips()
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect();
    used_ranges(facts, &nodes).find_map(|(node, range)| {
        let ip = ips.iter().find(|ip| range.contains(*ip))?;
        Some(format!(
            "The Service's address {ip} is in the Pod range {range} of node {node}: the ranges of Services and Pods overlap, and Pods there may look for the address on their own link."
        ))
    })
}
