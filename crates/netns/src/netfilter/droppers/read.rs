//! Reads over netlink what of nf_tables can drop packets: the base chains of all tables, then chain by chain the rules that
//! these lead to. Chains that nothing leads to, and what only translates addresses, are not read.

use std::{collections::HashMap, io};

use super::{
    matching::{self, End},
    tables::{BaseChain, Element, Name, Rule, Table, family, hook, number},
};
use crate::{
    netfilter::{
        expressions::{DATA_VALUE, LIST_ELEMENT, is_anonymous},
        nf_tables::{GET_CHAIN, GET_RULE, GET_SET_ELEMENTS, GET_TABLE, HEADER, SUBSYSTEM},
    },
    netlink::{Attributes, Netlink, Request},
};

/// Limits on what is read. A node of a thousand Pods with policies of Calico has some ten thousand chains and rules.
const MAX_CHAINS: usize = 16 * 1024;
const MAX_RULES: usize = 64 * 1024;

/// Elements of a map of verdicts. The long ones are kube-proxy's, which are not read.
const MAX_ELEMENTS: usize = 4096;

/// Whether chains of a kind need not be read, as they translate addresses and drop nothing: on a node kube-proxy's have
/// some for each endpoint of the cluster, and iptables takes no DROP for them.
pub(super) type Skips = fn(table: &[u8], kind: &str) -> bool;

/// The tables, and whether all of them that matters was read.
pub(super) fn tables(netlink: &Netlink, skips: Skips) -> (Vec<Table>, bool) {
    let mut reader = Reader {
        netlink,
        skips,
        chains: 0,
        rules: 0,
        elements: 0,
    };
    let mut tables = match reader.base_chains() {
        Ok(tables) => tables,
        Err(_) => return (Vec::new(), false),
    };
    let mut is_whole = true;
    for table in &mut tables {
        is_whole &= reader.fill(table).is_ok();
    }
    (tables, is_whole)
}

struct Reader<'n> {
    netlink: &'n Netlink,
    skips: Skips,
    chains: usize,
    rules: usize,
    elements: usize,
}

/// There is more than is read.
fn too_many(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("there are too many {what}"))
}

impl Reader<'_> {
    /// The tables that are in force, with their base chains.
    fn base_chains(&self) -> io::Result<Vec<Table>> {
        const DORMANT: u32 = 1;
        let mut tables = Vec::new();
        for (_, body) in self.netlink.dump(&request(GET_TABLE, 0))? {
            let attributes = Attributes::behind(&body, HEADER);
            let is_dormant = attributes.be_u32(2).unwrap_or_default() & DORMANT != 0;
            let known = body.first().copied().and_then(family).zip(attributes.name(1));
            if let Some((family, name)) = known.filter(|_| !is_dormant) {
                tables.push(Table {
                    family,
                    name: name.to_vec(),
                    base_chains: Vec::new(),
                    chains: HashMap::new(),
                    sets: HashMap::new(),
                });
            }
        }
        if tables.is_empty() {
            return Ok(tables);
        }
        // A node has thousands of others.
        let is_base = |body: &[u8]| Attributes::behind(body, HEADER).get(4).is_some();
        for (_, body) in self.netlink.dump_where(&request(GET_CHAIN, 0), is_base)? {
            let attributes = Attributes::behind(&body, HEADER);
            let of = body.first().copied().and_then(family).zip(attributes.name(1));
            let table = tables
                .iter_mut()
                .find(|table| of == Some((table.family, &table.name)));
            if let Some(table) = table {
                let kind = attributes.text(7).unwrap_or_default();
                if !(self.skips)(&table.name, kind) {
                    let base = base_chain(table.family, attributes);
                    table.base_chains.extend(base);
                }
            }
        }
        Ok(tables)
    }

    /// Reads the rules that the base chains of a table lead to.
    fn fill(&mut self, table: &mut Table) -> io::Result<()> {
        let mut todo: Vec<Name> = table.base_chains.iter().map(|base| base.name.clone()).collect();
        while let Some(chain) = todo.pop() {
            if table.chains.contains_key(&chain) {
                continue;
            }
            self.chains += 1;
            if self.chains > MAX_CHAINS {
                return Err(too_many("chains"));
            }
            let rules = self.rules(table, &chain)?;
            for rule in &rules {
                let needs = Needs::of(rule.expressions());
                todo.extend(needs.chain.map(<[u8]>::to_vec));
                let unread = needs
                    .sets
                    .into_iter()
                    .filter(|set| !table.sets.contains_key(*set));
                for set in unread.map(<[u8]>::to_vec).collect::<Vec<Name>>() {
                    let elements = self.elements(table, &set)?;
                    let ends = elements
                        .iter()
                        .filter_map(|of| matching::verdict(Attributes(&of.data)));
                    todo.extend(ends.filter_map(leads_to).map(<[u8]>::to_vec));
                    table.sets.insert(set, elements);
                }
            }
            table.chains.insert(chain, rules);
        }
        Ok(())
    }

    /// The rules of a chain that end the way of packets.
    fn rules(&mut self, table: &Table, chain: &[u8]) -> io::Result<Vec<Rule>> {
        let request = request(GET_RULE, number(table.family))
            .name(1, &table.name)
            .name(2, chain);
        let mut rules = Vec::new();
        for (_, body) in self.netlink.dump(&request)? {
            let attributes = Attributes::behind(&body, HEADER);
            // The kernel ends a dump for an unknown chain with rules of none.
            let known = attributes
                .be_u64(3)
                .zip(attributes.get(4))
                .filter(|_| attributes.name(2) == Some(chain));
            let Some((handle, expressions)) = known else {
                continue;
            };
            self.rules += 1;
            if self.rules > MAX_RULES {
                return Err(too_many("rules"));
            }
            if Needs::of(Attributes(expressions)).is_decisive {
                rules.push(Rule {
                    handle,
                    expressions: expressions.to_vec(),
                });
            }
        }
        Ok(rules)
    }

    fn elements(&mut self, table: &Table, set: &[u8]) -> io::Result<Vec<Element>> {
        let request = request(GET_SET_ELEMENTS, number(table.family))
            .name(1, &table.name)
            .name(2, set);
        let mut elements = Vec::new();
        for (_, body) in self.netlink.dump(&request)? {
            let list = Attributes::behind(&body, HEADER).nested(3).unwrap_or_default();
            for (_, element) in list.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
                let element = Attributes(element);
                self.elements += 1;
                if self.elements > MAX_ELEMENTS {
                    return Err(too_many("elements of maps"));
                }
                let key = element.nested(1).and_then(|key| key.get(DATA_VALUE));
                elements.push(Element {
                    key: key.unwrap_or_default().to_vec(),
                    data: element.get(2).unwrap_or_default().to_vec(),
                });
            }
        }
        Ok(elements)
    }
}

fn request(message: u8, family: u8) -> Request {
    Request::netfilter(SUBSYSTEM, message, family)
}

fn base_chain(family: svcdiag_api::FilterFamily, attributes: Attributes<'_>) -> Option<BaseChain> {
    const DROP: u32 = 0;
    let hooked = attributes.nested(4)?;
    Some(BaseChain {
        name: attributes.name(3)?.to_vec(),
        hook: hook(family, hooked.be_u32(1)?)?,
        priority: i32::from_ne_bytes(hooked.be_u32(2)?.to_ne_bytes()),
        drops: attributes.be_u32(5) == Some(DROP),
        packets: attributes.nested(8).and_then(|counters| counters.be_u64(2)),
    })
}

fn leads_to(end: End<'_>) -> Option<&[u8]> {
    match end {
        End::Jump(chain) | End::Goto(chain) => Some(chain),
        _ => None,
    }
}

/// What else has to be read for a rule.
struct Needs<'a> {
    /// Whether it ends the way of packets, or may.
    is_decisive: bool,
    /// The chain that it leads to.
    chain: Option<&'a [u8]>,
    sets: Vec<&'a [u8]>,
}

impl<'a> Needs<'a> {
    fn of(expressions: Attributes<'a>) -> Self {
        let mut needs = Self {
            is_decisive: false,
            chain: None,
            sets: Vec::new(),
        };
        let mut asks_for_state = false;
        for (_, expression) in expressions.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
            let expression = Attributes(expression);
            let data = expression.nested(2).unwrap_or_default();
            match expression.text(1).unwrap_or_default() {
                "immediate" => {
                    let end = data.nested(2).and_then(matching::verdict);
                    needs.is_decisive |= end.is_some();
                    needs.chain = needs.chain.or(end.and_then(leads_to));
                }
                "lookup" => {
                    let set = data.name(1).unwrap_or_default();
                    let is_map = data.be_u32(3) == Some(0);
                    needs.is_decisive |= is_map;
                    let is_own = std::str::from_utf8(set).is_ok_and(is_anonymous);
                    if is_map || asks_for_state && is_own {
                        needs.sets.push(set);
                    }
                }
                "ct" => asks_for_state |= data.be_u32(1).is_some() && data.be_u32(2) == Some(0),
                "reject" | "nat" | "masq" | "redir" | "queue" | "target" => needs.is_decisive = true,
                _ => {}
            }
        }
        needs
    }
}
