//! Who sent the ICMP message that ended a dial.

use std::net::{IpAddr, SocketAddr};

use crate::{
    evidence::{Evidence, dials::Failed, targets::Target},
    pods::node::ranges_in_use,
};
use svcdiag_api::{DialPath, Rejection};
use svcdiag_objects::Object;

/// Who rejected a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sender<'a> {
    /// A node.
    Node(&'a str),
    /// Probably a node: the address is in its Pod range alone, and no Pod is known to have it.
    Probably(&'a str, IpAddr),
    /// The Pod that dialled: something in its own network namespace.
    Client(&'a str),
    /// The Pod that was dialled, by the endpoint's address.
    Endpoint(SocketAddr),
    /// Somebody behind this address of the Service, which the message seems to come from: whoever translates the
    /// packets of a connection translates the messages about it.
    Hidden(SocketAddr),
    /// A machine that is not known by this address, or one of several Nodes that have it.
    Other(IpAddr),
}

impl Sender<'_> {
    /// Whether it may be a node. A node has addresses that are not known here.
    pub(crate) fn may_be(self, node: &str) -> bool {
        match self {
            Self::Node(known) | Self::Probably(known, _) => known == node,
            Self::Client(_) | Self::Endpoint(_) => false,
            Self::Hidden(_) | Self::Other(_) => true,
        }
    }
}

/// What a failed dial says of its rejection.
pub(crate) fn rejection(failed: &Failed<'_>) -> Option<Rejection> {
    Rejection::parse(failed.dial.detail.as_deref()?)
}

/// Whether a message said that the packets are administratively prohibited, as firewalls do.
pub(crate) fn is_prohibited(failed: &Failed<'_>) -> bool {
    failed.is_lost() && rejection(failed).is_some_and(|r| r.is_prohibited)
}

/// Who rejected a dial, if somebody said so.
pub(crate) fn sender<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Option<Sender<'a>> {
    let rejection = rejection(failed)?;
    let by = rejection.by;
    let target: SocketAddr = failed.dial.target.parse().ok()?;
    if failed.dial.path != DialPath::Endpoint && by == target.ip() {
        return Some(Sender::Hidden(target));
    }
    if rejection.is_by_node {
        return Some(Sender::Node(failed.node));
    }
    // An address that two Nodes claim names neither.
    if let [node] = claimants(evidence, by).as_slice() {
        return Some(Sender::Node(node));
    }
    let host = failed.target.filter(Target::is_host_network).and_then(|t| t.node);
    Some(match failed.dial.from.as_deref() {
        _ if by == target.ip() => host.map_or(Sender::Endpoint(target), Sender::Node),
        Some(client) if has_address(evidence, client, by) => Sender::Client(client),
        _ => owner(evidence, by).map_or(Sender::Other(by), |node| Sender::Probably(node, by)),
    })
}

/// The Nodes that have an address as their InternalIP, by name.
pub(crate) fn claimants<'a>(evidence: &Evidence<'a>, ip: IpAddr) -> Vec<&'a str> {
    let nodes = evidence.facts.cluster_nodes.iter();
    let nodes = nodes.filter(|n| n.internal_ips().contains(&ip));
    let mut names: Vec<&str> = nodes.map(|n| n.name()).collect();
    names.sort_unstable();
    names
}

/// The Node whose own end of the Pod network, such as flannel.1 or cni0, has an address.
fn owner<'a>(evidence: &Evidence<'a>, ip: IpAddr) -> Option<&'a str> {
    if evidence.ends.has_pod_at(ip) {
        return None;
    }
    let nodes = evidence.facts.cluster_nodes.iter();
    let mut holders = nodes.filter(|n| n.pod_ranges().iter().any(|range| range.contains(&ip)));
    let node = holders.next().filter(|_| holders.next().is_none())?;
    let used = ranges_in_use(evidence.facts, node);
    used.iter().any(|range| range.contains(&ip)).then(|| node.name())
}

/// The node that rejected a dial, or probably did.
pub(crate) fn rejecting_node<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Option<&'a str> {
    match sender(evidence, failed)? {
        Sender::Node(node) | Sender::Probably(node, _) => Some(node),
        _ => None,
    }
}

/// The same as the beginning of a sentence.
pub(crate) fn rejecting_node_text(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<String> {
    match sender(evidence, failed)? {
        Sender::Node(node) => Some(format!("Node {node}")),
        Sender::Probably(node, _) => Some(format!("Probably node {node}")),
        _ => None,
    }
}

/// Whether a client Pod, as namespace/name, has an address of its own.
fn has_address(evidence: &Evidence<'_>, client: &str, ip: IpAddr) -> bool {
    let asked = evidence.reports.current.iter().flat_map(|r| &r.asked.clients);
    let mut own = asked.filter(|pod| !pod.host_network && key_of(pod) == client);
    own.any(|pod| pod.ips.iter().any(|own| own.parse() == Ok(ip)))
}

fn key_of(pod: &svcdiag_api::ProbePod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
