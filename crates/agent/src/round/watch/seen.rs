//! What the watches of a round have seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use parking_lot::{Mutex, MutexGuard};
use svcdiag_api::{Answer, NodeFacts, PacketDrop};
use svcdiag_kube_proxy::Protocol;

use crate::round::MAX_FAILURES;

/// Sockets of a round whose packets are known: more than its dials.
const MAX_SOURCES: usize = 16 * 1024;

/// What the watches of a round have in common.
#[derive(Debug, Default)]
pub(in crate::round) struct Seen {
    /// The sockets that dialled.
    sources: Mutex<BTreeSet<SocketAddr>>,
    drops: Mutex<BTreeMap<PacketDrop, u64>>,
}

impl Seen {
    /// Notes the socket of a dial.
    pub(in crate::round) fn note_source(&self, source: Option<SocketAddr>) {
        let mut sources = self.sources.lock();
        if sources.len() < MAX_SOURCES {
            sources.extend(source);
        }
    }

    /// The sockets that have dialled so far.
    pub(super) fn sources(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.sources.lock()
    }

    /// Notes packets that were dropped.
    pub(in crate::round) fn note(&self, drop: PacketDrop, packets: u64) {
        let mut drops = self.drops.lock();
        let count = drops.entry(drop).or_default();
        *count = count.saturating_add(packets);
    }

    /// The drops of the dials that failed again, those with most packets first.
    pub(in crate::round) fn of_failures(self, facts: &NodeFacts) -> Vec<PacketDrop> {
        let failures = facts.failures.iter().map(|failure| {
            let (from, target) = (failure.from.as_deref(), failure.target.as_str());
            (from, failure.port.protocol, target)
        });
        let has_failed = |answer: Option<Answer>| answer.is_some_and(|answer| answer != Answer::Accepted);
        let hairpins = facts.hairpins.iter().filter(|hairpin| has_failed(hairpin.answer));
        let hairpins =
            hairpins.map(|hairpin| (Some(hairpin.pod.as_str()), Protocol::Tcp, hairpin.target.as_str()));
        let failed: BTreeSet<(Option<&str>, Protocol, &str)> = failures.chain(hairpins).collect();
        let counted = self.drops.into_inner().into_iter();
        let mut drops: Vec<PacketDrop> = counted
            .map(|(drop, packets)| PacketDrop {
                packets: u32::try_from(packets).unwrap_or(u32::MAX),
                ..drop
            })
            .filter(|drop| failed.contains(&(drop.from.as_deref(), drop.protocol, drop.target.as_str())))
            .collect();
        drops.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.cmp(b)));
        drops.truncate(MAX_FAILURES);
        drops.sort();
        drops
    }
}

#[cfg(test)]
mod tests {
    use svcdiag_api::{DialFailure, DialPath, DropCause, DropPlace};

    use super::*;

    #[test]
    fn drops_of_a_port_are_those_of_its_protocol() {
        const TARGET: &str = "10.96.0.10:53";
        let seen = Seen::default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let drop = PacketDrop {
                from: None,
                protocol,
                target: TARGET.to_owned(),
                endpoint: None,
                answers: false,
                cause: DropCause::Firewall,
                place: DropPlace::Node,
                interface: None,
                reason: "NETFILTER_DROP".to_owned(),
                function: None,
                packets: 0,
            };
            seen.note(drop, 1);
        }
        let failure = DialFailure {
            from: None,
            path: DialPath::Service,
            port: "53/TCP".parse().unwrap(),
            target: TARGET.to_owned(),
            endpoint: None,
            same_node: None,
            same_bridge: false,
            answer: Answer::TimedOut,
            detail: None,
        };
        let facts = NodeFacts {
            failures: vec![failure],
            ..NodeFacts::default()
        };
        let protocols: Vec<Protocol> = seen
            .of_failures(&facts)
            .iter()
            .map(|drop| drop.protocol)
            .collect();
        assert_eq!(protocols, [Protocol::Tcp]);
    }
}
