//! NetworkPolicies, evaluated as the API's documentation of `networking.k8s.io/v1` says.
//!
//! A Pod that no policy selects for a direction is free in it. One that is selected is isolated:
//! only what a rule of one of the selecting policies admits may pass. Whether the cluster enforces
//! policies at all cannot be seen in the API.

use std::net::IpAddr;

use svcdiag_objects::{
    IpBlock, LabelSelector, Labels, NetworkPolicy, Object, Open, Peer, Pod, PolicyPort, Protocol,
};

/// What the policies say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// No rule admits it.
    Denied,
    /// A rule may admit it; the API leaves that to the network plugin, or the labels that decide could not
    /// be read.
    Undecided(Doubt),
    /// A rule admits it.
    Admitted,
    /// No policy isolates the Pod.
    Free,
}

impl Access {
    /// Whether traffic passes for sure.
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::Admitted | Self::Free)
    }
}

/// Why nobody can say whether a rule admits a connection; the last ones are the most likely to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// A selector matches a Pod of the host network, which plugins know by its node's address.
    HostNetwork,
    /// A block of addresses holds the Service's own, which is replaced before most plugins see the packet.
    ClusterIP,
    /// Labels of a Namespace are not known.
    Namespace,
    /// A block of addresses holds that of a Pod.
    Block,
}

impl Doubt {
    /// Whether most network plugins do not admit it.
    pub(crate) fn is_mostly_denied(self) -> bool {
        matches!(self, Self::HostNetwork | Self::ClusterIP)
    }
}

/// The direction in which a policy isolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Into the Pod.
    Ingress,
    /// Out of the Pod.
    Egress,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// The Pod there, if it is one.
    pub pod: Option<&'a Pod>,
    /// Labels of that Pod's Namespace; `None` where they are not known.
    pub namespace_labels: Option<&'a Labels>,
    /// Its addresses, where it is no Pod.
    pub addresses: &'a [String],
    /// The Service in front of it.
    pub front: Option<Front<'a>>,
}

/// What a client dials in place of an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    /// The Service's own addresses.
    pub addresses: &'a [String],
    /// Its port.
    pub port: Port<'a>,
}

/// A destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port<'a> {
    /// Number on the destination.
    pub number: i32,
    /// Protocol.
    pub protocol: &'a Open<Protocol>,
}

/// A rule's peers and ports, whatever its direction.
type Rule<'a> = (&'a [Peer], &'a [PolicyPort]);

/// The policies that isolate a Pod in a direction, by name. The network plugin knows a hostNetwork
/// Pod by its node's address only, so that no policy selects it.
pub(crate) fn isolating<'a>(
    policies: &[&'a NetworkPolicy],
    pod: &Pod,
    direction: Direction,
) -> Vec<&'a NetworkPolicy> {
    if pod.is_host_network() {
        return Vec::new();
    }
    let selects = |p: &&NetworkPolicy| {
        p.namespace() == pod.namespace()
            && has_type(p, direction)
            && p.spec.pod_selector.matches(pod.labels())
    };
    let mut selected: Vec<&NetworkPolicy> = policies.iter().copied().filter(selects).collect();
    selected.sort_by(|a, b| a.name().cmp(b.name()));
    selected
}

/// Whether a policy is for a direction. Absent types mean Ingress, and Egress if there is an egress rule.
fn has_type(policy: &NetworkPolicy, direction: Direction) -> bool {
    let types = &policy.spec.policy_types;
    match direction {
        Direction::Ingress if types.is_empty() => true,
        Direction::Egress if types.is_empty() => !policy.spec.egress.is_empty(),
        Direction::Ingress => types.iter().any(|t| t == "Ingress"),
        Direction::Egress => types.iter().any(|t| t == "Egress"),
    }
}

pub(super) fn rules(policy: &NetworkPolicy, direction: Direction) -> impl Iterator<Item = Rule<'_>> {
    let (ingress, egress) = match direction {
        Direction::Ingress => (policy.spec.ingress.as_slice(), [].as_slice()),
        Direction::Egress => ([].as_slice(), policy.spec.egress.as_slice()),
    };
    let ingress = ingress.iter().map(|r| (r.from.as_slice(), r.ports.as_slice()));
    ingress.chain(egress.iter().map(|r| (r.to.as_slice(), r.ports.as_slice())))
}

/// Whether policies that isolate a Pod let it talk to `other`. The port is one of the destination:
/// of the Pod itself for ingress, of the other end for egress; `destination` is the Pod whose
/// containers give a port's name its number.
pub(crate) fn access(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    other: End,
    port: Port,
    destination: Option<&Pod>,
) -> Access {
    if isolating.is_empty() {
        return Access::Free;
    }
    let of_rule = |policy: &NetworkPolicy, (peers, ports): Rule| {
        let admits = covers(ports, port, destination);
        let access = if !admits {
            Access::Denied
        } else if peers.is_empty() {
            Access::Admitted
        } else {
            let of_peers = peers.iter().map(|peer| of_peer(policy, peer, other));
            of_peers.max().unwrap_or(Access::Denied)
        };
        let at_front = |front: &Front| {
            (admits || covers(ports, front.port, None)) && peers.iter().any(|peer| names_front(peer, front))
        };
        match other.front.filter(at_front) {
            Some(_) => access.max(Access::Undecided(Doubt::ClusterIP)),
            None => access,
        }
    };
    isolating
        .iter()
        .flat_map(|p| rules(p, direction).map(|r| of_rule(p, r)))
        .max()
        .unwrap_or(Access::Denied)
}

/// Whether any rule admits anybody to a port.
pub(crate) fn admits_anybody(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    port: Port,
    destination: Option<&Pod>,
) -> bool {
    isolating.is_empty()
        || isolating
            .iter()
            .any(|p| rules(p, direction).any(|(_, ports)| covers(ports, port, destination)))
}

/// Whether any rule admits a block of addresses to a port.
pub(crate) fn admits_a_block(isolating: &[&NetworkPolicy], direction: Direction, port: Port) -> bool {
    isolating
        .iter()
        .flat_map(|p| rules(p, direction))
        .any(|(peers, ports)| covers(ports, port, None) && peers.iter().any(|peer| peer.ip_block.is_some()))
}

/// Whether any rule admits to a port those who have nothing but an address: everybody, or a block.
pub(crate) fn admits_addresses(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    port: Port,
    destination: Option<&Pod>,
) -> bool {
    let admits = |(peers, ports): Rule| {
        covers(ports, port, destination)
            && (peers.is_empty() || peers.iter().any(|peer| peer.ip_block.is_some()))
    };
    isolating.iter().flat_map(|p| rules(p, direction)).any(admits)
}

/// Whether a rule's ports hold a port; an empty list holds all.
pub(super) fn covers(ports: &[PolicyPort], port: Port, destination: Option<&Pod>) -> bool {
    use svcdiag_objects::IntOrString;
    ports.is_empty()
        || ports.iter().any(|p| {
            let number = match &p.port {
                None => true,
                Some(IntOrString::Int(first)) => match p.end_port {
                    Some(last) => (*first..=last).contains(&port.number),
                    None => *first == port.number,
                },
                Some(name) => {
                    destination.and_then(|d| d.resolve_port(name, port.protocol)) == Some(port.number)
                }
            };
            p.protocol == *port.protocol && number
        })
}

pub(super) fn of_peer(policy: &NetworkPolicy, peer: &Peer, other: End) -> Access {
    if let Some(block) = &peer.ip_block {
        let own = other.pod.into_iter().flat_map(Pod::ips);
        let mut known = own.chain(other.addresses.iter().map(String::as_str));
        return match (known.any(|ip| contains(block, ip)), other.pod) {
            (false, _) => Access::Denied,
            (true, Some(_)) => Access::Undecided(Doubt::Block),
            (true, None) => Access::Admitted,
        };
    }
    let Some(pod) = other.pod else {
        return Access::Denied;
    };
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none()
        || !selects(peer.pod_selector.as_ref(), pod.labels())
    {
        return Access::Denied;
    }
    let access = match (&peer.namespace_selector, other.namespace_labels) {
        (None, _) if pod.namespace() == policy.namespace() => Access::Admitted,
        (None, _) => Access::Denied,
        (Some(selector), _) if selector.is_empty() => Access::Admitted,
        (Some(_), None) => Access::Undecided(Doubt::Namespace),
        (Some(selector), Some(labels)) if selector.matches(labels) => Access::Admitted,
        (Some(_), Some(_)) => Access::Denied,
    };
    if pod.is_host_network() {
        access.min(Access::Undecided(Doubt::HostNetwork))
    } else {
        access
    }
}

/// Whether a selector, where there is one, matches.
pub(super) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_none_or(|s| s.matches(labels))
}

/// Whether a peer is the Service's own address.
pub(super) fn names_front(peer: &Peer, front: &Front) -> bool {
    let block = peer.ip_block.as_ref();
    block.is_some_and(|block| front.addresses.iter().any(|ip| contains(block, ip)))
}

/// Whether a block of addresses holds an address. What cannot be parsed holds nothing.
pub(super) fn contains(block: &IpBlock, ip: &str) -> bool {
    let Ok(ip) = ip.parse() else { return false };
    in_cidr(&block.cidr, ip) && !block.except.iter().any(|cidr| in_cidr(cidr, ip))
}

pub(super) fn in_cidr(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if length <= 32 => {
            (network.to_bits() ^ ip.to_bits())
                .checked_shr(32 - length)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if length <= 128 => {
            (network.to_bits() ^ ip.to_bits())
                .checked_shr(128 - length)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}
