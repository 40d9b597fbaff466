//! What an endpoint's node saw of the packets of a client on another node: whether they arrive there, and whether answers
//! leave.

use std::net::SocketAddr;

use crate::evidence::{Evidence, dials::Failed};
use svcdiag_api::{
    Answer, Arrived, Carrier, DialPath, DropPlace, IpFamily, Left, PacketDrop, ProbeArrival, Protocol,
};

/// What was seen of a failed dial, or of another one between the same nodes that failed as well.
pub(crate) struct Arrival<'a> {
    /// The endpoint's node.
    pub node: &'a str,
    /// The dial that was watched.
    pub seen: &'a Arrived,
    /// Its packets that the node, or the endpoint's Pod, dropped.
    pub drops: Vec<&'a PacketDrop>,
    /// What the client's node saw of them when the dial was repeated.
    pub left: Option<&'a Left>,
    /// Whether the interface that they left by is a tunnel's, or not known; None where nobody has listed the tunnels.
    pub left_by_tunnel: Option<bool>,
}

/// How far the packets of a dial got, and those of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The endpoint's node saw none of them.
    NotThere,
    /// They came in there, and nobody saw an answer.
    There,
    /// The endpoint's Pod answered, and the answer did not leave its node.
    Answered,
    /// The answer left the endpoint's node.
    Returned,
}

impl Arrival<'_> {
    pub(crate) fn reach(&self) -> Reach {
        // What was dropped there was there.
        let is_dropped = self.drops.iter().any(|drop| drop.carrier.is_none());
        match (self.seen.arrived, self.seen.answered, self.seen.returned) {
            (_, _, 1..) => Reach::Returned,
            (_, 1.., 0) => Reach::Answered,
            (1.., 0, 0) => Reach::There,
            (0, 0, 0) if is_dropped => Reach::There,
            (0, 0, 0) => Reach::NotThere,
        }
    }

    /// Whether the packets, or their answers, may have been lost on a node. What a tunnel carries may also be lost before it
    /// is taken out of it, and after it is put into it.
    pub(crate) fn may_be_lost_on(&self, node: &str) -> bool {
        let is_here = node == self.node;
        match self.reach() {
            Reach::NotThere => !is_here || !self.seen.direct && !self.has_no_carrier(),
            Reach::Returned => !is_here || !self.seen.direct,
            Reach::There | Reach::Answered => is_here,
        }
    }

    /// Whether packets were seen to leave one of the nodes, and not to arrive at the other. What a tunnel carries may also be
    /// lost on the node that it ends on, unless nothing of the tunnel arrives.
    pub(crate) fn is_lost_between(&self) -> bool {
        let Some(left) = self.left.filter(|_| self.drops.is_empty()) else {
            return false;
        };
        // The one node's route may not show the tunnel that the other one's packets are in.
        let is_plain = self.seen.direct && self.left_by_tunnel == Some(false);
        match self.reach() {
            Reach::NotThere => is_plain || self.has_no_carrier(),
            Reach::Returned => is_plain && left.answers == 0,
            Reach::There | Reach::Answered => false,
        }
    }

    /// Whether the packets of a tunnel that were dropped may be those of the dial: the nodes may have another tunnel that
    /// carries none of it, and others' packets may be dropped while these pass.
    pub(crate) fn is_carried_by(&self, drop: &PacketDrop) -> bool {
        let is_its_way = match (&self.seen.carrier, &drop.carrier) {
            (Some(way), Some(carrier)) if drop.answers => {
                (&way.from, &way.to, way.port) == (&carrier.to, &carrier.from, carrier.port)
            }
            (Some(way), Some(carrier)) => way == carrier,
            (_, _) => !self.seen.direct,
        };
        is_its_way
            && match (self.reach(), drop.answers) {
                (Reach::NotThere, false) => drop.packets >= self.seen.carried / 2,
                (Reach::Returned, true) => {
                    drop.packets >= self.seen.returned && self.left.is_some_and(|left| left.answers == 0)
                }
                _ => false,
            }
    }

    /// The same of packets that the client's node dropped: only if it is known how many of that tunnel arrived. A dial sends
    /// more than one packet, so that a single one was somebody else's.
    pub(crate) fn was_to_be_carried_by(&self, drop: &PacketDrop) -> bool {
        drop.packets > 1 && self.seen.carrier.is_some() && self.is_carried_by(drop)
    }

    /// Whether it is known what carries the packets, and that none of it came.
    pub(crate) fn has_no_carrier(&self) -> bool {
        self.seen.carrier.is_some() && self.seen.carried == 0
    }
}

/// What the endpoint's node saw of a failed dial.
pub(crate) fn of<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Option<Arrival<'a>> {
    let endpoint = failed.endpoint?;
    let node = failed.target?.node.filter(|node| *node != failed.node)?;
    let is_lost = failed.dial.path == DialPath::Endpoint && failed.answer == Answer::TimedOut;
    if !is_lost || failed.from_host {
        return None;
    }
    let report = evidence
        .reports
        .current
        .iter()
        .find(|report| report.node == node)?;
    let asked = report.asked.arrivals.as_ref()?;
    let said = report.facts.arrivals.as_ref()?;
    let is_alike = |dial: &&ProbeArrival| {
        let there = dial.endpoint.parse().ok();
        dial.node == failed.node
            && dial.protocol == failed.dial.port.protocol
            && there.is_some_and(|there: SocketAddr| {
                there.port() == endpoint.port() && IpFamily::of(there.ip()) == IpFamily::of(endpoint.ip())
            })
            && is_lost_now(evidence, dial)
    };
    let is_it = |dial: &ProbeArrival| {
        Some(&dial.from) == failed.dial.from.as_ref() && dial.endpoint == failed.dial.target
    };
    let seen = |dial: &ProbeArrival| {
        said.dials
            .iter()
            .find(|seen| is_its(dial, Some(&seen.from), seen.protocol, &seen.endpoint))
    };
    let watched = || {
        asked
            .dials
            .iter()
            .filter(is_alike)
            .filter_map(|dial| Some((dial, seen(dial)?)))
    };
    let exact = watched().find(|(dial, _)| is_it(dial));
    let is_exact = exact.is_some();
    let (dial, seen) = exact.or_else(|| watched().next())?;
    let drops = report.facts.arrival_drops.iter();
    let drops = drops.filter(|drop| is_its(dial, drop.from.as_deref(), drop.protocol, &drop.target));
    // What a Pod drops, and of answers, is of that Pod alone.
    let drops = drops.filter(|drop| is_exact || drop.place == DropPlace::Node && !drop.answers);
    let left = left(evidence, dial);
    let arrival = Arrival {
        node,
        seen,
        drops: drops.collect(),
        left,
        left_by_tunnel: left.and_then(|left| is_tunnel(evidence, failed.node, left.interface.as_deref())),
    };
    let drops = arrival.drops.iter().copied();
    let drops = drops.filter(|drop| drop.carrier.is_none() || arrival.is_carried_by(drop));
    Some(Arrival {
        drops: drops.collect(),
        ..arrival
    })
}

/// What the client's node saw of the packets of a dial that is watched.
fn left<'a>(evidence: &Evidence<'a>, dial: &ProbeArrival) -> Option<&'a Left> {
    let mut reports = evidence.reports.current.iter();
    let report = reports.find(|report| report.node == dial.node)?;
    let mut left = report.facts.left.iter().filter(|left| left.sent > 0);
    left.find(|left| is_its(dial, Some(&left.from), left.protocol, &left.endpoint))
}

/// Whether an interface of a node is a tunnel's, or not known; None where the node has not listed its tunnels.
fn is_tunnel(evidence: &Evidence<'_>, node: &str, interface: Option<&str>) -> Option<bool> {
    let mut reports = evidence.reports.current.iter();
    let tunnels = reports
        .find(|report| report.node == node)?
        .facts
        .tunnels
        .as_ref()?;
    Some(
        tunnels
            .iter()
            .any(|tunnel| Some(tunnel.name.as_str()) == interface)
            || interface.is_none(),
    )
}

fn is_its(dial: &ProbeArrival, from: Option<&str>, protocol: Protocol, to: &str) -> bool {
    from == Some(dial.from.as_str()) && protocol == dial.protocol && to == dial.endpoint
}

/// Whether the client still loses what it sends.
fn is_lost_now(evidence: &Evidence<'_>, dial: &ProbeArrival) -> bool {
    evidence.direct.failures.iter().any(|failed| {
        failed.node == dial.node
            && failed.dial.from.as_ref() == Some(&dial.from)
            && failed.dial.target == dial.endpoint
            && failed.dial.port.protocol == dial.protocol
            && failed.answer == Answer::TimedOut
    })
}

/// `UDP port 8472 from 10.1.0.4 to 10.1.0.5`.
pub(crate) fn carrier(carrier: &Carrier) -> String {
    let Carrier { from, to, port } = carrier;
    format!("UDP port {port} from {from} to {to}")
}

/// As an observation: `of Pod shop/client to 10.244.2.6:9376, node w2 saw 3 packets arrive (flannel.1) and 0 answers leave`.
pub(crate) fn observed(arrival: &Arrival<'_>) -> String {
    let Arrived {
        from,
        endpoint,
        arrived,
        interface,
        returned,
        return_interface,
        ..
    } = arrival.seen;
    let by = |interface: &Option<String>| match interface {
        Some(interface) => format!(" ({interface})"),
        None => String::new(),
    };
    let there = format!(
        "of Pod {from} to {endpoint}, node {} saw {arrived} packets arrive{} and {returned} answers leave{}",
        arrival.node,
        by(interface),
        by(return_interface)
    );
    let left = arrival.left.map(|left| {
        let answers = match left.answers {
            0 => String::new(),
            answers => format!(" and {answers} answers arrive{}", by(&left.answer_interface)),
        };
        format!(
            "; the node of that Pod saw {} packets leave{}{answers}",
            left.sent,
            by(&left.interface)
        )
    });
    format!("{there}{}", left.unwrap_or_default())
}
