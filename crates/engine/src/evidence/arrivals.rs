//! What an endpoint's node saw of the packets of a client on another node: whether they arrive there, and whether answers
//! leave.

use std::net::SocketAddr;

use crate::evidence::{Evidence, dials::Failed};
use svcdiag_api::{Answer, Arrived, Carrier, DialPath, IpFamily, PacketDrop, ProbeArrival, WatchState};

/// What was seen of a failed dial, or of another one between the same nodes that failed as well.
#[derive(Clone)]
pub(crate) struct Arrival<'a> {
    /// The endpoint's node.
    pub node: &'a str,
    /// The dial that was watched.
    pub seen: &'a Arrived,
    /// Its packets that the node, or the endpoint's Pod, dropped.
    pub drops: Vec<&'a PacketDrop>,
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
        match (self.seen.arrived, self.seen.answered, self.seen.returned) {
            (_, _, 1..) => Reach::Returned,
            (_, 1.., 0) => Reach::Answered,
            (1.., 0, 0) => Reach::There,
            (0, 0, 0) => Reach::NotThere,
        }
    }

    /// Whether the packets, or their answers, may have been lost on a node.
    pub(crate) fn may_be_lost_on(&self, node: &str) -> bool {
        match self.reach() {
            Reach::NotThere | Reach::Returned => node != self.node,
            Reach::There | Reach::Answered => node == self.node,
        }
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
    let said = report.facts.arrivals.as_ref().filter(|said| {
        said.state == WatchState::Ended && said.token == asked.token && said.id == asked.ended
    })?;
    let is_alike = |dial: &&ProbeArrival| {
        let there = dial.endpoint.parse().ok();
        dial.node == failed.node
            && dial.protocol == failed.dial.port.protocol
            && there.is_some_and(|there: SocketAddr| {
                there.port() == endpoint.port() && IpFamily::of(there.ip()) == IpFamily::of(endpoint.ip())
            })
            && is_lost_now(evidence, dial)
    };
    let is_it = |dial: &&ProbeArrival| {
        Some(&dial.from) == failed.dial.from.as_ref() && dial.endpoint == failed.dial.target
    };
    let watched = || asked.dials.iter().filter(is_alike);
    let watched = watched().find(is_it).or_else(|| watched().next())?;
    let is_its = |from: Option<&str>, protocol, to: &str| {
        from == Some(watched.from.as_str()) && protocol == watched.protocol && to == watched.endpoint
    };
    let seen = said
        .dials
        .iter()
        .find(|seen| is_its(Some(&seen.from), seen.protocol, &seen.endpoint))?;
    let drops = report.facts.arrival_drops.iter();
    Some(Arrival {
        node,
        seen,
        drops: drops
            .filter(|drop| is_its(drop.from.as_deref(), drop.protocol, &drop.target))
            .collect(),
    })
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
    format!(
        "of Pod {from} to {endpoint}, node {} saw {arrived} packets arrive{} and {returned} answers leave{}",
        arrival.node,
        by(interface),
        by(return_interface)
    )
}
