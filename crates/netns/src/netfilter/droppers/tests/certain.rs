//! Which rules drop a packet for certain, and how much is looked at for it.

use super::*;

/// Handles of the rules of chain forward that can drop a packet, each with whether it does for certain.
fn certain(rules: Vec<Vec<u8>>, others: &[(&str, Vec<Vec<u8>>)]) -> Vec<(Option<u64>, bool)> {
    let mut chains = vec![("forward", rules)];
    chains.extend_from_slice(others);
    let found = listing(table(true, Some(0), &chains)).possible(&syn(), &[FilterHook::Forward], NF_TABLES);
    assert!(found.are_all);
    let found = found.droppers.into_iter();
    found
        .map(|dropper| (dropper.id.rule, dropper.is_certain))
        .collect()
}

/// `meta mark 7`: nothing is known of that.
fn marked() -> Vec<u8> {
    [loaded("meta", 3), equals(&[7, 0, 0, 0])].concat()
}

#[test]
fn a_rule_drops_for_certain_if_all_its_conditions_are_known_and_nothing_may_have_come_before() {
    let here = || [to(ENDPOINT), drop_()].concat();
    assert_eq!(certain(vec![here()], &[]), [(Some(1), true)]);
    assert_eq!(
        certain(vec![[to(OTHER), accept()].concat(), here()], &[]),
        [(Some(2), true)]
    );
    assert_eq!(
        certain(vec![[marked(), accept()].concat(), here()], &[]),
        [(Some(2), false)],
        "it may have been accepted"
    );
    assert_eq!(
        certain(vec![[marked(), drop_()].concat()], &[]),
        [(Some(1), false), (None, false)]
    );
    // The policy, behind what is for others.
    assert_eq!(certain(vec![[to(OTHER), accept()].concat()], &[]), [(None, true)]);
}

#[test]
fn behind_a_chain_that_may_have_taken_the_packet_nothing_is_certain() {
    let here = || [to(ENDPOINT), drop_()].concat();
    let through = |rule: Vec<u8>| vec![("other", vec![rule])];
    let rules = || vec![jump("other"), here()];
    assert_eq!(
        certain(rules(), &through([to(OTHER), accept()].concat())),
        [(Some(2), true)]
    );
    assert_eq!(
        certain(rules(), &through([marked(), accept()].concat())),
        [(Some(2), false)]
    );
    // In it.
    let inside = certain(vec![jump("other")], &through(here()));
    assert_eq!(inside, [(Some(1), true)]);
}

/// Nearly every firewall accepts what is of a connection first.
#[test]
fn what_is_of_a_connection_is_not_what_opens_one() {
    let certain = |accepted: u32| {
        let table = table(
            true,
            None,
            &[("forward", vec![[state(accepted), accept()].concat()])],
        );
        let found = listing(table).possible(&syn(), &[FilterHook::Forward], NF_TABLES);
        found
            .droppers
            .iter()
            .map(|dropper| dropper.is_certain)
            .collect::<Vec<_>>()
    };
    assert_eq!(certain(ESTABLISHED), [true]);
    assert_eq!(certain(NEW), [false], "it may not be tracked");
}

#[test]
fn before_connection_tracking_a_packet_may_be_invalid() {
    let early = |priority: i32| {
        let mut table = table(
            false,
            None,
            &[("forward", vec![[state(INVALID), drop_()].concat()])],
        );
        table.base_chains[0].hook = FilterHook::Prerouting;
        table.base_chains[0].priority = priority;
        let found = listing(table).possible(&syn(), &[FilterHook::Prerouting], NF_TABLES);
        found.droppers.len()
    };
    assert_eq!(early(-300), 1, "raw");
    assert_eq!(early(-150), 0, "mangle: no SYN is invalid there");
}

#[test]
fn of_more_than_is_looked_at_nothing_is_certain_and_little_is_kept() {
    // As a Pod may have them: every base chain leads to thousands of rules.
    let rules: Vec<Vec<u8>> = (0..5_000).map(|_| [marked(), drop_()].concat()).collect();
    let mut large = table(false, None, &[("forward", vec![jump("big")]), ("big", rules)]);
    let base = large.base_chains[0].clone();
    large.base_chains = vec![base; 1_000];
    let found = listing(large).possible(&syn(), &[FilterHook::Forward], NF_TABLES);
    assert!(!found.are_all);
    assert!(found.droppers.len() <= MAX_DROPPERS, "{}", found.droppers.len());

    // And where none of them can drop it, so that all would have to be looked at.
    let rules: Vec<Vec<u8>> = (0..5_000).map(|_| [to(OTHER), drop_()].concat()).collect();
    let mut large = table(false, None, &[("forward", vec![jump("big")]), ("big", rules)]);
    let base = large.base_chains[0].clone();
    large.base_chains = vec![base; 1_000];
    let found = listing(large).possible(&syn(), &[FilterHook::Forward], NF_TABLES);
    assert!(!found.are_all && found.droppers.is_empty());
}
