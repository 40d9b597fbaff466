//! Who sent the ICMP message that ended a dial. It is worked out once, when the dials are collected.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Facts,
    evidence::{
        dropped,
        ends::Ends,
        reports::{Report, Reports},
        targets::Target,
    },
    pods::node::ranges_in_use,
};
use svcdiag_api::{DialFailure, DialPath, DropCause, DropPlace, Rejection};
use svcdiag_objects::Object;

/// What an ICMP message says that ended a dial.
#[derive(Clone, Copy)]
pub(crate) struct Rejected<'a> {
    /// Who sent it.
    pub by: Sender<'a>,
    /// Whether it says that the packets are administratively prohibited, as firewalls do.
    pub is_prohibited: bool,
}

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

impl<'a> Sender<'a> {
    /// The node that it is, or probably is.
    pub(crate) fn node(self) -> Option<&'a str> {
        match self {
            Self::Node(node) | Self::Probably(node, _) => Some(node),
            _ => None,
        }
    }

    /// The same as the beginning of a sentence.
    pub(crate) fn node_text(self) -> Option<String> {
        match self {
            Self::Node(node) => Some(format!("Node {node}")),
            Self::Probably(node, _) => Some(format!("Probably node {node}")),
            _ => None,
        }
    }

    /// Whether it may be a node. A node has addresses that are not known here.
    pub(crate) fn may_be(self, node: &str) -> bool {
        match self {
            Self::Node(known) | Self::Probably(known, _) => known == node,
            Self::Client(_) | Self::Endpoint(_) => false,
            Self::Hidden(_) | Self::Other(_) => true,
        }
    }
}

/// What senders are known by.
pub(super) struct Senders<'a, 'e> {
    pub facts: &'a Facts,
    pub reports: &'e Reports<'a>,
    pub ends: &'e Ends<'a>,
}

impl<'a> Senders<'a, '_> {
    /// Who rejected a dial, if a message said so.
    pub(super) fn rejected(
        &self,
        report: &Report<'a>,
        dial: &'a DialFailure,
        endpoint: Option<Target<'a>>,
    ) -> Option<Rejected<'a>> {
        let rejection = Rejection::parse(dial.detail.as_deref()?)?;
        let target: SocketAddr = dial.target.parse().ok()?;
        Some(Rejected {
            by: self.sender(report, dial, (target, endpoint), rejection),
            is_prohibited: rejection.is_prohibited,
        })
    }

    fn sender(
        &self,
        report: &Report<'a>,
        dial: &'a DialFailure,
        (target, endpoint): (SocketAddr, Option<Target<'a>>),
        Rejection { by, is_by_node, .. }: Rejection,
    ) -> Sender<'a> {
        if dial.path != DialPath::Endpoint && by == target.ip() {
            return behind_the_service(report, dial).unwrap_or(Sender::Hidden(target));
        }
        if is_by_node {
            return Sender::Node(report.node);
        }
        // An address that two Nodes claim names neither.
        if let [node] = claimants(self.facts, by).as_slice() {
            return Sender::Node(node);
        }
        let host = endpoint.filter(Target::is_host_network).and_then(|t| t.node);
        match dial.from.as_deref() {
            _ if by == target.ip() => host.map_or(Sender::Endpoint(target), Sender::Node),
            Some(client) if self.has_address(client, by) => Sender::Client(client),
            _ => self
                .owner(by)
                .map_or(Sender::Other(by), |node| Sender::Probably(node, by)),
        }
    }

    /// The Node whose own end of the Pod network, such as flannel.1 or cni0, has an address.
    fn owner(&self, ip: IpAddr) -> Option<&'a str> {
        if self.ends.has_pod_at(ip) {
            return None;
        }
        let nodes = self.facts.cluster_nodes.iter();
        let mut holders = nodes.filter(|n| n.pod_ranges().iter().any(|range| range.contains(&ip)));
        let node = holders.next().filter(|_| holders.next().is_none())?;
        let used = ranges_in_use(self.facts, node);
        used.iter().any(|range| range.contains(&ip)).then(|| node.name())
    }

    /// Whether a client Pod, as namespace/name, has an address of its own.
    fn has_address(&self, client: &str, ip: IpAddr) -> bool {
        let asked = self.reports.current.iter().flat_map(|r| &r.asked.clients);
        let mut own = asked.filter(|pod| !pod.host_network && key_of(pod) == client);
        own.any(|pod| pod.ips.iter().any(|own| own.parse() == Ok(ip)))
    }
}

/// Who rejects what was sent to the Service, where the kernel saw which network namespace dropped it. Rules that reject
/// drop as well.
fn behind_the_service<'a>(report: &Report<'a>, dial: &'a DialFailure) -> Option<Sender<'a>> {
    // A full table drops as well, and rejects nothing.
    let is_full = report.facts.settings.conntrack_full == Some(true);
    let of_firewalls = |drop: &&svcdiag_api::PacketDrop| {
        let is_of_table = is_full && dropped::may_be_of_conntrack(drop);
        drop.cause == DropCause::Firewall && !drop.answers && !is_of_table
    };
    let senders = dropped::of_dial(report.facts, dial).filter(of_firewalls);
    let mut senders = senders.map(|drop| match drop.place {
        DropPlace::Node => Some(Sender::Node(report.node)),
        DropPlace::Client => dial.from.as_deref().map(Sender::Client),
        DropPlace::Endpoint => Some(Sender::Endpoint(drop.endpoint.as_deref()?.parse().ok()?)),
    });
    // Where several drop, it may be any of them.
    let first = senders.next()??;
    senders.all(|other| other == Some(first)).then_some(first)
}

/// The Nodes that have an address as their InternalIP, by name.
pub(crate) fn claimants(facts: &Facts, ip: IpAddr) -> Vec<&str> {
    let nodes = facts.cluster_nodes.iter();
    let nodes = nodes.filter(|n| n.internal_ips().contains(&ip));
    let mut names: Vec<&str> = nodes.map(|n| n.name()).collect();
    names.sort_unstable();
    names
}

fn key_of(pod: &svcdiag_api::ProbePod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
