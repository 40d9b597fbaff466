//! A packet on its way through a base chain: the rules that may drop it there.

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
}

/// What may drop a packet that comes by a base chain of a table. Rules that reject are among it where the client does not
/// hear of it.
pub(super) fn droppers<'t>(
    table: &'t Table,
    base: &'t BaseChain,
    packet: &Packet,
    sets: &dyn Sets,
) -> Vec<Found<'t>> {
    let mut walk = Walk {
        table,
        sets,
        packet,
        found: Vec::new(),
        known: HashMap::new(),
    };
    let flow = walk.chain(&base.name, 0);
    if flow == Flow::Passes && base.drops {
        walk.found.push(Found {
            chain: &base.name,
            rule: None,
            packets: base.packets,
        });
    }
    walk.found
}

impl<'t> Walk<'t, '_> {
    fn chain(&mut self, name: &'t [u8], depth: usize) -> Flow {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let Some((name, rules)) = self.table.chains.get_key_value(name) else {
            return Flow::Passes;
        };
        if depth > MAX_DEPTH {
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
            let outcome = outcome(rule.expressions(), self.packet, self.table.is_ip(), self.sets);
            let Some(end) = outcome.end.filter(|_| outcome.holds != Holds::No) else {
                continue;
            };
            match self.end((chain, rule, outcome.packets), end, depth) {
                Some(flow) if outcome.holds == Holds::Yes => return flow,
                _ => {}
            }
        }
        Flow::Passes
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
        });
    }
}
