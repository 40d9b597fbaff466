//! What the Nodes say of the Pods that run on them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Facts, pods::events::one_line};
use svcdiag_objects::{Node, NodeCondition, Object, Pod};

/// What is wrong with the Node of a Pod.
pub(crate) enum NodeTrouble<'a> {
    /// Its Ready condition is False, or Unknown as nobody has heard of its kubelet.
    NotReady(&'a NodeCondition),
    /// There is no such Node.
    Gone,
}

/// What is wrong with the Node of a Pod, if anything.
pub(crate) fn trouble<'a>(facts: &'a Facts, pod: &Pod) -> Option<NodeTrouble<'a>> {
    if is_gone(facts, pod) {
        return Some(NodeTrouble::Gone);
    }
    let name = pod.spec.node_name.as_deref()?;
    let node = facts.cluster_node(name)?;
    node.ready()
        .filter(|ready| ready.status != "True")
        .map(NodeTrouble::NotReady)
}

/// Whether the Node of a Pod does not exist. The endpoints controller leaves such Pods out. A list of Nodes that were
/// not read with their states does not say so, nor does one that lacks the Node of a ready endpoint.
pub(crate) fn is_gone(facts: &Facts, pod: &Pod) -> bool {
    let Some(name) = pod.spec.node_name.as_deref() else {
        return false;
    };
    let nodes = &facts.cluster_nodes;
    if nodes.is_empty() || facts.cluster_node(name).is_some() {
        return false;
    }
    let mut endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    let serves = endpoints.any(|e| e.node_name.as_deref() == Some(name) && e.is_ready());
    !serves && facts.why_unreadable("nodes").is_none() && nodes.iter().all(|n| n.ready().is_some())
}

/// `n1 has been NotReady since 2026-03-01T12:00:00Z (NodeStatusUnknown: Kubelet stopped posting node status)`.
pub(crate) fn describe(node: &str, condition: &NodeCondition) -> String {
    let (since, why) = details(condition);
    format!("{node} has been NotReady{since}{why}")
}

/// `n1, which has been NotReady since 2026-03-01T12:00:00Z`.
pub(crate) fn describe_aside(node: &str, condition: &NodeCondition) -> String {
    let (since, _) = details(condition);
    format!("{node}, which has been NotReady{since}")
}

fn details(condition: &NodeCondition) -> (String, String) {
    let since = condition
        .last_transition_time
        .as_ref()
        .map_or_else(String::new, |at| format!(" since {}", at.0));
    let why = [&condition.reason, &condition.message];
    let why: Vec<String> = why.into_iter().flatten().map(|text| one_line(text)).collect();
    let why = match why.is_empty() {
        true => String::new(),
        false => format!(" ({})", why.join(": ")),
    };
    (since, why)
}

/// The ranges from which Pods of a node really have their addresses: network plugins that assign addresses by
/// themselves leave the Node's ranges unused.
pub(crate) fn ranges_in_use(facts: &Facts, node: &Node) -> Vec<IpNet> {
    let pods = || {
        let of_node = facts
            .pods
            .iter()
            .filter(|p| p.spec.node_name.as_deref() == Some(node.name()));
        let with_network = of_node.filter(|p| !p.is_host_network() && !p.has_ended());
        with_network
            .flat_map(|p| p.ips())
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
    };
    let mut ranges = node.pod_ranges();
    ranges.sort_unstable();
    ranges.dedup();
    ranges.retain(|range| pods().any(|ip| range.contains(&ip)));
    ranges
}
