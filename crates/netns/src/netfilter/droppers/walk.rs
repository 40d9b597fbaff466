//! A packet on its way through a base chain: the rules that may drop it there, and whether one of them does.
//!
//! A rule drops for certain if all its conditions are known to hold, and the packet is known to get there: no rule before
//! it may have taken the packet. Whatever else is wrongly ruled out, such a rule lets none of these packets pass.

use std::collections::HashMap;

use super::{
    matching::{End, Holds, Which, outcome, verdict},
    packet::Packet,
    sets::Sets,
    tables::{BaseChain, Element, Rule, Table},
};
use crate::netlink::Attributes;

/// The kernel allows no more jumps into each other (NFT_JUMP_STACK_SIZE).
const MAX_DEPTH: usize = 16;

/// What may drop a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'t> {
    pub chain: &'t [u8],
    /// None for the policy.
    pub rule: Option<&'t Rule>,
    pub packets: Option<u64>,
    /// Whether it drops every such packet that comes by the base chain; otherwise it may.
    pub is_certain: bool,
}

/// What becomes of a packet that gets into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It never comes out again.
    Ends,
    /// It may.
    Passes,
}

struct Walk<'t, 'p> {
    table: &'t Table,
    sets: &'p dyn Sets,
    packet: &'p Packet,
    found: Vec<Found<'t>>,
    /// Chains that were gone through: each is, once, whoever leads there.
    known: HashMap<&'t [u8], Flow>,
    /// Whether the packet is known to have got so far.
    is_certain: bool,
    /// Rules that may still be held against the packet.
    steps: &'p mut usize,
}

/// What may drop a packet that comes by a base chain of a table. Rules that reject are among it where the client does not
/// hear of it.
pub(super) fn droppers<'t>(
    table: &'t Table,
    base: &'t BaseChain,
    packet: &Packet,
    sets: &dyn Sets,
    steps: &mut usize,
) -> Vec<Found<'t>> {
    let packet = match table.is_tracked(base) {
        true => *packet,
        false => packet.untracked(),
    };
    let mut walk = Walk {
        table,
        sets,
        packet: &packet,
        found: Vec::new(),
        known: HashMap::new(),
        is_certain: true,
        steps,
    };
    let flow = walk.chain(&base.name, 0);
    if flow == Flow::Passes && base.drops {
        walk.found.push(Found {
            chain: &base.name,
            rule: None,
            packets: base.packets,
            is_certain: walk.is_certain,
        });
    }
    walk.found
}

impl<'t> Walk<'t, '_> {
    fn chain(&mut self, name: &'t [u8], depth: usize) -> Flow {
        if let Some(known) = self.known.get(name) {
            // What it did to the packet the first time is not kept.
            self.is_certain = false;
            return *known;
        }
        let Some((name, rules)) = self.table.chains.get_key_value(name) else {
            return Flow::Passes;
        };
        if depth > MAX_DEPTH {
            self.is_certain = false;
            return Flow::Passes;
        }
        // There are no loops in the kernel's.
        self.known.insert(name, Flow::Passes);
        let flow = self.rules(name, rules, depth);
        self.known.insert(name, flow);
        flow
    }

    fn rules(&mut self, chain: &'t [u8], rules: &'t [Rule], depth: usize) -> Flow {
        for rule in rules {
            let Some(left) = self.steps.checked_sub(1) else {
                self.is_certain = false;
                return Flow::Passes;
            };
            *self.steps = left;
            let outcome = outcome(rule.expressions(), self.packet, self.table.is_ip(), self.sets);
            let Some(end) = outcome.end.filter(|_| outcome.holds != Holds::No) else {
                continue;
            };
            // One that may hold may have taken the packet. That it was accepted as one of a connection is no doubt worth.
            self.is_certain &=
                outcome.holds == Holds::Yes || end == End::Accept && self.is_not_for_first(rule);
            match self.end((chain, rule, outcome.packets), end, depth) {
                Some(flow) if outcome.holds == Holds::Yes => return flow,
                _ => {}
            }
        }
        Flow::Passes
    }

    /// Whether a rule does not hold for the first packet of a connection.
    fn is_not_for_first(&self, rule: &Rule) -> bool {
        let first = self.packet.first();
        outcome(rule.expressions(), &first, self.table.is_ip(), self.sets).holds == Holds::No
    }

    /// What becomes of a packet that a rule takes; None if it may go on to the next rule all the same.
    fn end(&mut self, rule: (&'t [u8], &'t Rule, Option<u64>), end: End<'t>, depth: usize) -> Option<Flow> {
        match end {
            End::Drop => {
                self.drops(rule);
                Some(Flow::Ends)
            }
            End::Reject => {
                if self.packet.is_answer {
                    self.drops(rule);
                }
                Some(Flow::Ends)
            }
            End::Accept => Some(Flow::Ends),
            End::Return => Some(Flow::Passes),
            End::Jump(to) => (self.chain(to, depth + 1) == Flow::Ends).then_some(Flow::Ends),
            End::Goto(to) => Some(self.chain(to, depth + 1)),
            End::Map(map, which) => {
                let table = self.table;
                let elements = table.sets.get(map).map(Vec::as_slice).unwrap_or_default();
                let possible = elements.iter().filter(|element| self.may_be(element, &which));
                let ends: Vec<End<'t>> = possible
                    .filter_map(|element| verdict(Attributes(&element.data)))
                    .collect();
                // The counter of the rule has counted what other elements took as well.
                let (chain, rule, _) = rule;
                match (&which, ends.as_slice()) {
                    (Which::Of(_), [end]) => self.end((chain, rule, None), end.clone(), depth),
                    (_, ends) => {
                        self.is_certain = false;
                        self.any((chain, rule), ends, depth);
                        None
                    }
                }
            }
        }
    }

    /// Whether an element of a map may be that of the packet.
    fn may_be(&self, element: &Element, which: &Which) -> bool {
        match which {
            Which::Any => true,
            Which::OfState => {
                let is_not = |state| self.packet.is_in_state(state) == Some(false);
                !element.state().is_some_and(is_not)
            }
            Which::Of(key) => element.key == *key,
        }
    }

    /// What may become of a packet by one of several verdicts: the rule is named once.
    fn any(&mut self, (chain, rule): (&'t [u8], &'t Rule), ends: &[End<'t>], depth: usize) {
        if ends.contains(&End::Drop) {
            self.drops((chain, rule, None));
        }
        for end in ends {
            if let End::Jump(to) | End::Goto(to) = end {
                self.chain(to, depth + 1);
            }
        }
    }

    fn drops(&mut self, (chain, rule, packets): (&'t [u8], &'t Rule, Option<u64>)) {
        self.found.push(Found {
            chain,
            rule: Some(rule),
            packets,
            is_certain: self.is_certain,
        });
    }
}
