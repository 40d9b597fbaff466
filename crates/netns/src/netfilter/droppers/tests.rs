//! What drops a packet, by rules that are put together here as the kernel describes them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod certain;

use proptest::prelude::*;

use super::{
    packet::tests::syn,
    tables::{BaseChain, Element, Rule, Table},
    *,
};
use crate::{
    netfilter::expressions::LIST_ELEMENT,
    netlink::{Attributes, attributes_of},
};

const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

const NF_TABLES: Backends = Backends {
    nf_tables: true,
    legacy: false,
};

fn expression(name: &str, data: &[(u16, &[u8])]) -> Vec<u8> {
    let (name, data) = (format!("{name}\0"), attributes_of(data));
    attributes_of(&[(LIST_ELEMENT, &attributes_of(&[(1, name.as_bytes()), (2, &data)]))])
}

fn data(value: &[u8]) -> Vec<u8> {
    attributes_of(&[(1, value)])
}

fn verdict(code: i32, chain: &str) -> Vec<u8> {
    let (code, chain) = (code.to_be_bytes(), format!("{chain}\0"));
    let inner = match chain.len() {
        1 => attributes_of(&[(1, &code)]),
        _ => attributes_of(&[(1, &code), (2, chain.as_bytes())]),
    };
    attributes_of(&[(2, &inner)])
}

fn ends(code: i32, chain: &str) -> Vec<u8> {
    expression(
        "immediate",
        &[(1, &0_u32.to_be_bytes()), (2, &verdict(code, chain))],
    )
}

fn drop_() -> Vec<u8> {
    ends(0, "")
}

fn accept() -> Vec<u8> {
    ends(1, "")
}

fn jump(chain: &str) -> Vec<u8> {
    ends(-3, chain)
}

fn counter(packets: u64) -> Vec<u8> {
    expression(
        "counter",
        &[(1, &0_u64.to_be_bytes()), (2, &packets.to_be_bytes())],
    )
}

fn loaded(name: &str, key: u32) -> Vec<u8> {
    expression(name, &[(1, &1_u32.to_be_bytes()), (2, &key.to_be_bytes())])
}

fn payload(base: u32, offset: u32, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap();
    let numbers = [1, base, offset, length].map(u32::to_be_bytes);
    expression(
        "payload",
        &[
            (1, &numbers[0]),
            (2, &numbers[1]),
            (3, &numbers[2]),
            (4, &numbers[3]),
        ],
    )
}

fn equals(value: &[u8]) -> Vec<u8> {
    compares(0, value)
}

fn compares(operator: u32, value: &[u8]) -> Vec<u8> {
    let (register, operator) = (1_u32.to_be_bytes(), operator.to_be_bytes());
    expression("cmp", &[(1, &register), (2, &operator), (3, &data(value))])
}

fn to(address: [u8; 4]) -> Vec<u8> {
    [payload(1, 16, 4), equals(&address)].concat()
}

fn port(number: u16) -> Vec<u8> {
    let protocol = [loaded("meta", 16), equals(&[6])].concat();
    [protocol, payload(2, 2, 2), equals(&number.to_be_bytes())].concat()
}

/// `ct state` with some of these bits.
fn state(mask: u32) -> Vec<u8> {
    let register = 1_u32.to_be_bytes();
    let mask = expression(
        "bitwise",
        &[
            (1, &register),
            (2, &register),
            (3, &4_u32.to_be_bytes()),
            (4, &data(&mask.to_ne_bytes())),
            (5, &data(&[0; 4])),
        ],
    );
    [loaded("ct", 0), mask, compares(1, &[0; 4])].concat()
}

fn lookup(set: &str, of_verdicts: bool) -> Vec<u8> {
    let (name, register, verdicts) = (format!("{set}\0"), 1_u32.to_be_bytes(), 0_u32.to_be_bytes());
    let mut attributes: Vec<(u16, &[u8])> = vec![(1, name.as_bytes()), (2, &register)];
    if of_verdicts {
        attributes.push((3, &verdicts));
    }
    expression("lookup", &attributes)
}

/// A table with a base chain at forward, and others.
fn table(drops: bool, packets: Option<u64>, chains: &[(&str, Vec<Vec<u8>>)]) -> Table {
    let rules = |rules: &[Vec<u8>]| {
        let numbered = rules.iter().zip(1..);
        numbered
            .map(|(expressions, handle)| Rule {
                handle,
                expressions: expressions.clone(),
            })
            .collect()
    };
    Table {
        family: FilterFamily::Inet,
        name: b"filter".to_vec(),
        base_chains: vec![BaseChain {
            name: b"forward".to_vec(),
            hook: FilterHook::Forward,
            priority: 0,
            drops,
            packets,
        }],
        chains: chains
            .iter()
            .map(|(name, of)| (name.as_bytes().to_vec(), rules(of)))
            .collect(),
        sets: std::collections::HashMap::new(),
    }
}

fn listing(table: Table) -> Listing {
    Listing {
        netlink: None,
        tables: vec![table],
        legacy: Vec::new(),
        legacy_size: 0,
        is_whole: NF_TABLES,
    }
}

/// What can drop a packet that is forwarded: chain and handle of each.
fn possible_for(table: Table, packet: &Packet) -> Vec<(String, Option<u64>)> {
    let found = listing(table)
        .possible(packet, &[FilterHook::Forward], NF_TABLES)
        .droppers;
    found
        .into_iter()
        .map(|dropper| (dropper.id.chain, dropper.id.rule))
        .collect()
}

fn possible(rules: Vec<Vec<u8>>) -> Vec<Option<u64>> {
    let found = possible_for(table(false, None, &[("forward", rules)]), &syn());
    found.into_iter().map(|(_, rule)| rule).collect()
}

const ENDPOINT: [u8; 4] = [10, 244, 2, 20];
const OTHER: [u8; 4] = [10, 244, 2, 21];

#[test]
fn rules_for_other_addresses_ports_or_protocols_drop_nothing_of_a_packet() {
    let udp = [loaded("meta", 16), equals(&[17]), drop_()].concat();
    let rules = vec![
        [to(OTHER), drop_()].concat(),
        [port(80), drop_()].concat(),
        udp,
        [loaded("meta", 15), equals(&[10]), drop_()].concat(),
        [payload(1, 16, 2), equals(&[10, 245]), drop_()].concat(),
        [to(ENDPOINT), port(9376), drop_()].concat(),
    ];
    assert_eq!(possible(rules), [Some(6)]);
}

#[test]
fn what_is_not_known_of_a_packet_may_be_so() {
    let interface = [loaded("meta", 6), equals(b"veth10\0\0\0\0\0\0\0\0\0\0")].concat();
    let rules = vec![
        [interface, drop_()].concat(),
        [expression("limit", &[]), drop_()].concat(),
        [payload(1, 16, 4), lookup("blocked", false), drop_()].concat(),
        [loaded("meta", 3), equals(&[1, 0, 0, 0]), accept()].concat(),
    ];
    let found = possible_for(table(true, None, &[("forward", rules)]), &syn());
    let rules: Vec<Option<u64>> = found.into_iter().map(|(_, rule)| rule).collect();
    assert_eq!(rules, [Some(1), Some(2), Some(3), None]);
}

#[test]
fn what_is_accepted_for_certain_gets_neither_to_later_rules_nor_to_the_policy() {
    let rules = vec![[to(ENDPOINT), accept()].concat(), drop_()];
    assert_eq!(possible_for(table(true, None, &[("forward", rules)]), &syn()), []);
    // Another chain says the same.
    let chains = [
        ("forward", vec![jump("pods"), drop_()]),
        ("pods", vec![[to(OTHER), drop_()].concat(), accept()]),
    ];
    assert_eq!(possible_for(table(true, None, &chains), &syn()), []);
    let chains = [
        ("forward", vec![jump("pods"), drop_()]),
        ("pods", vec![ends(-5, ""), accept()]),
    ];
    assert_eq!(
        possible_for(table(true, None, &chains), &syn()),
        [("forward".to_owned(), Some(2))]
    );
}

#[test]
fn who_is_told_of_a_rejection_is_whoever_sent_the_packet() {
    let rules = vec![[to(ENDPOINT), expression("reject", &[])].concat(), drop_()];
    let of = |packet: &Packet| possible_for(table(false, None, &[("forward", rules.clone())]), packet);
    assert_eq!(of(&syn()), []);
    let answer = Packet {
        is_answer: true,
        ..syn()
    };
    assert_eq!(of(&answer), [("forward".to_owned(), Some(1))]);
}

#[test]
fn no_rule_about_invalid_packets_drops_a_syn() {
    let rules = vec![
        [state(INVALID), drop_()].concat(),
        [state(INVALID | NEW), drop_()].concat(),
        [loaded("ct", 0), lookup("__set0", false), drop_()].concat(),
        [loaded("ct", 0), lookup("__map0", true)].concat(),
    ];
    let mut of_states = table(false, None, &[("forward", rules)]);
    let element = |key: u32, data: Vec<u8>| Element {
        key: key.to_ne_bytes().to_vec(),
        data,
    };
    of_states
        .sets
        .insert(b"__set0".to_vec(), vec![element(INVALID, Vec::new())]);
    let map = vec![
        element(ESTABLISHED, verdict(1, "")),
        element(INVALID, verdict(0, "")),
    ];
    of_states.sets.insert(b"__map0".to_vec(), map);
    let rules = |packet: &Packet| {
        let found = listing(of_states.clone())
            .possible(packet, &[FilterHook::Forward], NF_TABLES)
            .droppers;
        found
            .into_iter()
            .map(|dropper| dropper.id.rule)
            .collect::<Vec<_>>()
    };
    assert_eq!(rules(&syn()), [Some(2)]);
    let answer = Packet {
        is_answer: true,
        ..syn()
    };
    assert_eq!(rules(&answer), [Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_counter_counts_drops_only_behind_all_conditions() {
    let rules = |packets: u64| {
        vec![
            [to(ENDPOINT), counter(packets), drop_()].concat(),
            [counter(packets), port(9376), drop_()].concat(),
        ]
    };
    let of = |packets: u64| listing(table(true, Some(packets), &[("forward", rules(packets))]));
    let (before, after) = (of(7).counters(), of(10));
    let packet = Packet {
        destination: "10.244.2.21:9376".parse().unwrap(),
        ..syn()
    };
    let found = after
        .possible(&packet, &[FilterHook::Forward], NF_TABLES)
        .droppers;
    let rises: Vec<Option<u64>> = found.iter().map(|dropper| after.rise(dropper, &before)).collect();
    assert_eq!(rises, [None], "the counter counts what goes on as well");
    let found = after.possible(&syn(), &[FilterHook::Forward], NF_TABLES).droppers;
    assert_eq!(after.rise(&found[0], &before), Some(3));
    let policy = listing(table(true, Some(10), &[]));
    let found = policy
        .possible(&syn(), &[FilterHook::Forward], NF_TABLES)
        .droppers;
    assert_eq!(
        (found[0].id.rule, policy.rise(&found[0], &before)),
        (None, Some(3))
    );
    // Somebody has set it back.
    let reset = of(1);
    let found = reset.possible(&syn(), &[FilterHook::Forward], NF_TABLES).droppers;
    assert_eq!(reset.rise(&found[0], &after.counters()), None);
}

#[test]
fn chains_at_other_hooks_are_not_on_the_way() {
    let table = table(true, None, &[]);
    assert_eq!(
        listing(table)
            .possible(&syn(), &[FilterHook::Output], NF_TABLES)
            .droppers,
        []
    );
}

#[test]
fn rules_that_are_understood_are_put_into_words() {
    let words = |rule: Vec<u8>| wording::rule(Attributes(&rule), true);
    let text = |rule: Vec<u8>| words(rule).unwrap_or_default();
    assert_eq!(
        text([to(ENDPOINT), port(9376), counter(3), drop_()].concat()),
        "ip daddr 10.244.2.20 tcp dport 9376 counter drop"
    );
    assert_eq!(text([state(INVALID), drop_()].concat()), "ct state invalid drop");
    assert_eq!(
        text([payload(1, 12, 2), equals(&[10, 244]), drop_()].concat()),
        "ip saddr 10.244.0.0/16 drop"
    );
    assert_eq!(
        text([loaded("meta", 6), equals(b"veth"), drop_()].concat()),
        "iifname veth* drop"
    );
    assert_eq!(
        text([payload(1, 12, 4), lookup("blocked", false), drop_()].concat()),
        "ip saddr @blocked drop"
    );
    for unknown in [
        [expression("limit", &[]), drop_()].concat(),
        [loaded("meta", 3), equals(&[1, 0, 0, 0]), drop_()].concat(),
        [loaded("meta", 6), equals(b"a`b\0"), drop_()].concat(),
        [payload(1, 12, 4), lookup("__set0", false), drop_()].concat(),
    ] {
        assert_eq!(words(unknown), None);
    }
}

#[test]
fn chains_that_lead_to_each_other_are_gone_through_once() {
    const LEVELS: usize = 15;
    let names: Vec<String> = (0..=LEVELS).map(|level| format!("l{level}")).collect();
    let mut chains: Vec<(&str, Vec<Vec<u8>>)> = vec![("forward", vec![jump("l0")])];
    for pair in names.windows(2) {
        let condition = [loaded("meta", 3), equals(&[1, 0, 0, 0])].concat();
        let rule = [condition, jump(&pair[1])].concat();
        chains.push((&pair[0], vec![rule; 30]));
    }
    chains.push((names.last().unwrap(), vec![drop_(), jump("l0")]));
    assert_eq!(possible_for(table(true, None, &chains), &syn()).len(), 2);
}

#[test]
fn names_of_any_bytes_are_shown_as_words() {
    assert_eq!(shown(b"filter_FORWARD"), "filter_FORWARD");
    assert_eq!(shown(b"a\x1b[2Kb\n`ls`"), "a??2Kb??ls?");
    assert_eq!(shown("größe".as_bytes()), "gr????e");
    assert_eq!(shown(b"--all"), "?-all");
    assert_eq!(shown(b""), "?");
    assert_eq!(shown(&[b'x'; 300]).len(), LONGEST_NAME);
}

proptest! {
    #[test]
    fn any_rules_are_survived(
        rules in prop::collection::vec(
            prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "payload", "meta", "ct", "cmp", "range", "bitwise", "immediate", "lookup", "counter", "match",
                        "target", "byteorder", "reject", "fib",
                    ]),
                    prop::collection::vec((1_u16..8, prop::collection::vec(any::<u8>(), 0..24)), 0..6),
                ),
                0..6,
            ),
            0..6,
        ),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_answer: bool,
    ) {
        let mut all: Vec<Vec<u8>> = rules
            .iter()
            .map(|rule| {
                let expressions = rule.iter().flat_map(|(name, data)| {
                    let data: Vec<(u16, &[u8])> = data.iter().map(|(k, v)| (*k, v.as_slice())).collect();
                    expression(name, &data)
                });
                expressions.collect()
            })
            .collect();
        all.push(bytes);
        let texts = all.iter().map(|rule| wording::rule(Attributes(rule), true));
        for text in texts.flatten() {
            prop_assert!(text.len() <= 160 && text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", text);
        }
        let listing = listing(table(true, Some(1), &[("forward", all)]));
        let packet = Packet { is_answer, ..syn() };
        let found = listing.possible(&packet, &[FilterHook::Forward], NF_TABLES).droppers;
        prop_assert!(found.len() <= 8);
        let _ = listing.counters();
    }
}
