//! The rules and policies of iptables-legacy that drop packets. All of them count.

use std::{collections::BTreeSet, fs};

use svcdiag_api::{FilterFamily, FilterHook, FilterTool};
use svcdiag_kube_proxy::{IpFamily, Match, ReadError, Target};

use super::{
    blob::{Blob, Damaged, Hook, hooks},
    entry::Entry,
    kernel,
};
use crate::netfilter::{
    droppers::{Dropper, Id, Packet, states_of_xt},
    xt,
};

/// Tables that can drop, and where they stand among all at their hooks (NF_IP_PRI_*). Table nat takes no DROP.
const TABLES: [(&str, i32); 4] = [("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)];

/// Rules that are gone through, of all tables together.
const MAX_ENTRIES: usize = 256 * 1024;

/// Tables as they were at one moment.
#[derive(Debug, Default)]
pub(in crate::netfilter) struct LegacyTables {
    tables: Vec<(IpFamily, &'static str, i32, Blob)>,
}

/// A rule or a policy that drops packets, or rejects them.
#[derive(Debug)]
pub(in crate::netfilter) struct LegacyDropper {
    family: IpFamily,
    table: &'static str,
    chain: String,
    base_chain: &'static str,
    pub(in crate::netfilter) hook: FilterHook,
    priority: i32,
    /// Its number, from 1; none for a policy.
    number: Option<u64>,
    packets: Option<u64>,
    rejects: bool,
    conditions: Vec<Match>,
    states: Option<u32>,
}

impl LegacyTables {
    /// Reads the tables that exist in the network namespace of the calling thread, together of at most so many bytes.
    ///
    /// # Errors
    /// When one exists that cannot be read, or that is larger.
    pub(in crate::netfilter) fn open(largest: usize) -> std::io::Result<Self> {
        let mut tables = Vec::new();
        let mut left = largest;
        for (family, names) in [
            (IpFamily::V4, "/proc/thread-self/net/ip_tables_names"),
            (IpFamily::V6, "/proc/thread-self/net/ip6_tables_names"),
        ] {
            // Where the kernel has no iptables-legacy there is no such file.
            let names = fs::read_to_string(names).unwrap_or_default();
            let exists = |table: &str| names.lines().any(|name| name == table);
            for (table, priority) in TABLES.into_iter().filter(|(table, _)| exists(table)) {
                let answers = kernel::read(family, table, left).map_err(to_io)?;
                left = left.saturating_sub(answers.entries.len());
                let blob = Blob::of(family, answers.entries, hooks(&answers.info));
                tables.push((family, table, priority, blob));
            }
        }
        Ok(Self { tables })
    }

    /// How long they are together: with another length they are other rules.
    pub(in crate::netfilter) fn size(&self) -> usize {
        self.tables.iter().map(|(.., blob)| blob.size()).sum()
    }

    /// The rules and policies in them that drop, and whether these are all.
    pub(in crate::netfilter) fn droppers(&self) -> (Vec<LegacyDropper>, bool) {
        let mut reader = Reader {
            found: Vec::new(),
            entries: 0,
        };
        let mut is_whole = true;
        for (family, table, priority, blob) in &self.tables {
            for hook in &blob.hooks {
                let Some(at) = hook_of(hook.0) else { continue };
                let base = Base {
                    family: *family,
                    table,
                    priority: *priority,
                    chain: hook.0,
                    hook: at,
                };
                is_whole &= reader.hook(blob, hook, &base).is_ok();
            }
        }
        (reader.found, is_whole)
    }
}

fn to_io(error: ReadError) -> std::io::Error {
    std::io::Error::other(error)
}

fn hook_of(chain: &str) -> Option<FilterHook> {
    Some(match chain {
        "PREROUTING" => FilterHook::Prerouting,
        "INPUT" => FilterHook::Input,
        "FORWARD" => FilterHook::Forward,
        "OUTPUT" => FilterHook::Output,
        "POSTROUTING" => FilterHook::Postrouting,
        _ => return None,
    })
}

/// A built-in chain.
struct Base {
    family: IpFamily,
    table: &'static str,
    priority: i32,
    chain: &'static str,
    hook: FilterHook,
}

struct Reader {
    found: Vec<LegacyDropper>,
    entries: usize,
}

impl Reader {
    /// Goes through a built-in chain and all that it leads to, each chain once.
    fn hook(&mut self, blob: &Blob, hook: &Hook, base: &Base) -> Result<(), Damaged> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut todo = vec![hook.0.to_owned()];
        while let Some(chain) = todo.pop() {
            if !known.insert(chain.clone()) {
                continue;
            }
            let Some(place) = blob.place(&chain)? else {
                continue;
            };
            let (mut offset, mut number) = (place.start, 0);
            while offset < place.end {
                let entry = blob.entry(offset)?;
                offset = entry.end;
                number += 1;
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    return Err(Damaged);
                }
                match blob.target(&entry) {
                    Some(Target::Drop) => self.add(base, &chain, Some(number), &entry, false),
                    Some(Target::Reject) => self.add(base, &chain, Some(number), &entry, true),
                    Some(Target::Chain(to)) if !known.contains(&to) => todo.push(to),
                    _ => {}
                }
            }
            let is_base = chain == base.chain;
            let policy = blob.entry(place.end).ok().filter(|_| is_base);
            if let Some(policy) = policy.filter(|policy| blob.target(policy) == Some(Target::Drop)) {
                self.add(base, &chain, None, &policy, false);
            }
        }
        Ok(())
    }

    fn add(&mut self, base: &Base, chain: &str, number: Option<u64>, entry: &Entry<'_>, rejects: bool) {
        let mut conditions = entry.addresses();
        let mut states = None;
        for (name, revision, info) in entry.matches() {
            states = states.or_else(|| states_of_xt(name, revision, info));
            conditions.push(xt::read_match(name, revision, info));
        }
        self.found.push(LegacyDropper {
            family: base.family,
            table: base.table,
            chain: chain.to_owned(),
            base_chain: base.chain,
            hook: base.hook,
            priority: base.priority,
            number,
            packets: entry.packets(),
            rejects,
            conditions,
            states,
        });
    }
}

impl LegacyDropper {
    /// Whether it can drop a packet without telling the client.
    pub(in crate::netfilter) fn can_drop(&self, packet: &Packet) -> bool {
        self.family == packet.family()
            && (!self.rejects || packet.is_answer)
            && packet.may_be_in(self.states)
            && packet.may_meet(&self.conditions)
    }

    pub(in crate::netfilter) fn describe(&self) -> Dropper {
        Dropper {
            id: Id {
                is_legacy: true,
                family: match self.family {
                    IpFamily::V4 => FilterFamily::Ip,
                    IpFamily::V6 => FilterFamily::Ip6,
                },
                table: self.table.to_owned(),
                chain: crate::netfilter::droppers::shown(self.chain.as_bytes()),
                rule: self.number,
            },
            tool: FilterTool::IptablesLegacy,
            base_chain: self.base_chain.to_owned(),
            hook: self.hook,
            priority: self.priority,
            packets: self.packets,
            // Which rules accept packets before it is not looked at.
            is_certain: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{super::kernel::HEAD, *};

    proptest! {
        #[test]
        fn any_table_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048), begin in 0_u32..512, length in 0_u32..512) {
            let blob = Blob::of(
                IpFamily::V4,
                [&[0; HEAD][..], &bytes].concat(),
                vec![("FORWARD", begin..begin.saturating_add(length))],
            );
            let tables = LegacyTables { tables: vec![(IpFamily::V4, "filter", 0, blob)] };
            let (found, _) = tables.droppers();
            prop_assert!(found.len() <= 4096);
        }
    }
}
