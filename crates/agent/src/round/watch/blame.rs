//! Which of the rules that can drop packets have dropped some, by their counters.

use svcdiag_api::{DropperEvidence, FilterHook};
use svcdiag_netns::netfilter::droppers::{Backends, Counters, Dropper, Listing, Packet};

/// Droppers that are reported of one drop.
const MAX_DROPPERS: usize = 8;

/// What is to be found out of packets that were dropped.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// One of them.
    pub packet: Packet,
    /// The hooks that they may have been dropped at.
    pub hooks: Vec<FilterHook>,
    /// The backends that may have dropped them.
    pub backends: Backends,
    /// How many were dropped.
    pub packets: u64,
}

/// A rule or a policy that can drop these packets.
#[derive(Clone, Debug)]
struct Suspect {
    dropper: Dropper,
    /// By how much its counter rose; none if it has none, or was not there before.
    rise: Option<u64>,
}

/// Who dropped packets, or may have: from the rules after that, and their counters before.
pub(super) fn droppers(
    listing: &Listing,
    before: &Counters,
    question: &Question,
) -> Vec<svcdiag_api::Dropper> {
    let Question {
        packet,
        hooks,
        backends,
        packets,
    } = question;
    let mut suspects: Vec<Suspect> = Vec::new();
    for dropper in listing.possible(packet, hooks, *backends) {
        let rise = listing.rise(&dropper, before);
        suspects.push(Suspect { dropper, rise });
    }
    // Packets may get to a rule by several base chains.
    suspects.sort_by(|a, b| (&a.dropper.id, a.dropper.hook).cmp(&(&b.dropper.id, b.dropper.hook)));
    suspects.dedup_by(|b, a| a.dropper.id == b.dropper.id);
    suspects.sort_by_key(|suspect| (suspect.dropper.hook, suspect.dropper.priority));
    // Only the function of nf_tables says that it was no one else.
    let is_certain = listing.is_whole(*backends);
    let is_of_nf_tables = !backends.legacy;
    let (evidence, blamed) = blame(suspects, *packets, is_certain, is_of_nf_tables);
    let api = |suspect: Suspect| describe(suspect, evidence, listing);
    blamed.into_iter().take(MAX_DROPPERS).map(api).collect()
}

/// What is left of the suspects, and what that proves.
fn blame(
    suspects: Vec<Suspect>,
    packets: u64,
    is_whole: bool,
    is_of_nf_tables: bool,
) -> (DropperEvidence, Vec<Suspect>) {
    let (silent, counting): (Vec<Suspect>, Vec<Suspect>) =
        suspects.into_iter().partition(|suspect| suspect.rise.is_none());
    let mut risen: Vec<Suspect> = counting
        .into_iter()
        .filter(|suspect| suspect.rise != Some(0))
        .collect();
    let has_counted = |suspect: &&Suspect| suspect.rise.is_some_and(|rise| rise >= packets);
    match (risen.iter().filter(has_counted).count(), silent.len()) {
        // Those whose counters rose by less have dropped others.
        (1, 0) if is_whole => {
            risen.retain(|suspect| has_counted(&suspect));
            (DropperEvidence::Counted, risen)
        }
        (0, 1) if is_whole && is_of_nf_tables && risen.is_empty() => (DropperEvidence::Only, silent),
        _ => {
            // A counter that rose by just as much says more than one that counts all kinds of packets.
            risen.sort_by_key(|suspect| suspect.rise.map_or(u64::MAX, |rise| rise.abs_diff(packets)));
            risen.extend(silent);
            (DropperEvidence::Candidate, risen)
        }
    }
}

fn describe(suspect: Suspect, evidence: DropperEvidence, listing: &Listing) -> svcdiag_api::Dropper {
    let Suspect { dropper, rise } = suspect;
    let text = listing.text(&dropper.id);
    let Dropper {
        id,
        tool,
        base_chain,
        hook,
        priority,
        packets: _,
    } = dropper;
    svcdiag_api::Dropper {
        evidence,
        tool,
        family: id.family,
        table: id.table,
        chain: id.chain,
        base_chain,
        hook,
        priority,
        is_policy: id.rule.is_none(),
        rule: id.rule.and_then(|number| u32::try_from(number).ok()),
        text,
        rose: rise.map(|rise| u32::try_from(rise).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use svcdiag_api::{FilterFamily, FilterTool};
    use svcdiag_netns::netfilter::droppers::Id;

    use super::*;

    const PACKETS: u64 = 3;

    fn suspects(rises: &[Option<u64>]) -> Vec<Suspect> {
        let numbered = rises.iter().zip(1..);
        let suspects = numbered.map(|(rise, number)| Suspect {
            rise: *rise,
            dropper: Dropper {
                id: Id {
                    is_legacy: false,
                    family: FilterFamily::Inet,
                    table: "filter".to_owned(),
                    chain: "forward".to_owned(),
                    rule: Some(number),
                },
                tool: FilterTool::Nftables,
                base_chain: "forward".to_owned(),
                hook: FilterHook::Forward,
                priority: 0,
                packets: None,
            },
        });
        suspects.collect()
    }

    /// The handles of those that are blamed.
    fn blamed(rises: &[Option<u64>], is_whole: bool, is_of_nf_tables: bool) -> (DropperEvidence, Vec<u64>) {
        let (evidence, left) = blame(suspects(rises), PACKETS, is_whole, is_of_nf_tables);
        let handles = left.iter().filter_map(|suspect| suspect.dropper.id.rule);
        (evidence, handles.collect())
    }

    #[test]
    fn the_only_counter_that_rose_by_enough_is_of_the_rule_that_dropped() {
        use DropperEvidence::{Candidate, Counted};
        for backend in [true, false] {
            assert_eq!(blamed(&[Some(0), Some(3)], true, backend), (Counted, vec![2]));
            // It counts what others send as well.
            assert_eq!(blamed(&[Some(0), Some(900)], true, backend), (Counted, vec![2]));
            assert_eq!(blamed(&[Some(1), Some(3)], true, backend), (Counted, vec![2]));
        }
        assert_eq!(blamed(&[Some(0), Some(3)], false, true), (Candidate, vec![2]));
        assert_eq!(
            blamed(&[Some(0), Some(2)], true, true),
            (Candidate, vec![2]),
            "too little"
        );
    }

    #[test]
    fn beside_another_that_may_have_dropped_nothing_is_certain() {
        use DropperEvidence::Candidate;
        assert_eq!(blamed(&[Some(900), Some(3)], true, true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, Some(3)], true, true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, Some(1)], true, true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, None], true, true), (Candidate, vec![1, 2]));
    }

    #[test]
    fn one_without_a_counter_is_the_only_one_where_nothing_else_can_have_dropped() {
        use DropperEvidence::{Candidate, Only};
        assert_eq!(blamed(&[None, Some(0)], true, true), (Only, vec![1]));
        assert_eq!(blamed(&[None], false, true), (Candidate, vec![1]));
        // Conntrack drops in the same function.
        assert_eq!(blamed(&[None], true, false), (Candidate, vec![1]));
        assert_eq!(blamed(&[Some(0)], true, true), (Candidate, vec![]));
    }
}
