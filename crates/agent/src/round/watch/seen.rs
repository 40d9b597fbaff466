//! What the watches of a round have seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use parking_lot::{Mutex, MutexGuard};
use svcdiag_api::{Answer, Dropper, DropperEvidence, NodeFacts, PacketDrop};
use svcdiag_kube_proxy::Protocol;

use crate::round::MAX_FAILURES;

/// Sockets of a round whose packets are known: more than its dials.
const MAX_SOURCES: usize = 16 * 1024;

/// What the watches of a round have in common.
#[derive(Debug, Default)]
pub(in crate::round) struct Seen {
    /// The sockets that dialled.
    sources: Mutex<BTreeSet<SocketAddr>>,
    drops: Mutex<BTreeMap<PacketDrop, Dropped>>,
}

/// How many packets were dropped, and by what.
#[derive(Debug, Default)]
struct Dropped {
    packets: u64,
    droppers: Vec<Dropper>,
}

impl Dropped {
    /// Where two watches have found different rules each of them is but one that may have dropped the packets.
    fn add(&mut self, packets: u64, droppers: Vec<Dropper>) {
        let essence = |droppers: &[Dropper]| -> Vec<Dropper> {
            let essence = droppers.iter().cloned().map(|dropper| Dropper {
                rose: None,
                ..dropper
            });
            essence.collect()
        };
        let is_same = essence(&self.droppers) == essence(&droppers);
        if self.packets == 0 {
            self.droppers = droppers;
        } else if !is_same {
            let unknown = droppers.into_iter().filter(|new| {
                let is_new = |old: &Dropper| {
                    (&old.table, &old.chain, old.rule) != (&new.table, &new.chain, new.rule)
                        || (old.family, old.tool) != (new.family, new.tool)
                };
                self.droppers.iter().all(is_new)
            });
            let unknown: Vec<Dropper> = unknown.collect();
            self.droppers.extend(unknown);
            for dropper in &mut self.droppers {
                dropper.evidence = DropperEvidence::Candidate;
            }
        }
        self.packets = self.packets.saturating_add(packets);
    }
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
    pub(in crate::round) fn sources(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.sources.lock()
    }

    /// Notes packets that were dropped, and by what.
    pub(in crate::round) fn note(&self, drop: PacketDrop, packets: u64, droppers: Vec<Dropper>) {
        let mut drops = self.drops.lock();
        drops.entry(drop).or_default().add(packets, droppers);
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
            .map(|(drop, of)| PacketDrop {
                packets: u32::try_from(of.packets).unwrap_or(u32::MAX),
                droppers: of.droppers,
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
    use svcdiag_api::{DialFailure, DialPath, DropCause, DropPlace, FilterFamily, FilterHook, FilterTool};

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
                carrier: None,
                droppers: Vec::new(),
            };
            seen.note(drop, 1, Vec::new());
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
    #[test]
    fn two_watches_that_name_different_rules_name_none_for_certain() {
        let dropper = |rule, rose| Dropper {
            evidence: DropperEvidence::Counted,
            tool: FilterTool::Nftables,
            family: FilterFamily::Inet,
            table: "filter".to_owned(),
            chain: "forward".to_owned(),
            base_chain: "forward".to_owned(),
            hook: FilterHook::Forward,
            priority: 0,
            is_policy: false,
            rule: Some(rule),
            text: None,
            rose: Some(rose),
        };
        let mut dropped = Dropped::default();
        dropped.add(3, vec![dropper(1, 3)]);
        dropped.add(2, vec![dropper(1, 2)]);
        assert_eq!((dropped.packets, &dropped.droppers), (5, &vec![dropper(1, 3)]));
        dropped.add(1, vec![dropper(2, 1)]);
        let found: Vec<(DropperEvidence, Option<u32>)> = dropped
            .droppers
            .iter()
            .map(|dropper| (dropper.evidence, dropper.rule))
            .collect();
        let candidate = DropperEvidence::Candidate;
        assert_eq!(found, [(candidate, Some(1)), (candidate, Some(2))]);
    }
}
