//! The tables of iptables-legacy, as one blob by getsockopt, the way iptables-legacy-save reads them.
//!
//! Asking for a table that does not exist creates it. So [`Legacy::open`] reads the names of those that
//! exist first, and asks for no other.
//!
//! A table of a big cluster has some hundred thousand entries, and to copy them takes the kernel most of the
//! time there is. So the blob stays as it is: a jump says where the chain is that it leads to, and only entries
//! that are asked for become rules. Only for a chain that no jump has led to are all entries searched.
//!
//! ```text
//! kernel (getsockopt) -> Answers -> blob (chains) -> entry (one rule) -> Rule
//! ```
//!
//! Source: the kernel's include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.

mod blob;
pub(super) mod droppers;
mod entry;
mod kernel;

use std::{collections::HashMap, fs, io, net::IpAddr};

use self::blob::{Blob, Damaged};
use svcdiag_kube_proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Target, Verdict};

/// No table of a node is larger.
const MAX_SIZE: usize = 1 << 30;

/// A Pod's own rules: a sidecar's have some KiB.
const MAX_SIZE_OF_A_POD: usize = 4 * 1024 * 1024;

/// The tables nat and filter of one IP family in a network namespace.
#[derive(Debug, Default)]
pub struct Legacy {
    tables: HashMap<(IpFamily, Table), Blob>,
}

impl Legacy {
    /// Reads the tables that exist in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When a table exists but cannot be read.
    pub fn open() -> Result<Self, ReadError> {
        let mut tables = HashMap::new();
        for (family, names) in [
            (IpFamily::V4, "/proc/thread-self/net/ip_tables_names"),
            (IpFamily::V6, "/proc/thread-self/net/ip6_tables_names"),
        ] {
            // Where the kernel has no iptables-legacy there is no such file.
            let names = fs::read_to_string(names).unwrap_or_default();
            for table in [Table::Nat, Table::Filter] {
                if names.lines().any(|name| name == table.name()) {
                    let blob = read(family, table.name(), MAX_SIZE)?;
                    tables.insert((family, table), blob);
                }
            }
        }
        Ok(Self { tables })
    }

    /// Reads table nat of IPv4 alone, in the namespace of a Pod, which may have made it as large as it likes.
    ///
    /// # Errors
    /// When it exists but cannot be read, or is too large.
    pub fn nat_of_pod() -> Result<Self, ReadError> {
        let mut tables = HashMap::new();
        let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        if names.lines().any(|name| name == Table::Nat.name()) {
            let blob = read(IpFamily::V4, Table::Nat.name(), MAX_SIZE_OF_A_POD)?;
            tables.insert((IpFamily::V4, Table::Nat), blob);
        }
        Ok(Self { tables })
    }

    /// Table nat alone, as the kernel's two answers about it have it, one behind the other.
    #[must_use]
    pub(crate) fn of_answers(family: IpFamily, answers: &[u8]) -> Self {
        let (info, entries) = answers.split_at(answers.len().min(kernel::INFO));
        let blob = Blob::of(family, entries.to_vec(), blob::hooks(info));
        Self {
            tables: HashMap::from([((family, Table::Nat), blob)]),
        }
    }

    /// The answers that [`Self::of_answers`] takes, from the network namespace of the calling thread.
    pub(crate) fn answers(family: IpFamily) -> io::Result<Vec<u8>> {
        let answers = kernel::read_once(family, Table::Nat.name(), MAX_SIZE_OF_A_POD)?;
        Ok([answers.info, answers.entries].concat())
    }

    /// Whether a built-in chain drops what none of its rules takes; None if there is no such chain.
    #[must_use]
    pub fn drops_by_default(&self, family: IpFamily, table: Table, chain: &str) -> Option<bool> {
        self.tables
            .get(&(family, table))?
            .policy(chain)
            .map(|policy| policy == Target::Drop)
    }

    /// Whether there is a table of iptables-legacy at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

/// Reads a table of at most so many bytes.
fn read(family: IpFamily, table: &str, largest: usize) -> Result<Blob, ReadError> {
    let answers = kernel::read(family, table, largest)?;
    Ok(Blob::of(family, answers.entries, blob::hooks(&answers.info)))
}

impl Ruleset for Legacy {
    fn layout(&self) -> Layout {
        Layout::Iptables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let Some(blob) = self.tables.get(&(family, table)) else {
            return Ok(None);
        };
        blob.rules(chain).map_err(|Damaged| unreadable(table, chain))
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        let (address, protocol, port) = destination;
        let Some(blob) = self.tables.get(&(family, table)) else {
            return Ok(Vec::new());
        };
        // Most rules of the long chains name another address: they never become rules here.
        let mut rules = blob
            .rules_of(chain, |entry| entry.may_take(address))
            .map_err(|Damaged| unreadable(table, chain))?
            .unwrap_or_default();
        rules.retain(|rule| rule.can_take(address, protocol, port));
        Ok(rules)
    }

    fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
        Ok(None)
    }
}

fn unreadable(table: Table, chain: &str) -> ReadError {
    ReadError {
        what: format!("chain {chain} of table {} of iptables-legacy", table.name()),
        why: "its entries do not fit together".to_owned(),
    }
}
