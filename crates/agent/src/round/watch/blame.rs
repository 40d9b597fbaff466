//! Which of the rules that can drop packets have dropped some, by their counters.

use std::ops::RangeInclusive;

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

/// Who dropped packets, or may have: from the rules after that, and their counters before. `total` is how many were seen to
/// be dropped by a firewall in the namespace meanwhile, these among them.
pub(super) fn droppers(
    listing: &Listing,
    before: &Counters,
    question: &Question,
    total: u64,
) -> Vec<svcdiag_api::Dropper> {
    let Question {
        packet,
        hooks,
        backends,
        packets,
    } = question;
    let possible = listing.possible(packet, hooks, *backends);
    let suspects = possible.droppers.into_iter().map(|dropper| Suspect {
        rise: listing.rise(&dropper, before),
        dropper,
    });
    let mut suspects: Vec<Suspect> = suspects.collect();
    suspects.sort_by_key(|suspect| (suspect.dropper.hook, suspect.dropper.priority));
    let are_all = possible.are_all && listing.is_whole(*backends);
    let (evidence, blamed) = blame(suspects, *packets..=total, are_all);
    let api = |suspect: Suspect| describe(suspect, evidence, listing);
    blamed.into_iter().take(MAX_DROPPERS).map(api).collect()
}

/// What is left of the suspects, and what that proves.
///
/// One is certain only if nothing else is left, and if it is known to drop such packets or its counter rose by as many as
/// were dropped: a counter that rose by more counts what others send, and what dropped these packets may be no rule at all
/// (connection tracking, address translation), or one that was wrongly ruled out.
fn blame(
    suspects: Vec<Suspect>,
    dropped: RangeInclusive<u64>,
    are_all: bool,
) -> (DropperEvidence, Vec<Suspect>) {
    let (silent, counting): (Vec<Suspect>, Vec<Suspect>) =
        suspects.into_iter().partition(|suspect| suspect.rise.is_none());
    let mut risen: Vec<Suspect> = counting
        .into_iter()
        .filter(|suspect| suspect.rise != Some(0))
        .collect();
    let has_counted = |suspect: &&Suspect| suspect.rise.is_some_and(|rise| rise >= *dropped.start());
    let is_proven = |suspect: &Suspect| {
        suspect.dropper.is_certain || suspect.rise.is_some_and(|rise| dropped.contains(&rise))
    };
    let counted = risen.iter().filter(has_counted).count();
    if are_all && counted == 1 && silent.is_empty() && risen.iter().filter(has_counted).all(is_proven) {
        // Those whose counters rose by less have dropped others.
        risen.retain(|suspect| has_counted(&suspect));
        return (DropperEvidence::Counted, risen);
    }
    if are_all && risen.is_empty() && silent.len() == 1 && silent.iter().all(is_proven) {
        return (DropperEvidence::Only, silent);
    }
    // A counter that rose by just as much says more than one that counts all kinds of packets.
    risen.sort_by_key(|suspect| {
        suspect
            .rise
            .map_or(u64::MAX, |rise| rise.abs_diff(*dropped.start()))
    });
    risen.extend(silent);
    (DropperEvidence::Candidate, risen)
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
        is_certain: _,
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

    /// As many packets of the dial were dropped, and as many of all.
    const DROPPED: RangeInclusive<u64> = 3..=9;

    /// Suspects by how much their counters rose, each with whether it drops such packets for certain.
    fn suspects(rises: &[(Option<u64>, bool)]) -> Vec<Suspect> {
        let numbered = rises.iter().zip(1..);
        let suspects = numbered.map(|((rise, is_certain), number)| Suspect {
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
                is_certain: *is_certain,
            },
        });
        suspects.collect()
    }

    /// The handles of those that are blamed.
    fn blamed_of(rises: &[(Option<u64>, bool)], are_all: bool) -> (DropperEvidence, Vec<u64>) {
        let (evidence, left) = blame(suspects(rises), DROPPED, are_all);
        let handles = left.iter().filter_map(|suspect| suspect.dropper.id.rule);
        (evidence, handles.collect())
    }

    /// The same of suspects that drop such packets for certain.
    fn blamed(rises: &[Option<u64>], are_all: bool) -> (DropperEvidence, Vec<u64>) {
        let rises: Vec<(Option<u64>, bool)> = rises.iter().map(|rise| (*rise, true)).collect();
        blamed_of(&rises, are_all)
    }

    #[test]
    fn the_only_counter_that_rose_by_enough_is_of_the_rule_that_dropped() {
        use DropperEvidence::{Candidate, Counted};
        assert_eq!(blamed(&[Some(0), Some(3)], true), (Counted, vec![2]));
        // It counts what others send as well.
        assert_eq!(blamed(&[Some(0), Some(900)], true), (Counted, vec![2]));
        assert_eq!(blamed(&[Some(1), Some(3)], true), (Counted, vec![2]));
        assert_eq!(blamed(&[Some(0), Some(3)], false), (Candidate, vec![2]));
        assert_eq!(
            blamed(&[Some(0), Some(2)], true),
            (Candidate, vec![2]),
            "too little"
        );
    }

    #[test]
    fn beside_another_that_may_have_dropped_nothing_is_certain() {
        use DropperEvidence::Candidate;
        assert_eq!(blamed(&[Some(900), Some(3)], true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, Some(3)], true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, Some(1)], true), (Candidate, vec![2, 1]));
        assert_eq!(blamed(&[None, None], true), (Candidate, vec![1, 2]));
    }

    #[test]
    fn one_without_a_counter_is_the_only_one_where_nothing_else_can_have_dropped() {
        use DropperEvidence::{Candidate, Only};
        assert_eq!(blamed(&[None, Some(0)], true), (Only, vec![1]));
        assert_eq!(blamed(&[None], false), (Candidate, vec![1]));
        assert_eq!(blamed(&[Some(0)], true), (Candidate, vec![]));
    }

    /// What dropped these may be something that was ruled out, or no rule: connection tracking, address translation.
    #[test]
    fn one_that_only_may_drop_them_is_certain_only_by_a_counter_that_rose_by_as_many() {
        use DropperEvidence::{Candidate, Counted};
        assert_eq!(blamed_of(&[(Some(3), false)], true), (Counted, vec![1]));
        assert_eq!(
            blamed_of(&[(Some(9), false)], true),
            (Counted, vec![1]),
            "of several dials"
        );
        assert_eq!(blamed_of(&[(Some(900), false)], true), (Candidate, vec![1]));
        assert_eq!(blamed_of(&[(None, false)], true), (Candidate, vec![1]));
    }
}
