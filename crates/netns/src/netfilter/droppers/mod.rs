//! What in a network namespace can drop a packet: rules and policies of nf_tables and of iptables-legacy.
//!
//! [`Source::open`] opens what there is in a namespace, [`Source::read`] reads it; both only look. [`Listing::possible`]
//! answers which rules and policies can drop a packet without an answer, each with its counter. It goes through the rules
//! as the kernel does (`walk.rs`), with what is known of the packet (`packet.rs`): a condition on anything else may
//! hold or not (`matching.rs`). Two listings, before and after packets were dropped, show whose counters rose.
//!
//! ```text
//! netlink -> read -> tables -> walk (matching, sets) -> Dropper
//! getsockopt -> legacy -------------------------------> Dropper
//! ```

mod counting;
mod matching;
mod packet;
mod read;
mod registers;
mod sets;
mod tables;
mod walk;
mod wording;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use svcdiag_api::{FilterFamily, FilterHook, FilterTool};

use self::{
    sets::OfTable,
    tables::{BaseChain, Table},
    walk::Found,
};
use super::legacy::droppers::{LegacyDropper, LegacyTables};
use crate::netlink::{Family, Netlink};

pub use self::packet::Packet;
pub(super) use self::packet::states_of_xt;

/// Whose namespace is read. A Pod's may hold whatever it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The node's.
    Node,
    /// A Pod's.
    Pod,
}

impl Whose {
    /// How many bytes are read, of each backend.
    fn largest(self) -> usize {
        const MIB: usize = 1024 * 1024;
        match self {
            Self::Node => 32 * MIB,
            Self::Pod => 4 * MIB,
        }
    }

    /// For how long nf_tables is read.
    fn patience(self) -> Duration {
        match self {
            Self::Node => Duration::from_secs(4),
            Self::Pod => Duration::from_secs(2),
        }
    }

    /// In a Pod there are few, and nobody vouches for what they are.
    fn skips(self) -> read::Skips {
        match self {
            Self::Node => |table, kind| kind == "nat" && [&b"nat"[..], b"kube-proxy"].contains(&table),
            Self::Pod => |_, _| false,
        }
    }
}

/// The backends that can have dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backends {
    /// nf_tables.
    pub nf_tables: bool,
    /// iptables-legacy.
    pub legacy: bool,
}

/// What a rule or a policy is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Whether it is one of iptables-legacy.
    pub is_legacy: bool,
    /// Family of its table.
    pub family: FilterFamily,
    /// Its table, with ? for characters that are rare in names.
    pub table: String,
    /// Its chain, with ? for these as well.
    pub chain: String,
    /// The handle of a rule, or its number in the chain (iptables-legacy); none for the policy of the chain.
    pub rule: Option<u64>,
}

/// A rule or a policy that can drop a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropper {
    /// What it is known by.
    pub id: Id,
    /// What shows it.
    pub tool: FilterTool,
    /// The base chain by which packets get there.
    pub base_chain: String,
    /// Where that comes.
    pub hook: FilterHook,
    /// When, among all at that hook.
    pub priority: i32,
    /// How many packets it has dropped; none if nobody counts just these.
    pub packets: Option<u64>,
    /// Whether it drops every such packet that comes by; otherwise it may.
    pub is_certain: bool,
}

/// The rules and policies that can drop a packet.
#[derive(Clone, Debug, Default)]
pub struct Possible {
    /// Each once.
    pub droppers: Vec<Dropper>,
    /// Whether there are no others: of more than can be looked at, some are left out.
    pub are_all: bool,
}

/// The counters of rules and policies at one moment.
#[derive(Debug, Default)]
pub struct Counters {
    packets: BTreeMap<Id, u64>,
    /// The length of all rules of iptables-legacy, which have no names but their numbers.
    legacy_size: usize,
}

/// The rules of a namespace, opened.
#[derive(Debug)]
pub struct Source {
    netlink: io::Result<Netlink>,
    legacy: io::Result<LegacyTables>,
    whose: Whose,
}

impl Source {
    /// Opens the rules of the namespace of the calling thread. Those of iptables-legacy are read on this occasion; of its
    /// tables only those that exist, as asking for another one would create it.
    #[must_use]
    pub fn open(whose: Whose) -> Self {
        Self {
            netlink: Netlink::open_within(Family::Netfilter, whose.largest(), whose.patience()),
            legacy: LegacyTables::open(whose.largest()),
            whose,
        }
    }

    /// Reads them, on whatever thread. What cannot be read makes the listing one that is not whole.
    #[must_use]
    pub fn read(self) -> Listing {
        let netlink = self.netlink.ok();
        let (tables, is_whole) = match &netlink {
            Some(netlink) => read::tables(netlink, self.whose.skips()),
            None => (Vec::new(), false),
        };
        let legacy_size = self.legacy.as_ref().map_or(0, LegacyTables::size);
        let (legacy, legacy_is_whole) = match self.legacy {
            Ok(tables) => tables.droppers(),
            Err(_) => (Vec::new(), false),
        };
        Listing {
            netlink,
            tables,
            legacy,
            legacy_size,
            is_whole: Backends {
                nf_tables: is_whole,
                legacy: legacy_is_whole,
            },
        }
    }
}

/// What can drop packets in a namespace.
#[derive(Debug)]
pub struct Listing {
    /// To look up what is in sets.
    netlink: Option<Netlink>,
    tables: Vec<Table>,
    legacy: Vec<LegacyDropper>,
    legacy_size: usize,
    is_whole: Backends,
}

impl Listing {
    /// Whether nothing is left out of these backends.
    #[must_use]
    pub fn is_whole(&self, backends: Backends) -> bool {
        (!backends.nf_tables || self.is_whole.nf_tables) && (!backends.legacy || self.is_whole.legacy)
    }

    /// The rules and policies that can drop a packet which comes by these hooks, without telling the client.
    #[must_use]
    pub fn possible(&self, packet: &Packet, hooks: &[FilterHook], backends: Backends) -> Possible {
        let mut possible: Vec<Dropper> = Vec::new();
        let mut known: BTreeSet<Id> = BTreeSet::new();
        let (mut steps, mut are_all) = (MAX_STEPS, true);
        let mut add = |dropper: Dropper| {
            // Packets may get to a rule by several base chains.
            if known.insert(dropper.id.clone()) {
                possible.push(dropper);
            }
            known.len() < MAX_DROPPERS
        };
        let tables = self.tables.iter().filter(|table| table.sees(packet.family()));
        for table in tables.filter(|_| backends.nf_tables) {
            let sets = OfTable::new(table, self.netlink.as_ref());
            for base in table
                .base_chains
                .iter()
                .filter(|base| table.is_on_the_way(base, hooks))
            {
                let found = walk::droppers(table, base, packet, &sets, &mut steps);
                are_all &= found.iter().all(|found| add(describe(table, base, found)));
                if !are_all || steps == 0 {
                    break;
                }
            }
        }
        let legacy = self.legacy.iter().filter(|_| backends.legacy);
        let mut legacy = legacy.filter(|dropper| hooks.contains(&dropper.hook) && dropper.can_drop(packet));
        are_all &= legacy.all(|dropper| add(dropper.describe()));
        Possible {
            droppers: possible,
            are_all: are_all && steps > 0,
        }
    }

    /// The counters of all rules and policies that drop packets.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let legacy = self.legacy.iter().map(LegacyDropper::describe);
        let legacy = legacy.filter_map(|dropper| Some((dropper.id, dropper.packets?)));
        let mut counters: BTreeMap<Id, u64> = legacy.collect();
        for table in &self.tables {
            for base in &table.base_chains {
                let policy = Found {
                    chain: &base.name,
                    rule: None,
                    packets: base.packets,
                    is_certain: false,
                };
                counters.extend(policy.packets.map(|packets| (id(table, &policy), packets)));
            }
            for (chain, rules) in &table.chains {
                for rule in rules {
                    let packets = counting::counter(rule.expressions());
                    let found = Found {
                        chain,
                        rule: Some(rule),
                        packets,
                        is_certain: false,
                    };
                    counters.extend(packets.map(|packets| (id(table, &found), packets)));
                }
            }
        }
        Counters {
            packets: counters,
            legacy_size: self.legacy_size,
        }
    }

    /// A rule of nf_tables, about as nft writes it, if all of it is understood.
    #[must_use]
    pub fn text(&self, id: &Id) -> Option<String> {
        let handle = id.rule.filter(|_| !id.is_legacy)?;
        let is_its = |table: &&Table| table.family == id.family && shown(&table.name) == id.table;
        let mut tables = self.tables.iter().filter(is_its);
        tables.find_map(|table| {
            let of_chain = table.chains.iter().filter(|(name, _)| shown(name) == id.chain);
            let mut rules = of_chain.flat_map(|(_, rules)| rules);
            let rule = rules.find(|rule| rule.handle == handle)?;
            wording::rule(rule.expressions(), table.is_ip())
        })
    }

    /// By how much a counter has risen since it was one of these; None if that is not known.
    #[must_use]
    pub fn rise(&self, dropper: &Dropper, since: &Counters) -> Option<u64> {
        let is_same = !dropper.id.is_legacy || self.legacy_size == since.legacy_size;
        let before = since.packets.get(&dropper.id).filter(|_| is_same)?;
        dropper.packets?.checked_sub(*before)
    }
}

fn id(table: &Table, found: &Found<'_>) -> Id {
    Id {
        is_legacy: false,
        family: table.family,
        table: shown(&table.name),
        chain: shown(found.chain),
        rule: found.rule.map(|rule| rule.handle),
    }
}

fn describe(table: &Table, base: &BaseChain, found: &Found<'_>) -> Dropper {
    Dropper {
        id: id(table, found),
        tool: table.tool(base),
        base_chain: shown(&base.name),
        hook: base.hook,
        priority: base.priority,
        packets: found.packets,
        is_certain: found.is_certain,
    }
}

/// Rules that are held against one packet, of all base chains together; a Pod may have as many as it likes.
const MAX_STEPS: usize = 100_000;

/// Rules and policies that may have dropped a packet; among more than these none is certain.
const MAX_DROPPERS: usize = 256;

/// Names as long as those that are shown. The kernel takes 255 bytes.
const LONGEST_NAME: usize = 64;

/// A name fit for a message: nft and iptables write no others, but the kernel takes any bytes.
pub(super) fn shown(name: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@+/".contains(&byte);
    let mut shown: String = name
        .iter()
        .take(LONGEST_NAME)
        .map(|byte| if is_plain(*byte) { char::from(*byte) } else { '?' })
        .collect();
    // What begins with one of these would be an option to somebody.
    if !shown.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '?')) {
        shown.replace_range(..shown.len().min(1), "?");
    }
    shown
}
