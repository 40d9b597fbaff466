//! The tables of iptables-legacy, as one blob by getsockopt, the way iptables-legacy-save reads them.
//!
//! Asking for a table that does not exist creates it. So [`Legacy::open`] reads the names of those that
//! exist first, and asks for no other.
//!
//! A table of a big cluster has some hundred thousand entries, and to copy them takes the kernel most of the
//! time there is. So the blob stays as it is and is not gone through: a jump tells where the chain is that it
//! leads to, and only entries that are asked for become rules. All entries are looked at for the sake of a chain
//! that no jump has led to.
//!
//! Source: the kernel's include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    os::fd::OwnedFd,
};

use ipnet::IpNet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use parking_lot::{Mutex, MutexGuard};

use super::xt;
use crate::{
    bytes::{u16_at, u32_at},
    sockopt,
};
use svcdiag_kube_proxy::{IpFamily, Layout, Match, ReadError, Rule, Ruleset, Table, Target, Verdict};

/// The length of struct ipt_getinfo: name, hooks, two times five offsets, number of entries, size.
const INFO: usize = 84;

/// The length of the head of struct ipt_get_entries: name, size, filled up to eight bytes.
const HEAD: usize = 40;

/// A table of a node larger than this is none.
const MAX_SIZE: usize = 1 << 30;

/// A Pod's own rules: a sidecar's have some KiB.
const MAX_SIZE_OF_A_POD: usize = 4 * 1024 * 1024;

/// A table may be replaced between the question for its size and the one for its entries.
const MAX_TRIES: usize = 5;

/// The tables nat and filter of one IP family in a network namespace.
#[derive(Debug, Default)]
pub struct Legacy {
    tables: HashMap<(IpFamily, Table), Blob>,
}

/// A table.
#[derive(Debug)]
pub struct Blob {
    family: IpFamily,
    /// The kernel's answer: what it puts before them ([`HEAD`]), then the entries, one after the other.
    bytes: Vec<u8>,
    hooks: Vec<Hook>,
    /// Where the first rules of chains are, as far as that has come out; None for a chain that there is not.
    begins: Mutex<HashMap<ChainName, Option<usize>>>,
}

/// The entries do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Where the rules of a built-in chain are, by the kernel's word.
pub type Hook = (&'static str, Range<u32>);

/// The name of a chain, filled up with zeros: XT_FUNCTION_MAXNAMELEN bytes, so that it needs no memory of
/// its own.
type ChainName = [u8; 30];

fn chain_name(name: &[u8]) -> Option<ChainName> {
    let mut filled = [0; 30];
    filled.get_mut(..name.len())?.copy_from_slice(name);
    Some(filled)
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
                    let blob = read_blob(family, table, MAX_SIZE)?;
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
            let blob = read_blob(IpFamily::V4, Table::Nat, MAX_SIZE_OF_A_POD)?;
            tables.insert((IpFamily::V4, Table::Nat), blob);
        }
        Ok(Self { tables })
    }

    /// Table nat alone, as the kernel's two answers about it have it, one behind the other.
    #[must_use]
    pub(crate) fn of_answers(family: IpFamily, answers: &[u8]) -> Self {
        let (info, entries) = answers.split_at(answers.len().min(INFO));
        let blob = Blob::of(family, entries.to_vec(), hooks(info));
        Self {
            tables: HashMap::from([((family, Table::Nat), blob)]),
        }
    }

    /// The answers that [`Self::of_answers`] takes, from the network namespace of the calling thread.
    pub(crate) fn answers(family: IpFamily) -> io::Result<Vec<u8>> {
        let (info, entries) = try_read(&iptables_socket(family)?, family, Table::Nat, MAX_SIZE_OF_A_POD)?;
        Ok([info, entries].concat())
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
fn read_blob(family: IpFamily, table: Table, largest: usize) -> Result<Blob, ReadError> {
    try_often(family, table, largest).map_err(|error| ReadError {
        what: format!("table {} of iptables-legacy ({family})", table.name()),
        why: error.to_string(),
    })
}

fn try_often(family: IpFamily, table: Table, largest: usize) -> io::Result<Blob> {
    let socket = iptables_socket(family)?;
    let mut last = io::Error::from(io::ErrorKind::Interrupted);
    for _ in 0..MAX_TRIES {
        match try_read(&socket, family, table, largest) {
            Ok((info, bytes)) => return Ok(Blob::of(family, bytes, hooks(&info))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn iptables_socket(family: IpFamily) -> io::Result<OwnedFd> {
    let domain = match family {
        IpFamily::V4 => AddressFamily::Inet,
        IpFamily::V6 => AddressFamily::Inet6,
    };
    Ok(socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// The kernel's two answers about a table: what it is, and its entries.
fn try_read(
    socket: &OwnedFd,
    family: IpFamily,
    table: Table,
    largest: usize,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    /// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, the same numbers for IPv6.
    const GET_INFO: i32 = 64;
    const GET_ENTRIES: i32 = 65;

    let level = match family {
        IpFamily::V4 => 0,
        IpFamily::V6 => 41,
    };
    let mut info = vec![0; INFO];
    copy_name(&mut info, table.name());
    sockopt::read(socket, level, GET_INFO, &mut info)?;
    let size = u32_at(&info, 80)
        .and_then(|s| usize::try_from(s).ok())
        .unwrap_or_default();
    if size > largest {
        let why = format!("it has {size} bytes, more than the {largest} that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let mut entries = vec![0; HEAD + size];
    // Page by page the kernel would be long about the memory, too.
    sockopt::prefer_huge_pages(&mut entries);
    copy_name(&mut entries, table.name());
    if let (Some(field), Ok(size)) = (entries.get_mut(32..36), u32::try_from(size)) {
        field.copy_from_slice(&size.to_ne_bytes());
    }
    sockopt::read(socket, level, GET_ENTRIES, &mut entries)?;
    Ok((info, entries))
}

/// The built-in chains by struct ipt_getinfo: which there are, where each begins, and where its policy is.
fn hooks(info: &[u8]) -> Vec<Hook> {
    const NAMES: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let valid = u32_at(info, 32).unwrap_or_default();
    NAMES
        .into_iter()
        .enumerate()
        .filter(|(hook, _)| valid & (1 << hook) != 0)
        .filter_map(|(hook, name)| Some((name, u32_at(info, 36 + 4 * hook)?..u32_at(info, 56 + 4 * hook)?)))
        .collect()
}

fn copy_name(to: &mut [u8], name: &str) {
    for (byte, value) in to.iter_mut().zip(name.bytes()) {
        *byte = value;
    }
}

/// Offsets in struct ipt_entry and struct ip6t_entry.
struct EntryLayout {
    source: usize,
    destination: usize,
    source_mask: usize,
    destination_mask: usize,
    address: usize,
    /// Names of the interfaces, in and out, 16 bytes each.
    interfaces: usize,
    protocol: usize,
    inverted: usize,
    target_offset: usize,
    length: usize,
}

const V4_ENTRY: EntryLayout = EntryLayout {
    source: 0,
    destination: 4,
    source_mask: 8,
    destination_mask: 12,
    address: 4,
    interfaces: 16,
    protocol: 80,
    inverted: 83,
    target_offset: 88,
    length: 112,
};

const V6_ENTRY: EntryLayout = EntryLayout {
    source: 0,
    destination: 16,
    source_mask: 32,
    destination_mask: 48,
    address: 16,
    interfaces: 64,
    protocol: 128,
    inverted: 132,
    target_offset: 140,
    length: 168,
};

/// Length of the head of a match or target: size, name of 29 bytes, revision.
const XT_HEAD: usize = 32;

/// An entry of a table.
struct Entry<'a> {
    bytes: &'a [u8],
    layout: &'static EntryLayout,
    target_offset: usize,
    /// Where the next one begins.
    end: usize,
}

impl Blob {
    /// A table as the kernel gives it, and its built-in chains.
    #[must_use]
    pub fn of(family: IpFamily, bytes: Vec<u8>, hooks: Vec<Hook>) -> Self {
        Self {
            family,
            bytes,
            hooks,
            begins: Mutex::default(),
        }
    }

    fn entries(&self) -> &[u8] {
        self.bytes.get(HEAD..).unwrap_or_default()
    }

    fn layout(&self) -> &'static EntryLayout {
        match self.family {
            IpFamily::V4 => &V4_ENTRY,
            IpFamily::V6 => &V6_ENTRY,
        }
    }

    fn entry(&self, offset: usize) -> Result<Entry<'_>, Damaged> {
        self.try_entry(offset).ok_or(Damaged)
    }

    fn try_entry(&self, offset: usize) -> Option<Entry<'_>> {
        let layout = self.layout();
        let bytes = self.entries().get(offset..)?;
        let target_offset = usize::from(u16_at(bytes, layout.target_offset)?);
        let length = usize::from(u16_at(bytes, layout.target_offset + 2)?);
        (layout.length <= target_offset && target_offset + XT_HEAD <= length).then_some(())?;
        Some(Entry {
            bytes: bytes.get(..length)?,
            layout,
            target_offset,
            end: offset.checked_add(length)?,
        })
    }

    /// The rules of a chain; None if there is no such chain.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn rules(&self, chain: &str) -> Result<Option<Vec<Rule>>, Damaged> {
        self.rules_of(chain, |_| true)
    }

    /// Where the rules of a chain begin and end. Behind them stands what happens at the end of the chain.
    fn place(&self, chain: &str) -> Result<Option<Range<usize>>, Damaged> {
        if let Some((_, rules)) = self.hooks.iter().find(|(name, _)| *name == chain) {
            let at = |offset: u32| usize::try_from(offset).map_err(|_| Damaged);
            return Ok(Some(at(rules.start)?..at(rules.end)?));
        }
        let Some(name) = chain_name(chain.as_bytes()) else {
            return Ok(None);
        };
        let known = self.begins().get(&name).copied();
        let begin = match known {
            Some(begin) => begin,
            None => {
                let begin = self.search(chain)?;
                self.begins().insert(name, begin);
                begin
            }
        };
        begin.map(|begin| Ok(begin..self.last_of(begin)?)).transpose()
    }

    fn begins(&self) -> MutexGuard<'_, HashMap<ChainName, Option<usize>>> {
        self.begins.lock()
    }

    /// Goes through all entries for the head of a chain, and says where its first rule is.
    fn search(&self, chain: &str) -> Result<Option<usize>, Damaged> {
        let mut offset = 0;
        while offset < self.entries().len() {
            let entry = self.entry(offset)?;
            offset = entry.end;
            if entry.chain_head() == Some(chain) {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// The last entry of a chain: the one before the head of the next chain. The table ends with a head, too.
    fn last_of(&self, begin: usize) -> Result<usize, Damaged> {
        let (mut last, mut offset) = (begin, begin);
        loop {
            let entry = self.entry(offset)?;
            if entry.is_head() {
                return Ok(last);
            }
            last = offset;
            offset = entry.end;
        }
    }

    /// What becomes of packets that no rule of a chain takes.
    fn policy(&self, chain: &str) -> Option<Target> {
        let place = self.place(chain).ok()??;
        self.target(&self.entry(place.end).ok()?)
    }

    /// The rules of a chain, of those entries that are wanted.
    fn rules_of(
        &self,
        chain: &str,
        is_wanted: impl Fn(&Entry<'_>) -> bool,
    ) -> Result<Option<Vec<Rule>>, Damaged> {
        let Some(place) = self.place(chain)? else {
            return Ok(None);
        };
        let mut rules = Vec::new();
        let mut offset = place.start;
        while offset < place.end {
            let entry = self.entry(offset)?;
            if is_wanted(&entry) {
                rules.push(self.rule(&entry));
            }
            offset = entry.end;
        }
        Ok(Some(rules))
    }

    fn rule(&self, entry: &Entry<'_>) -> Rule {
        let mut matches = entry.addresses(self.family);
        for (name, revision, info) in entry.matches() {
            matches.push(xt::read_match(name, revision, info));
        }
        Rule {
            matches,
            target: self
                .target(entry)
                .unwrap_or_else(|| Target::Other("?".to_owned())),
        }
    }

    fn target(&self, entry: &Entry<'_>) -> Option<Target> {
        let (name, revision, info) = entry.target()?;
        if !name.is_empty() {
            return Some(xt::read_target(name, revision, info, self.family));
        }
        // A standard target: a verdict, or where to go on.
        const DROP: i32 = -1;
        const ACCEPT: i32 = -2;
        const RETURN: i32 = -5;
        let verdict = i32::from_ne_bytes(*info.first_chunk::<4>()?);
        Some(match verdict {
            DROP => Target::Drop,
            ACCEPT => Target::Accept,
            RETURN => Target::Return,
            offset => {
                let offset = usize::try_from(offset).ok()?;
                // Without a target a rule leads to the one behind it.
                match self.chain_at(offset).filter(|_| offset != entry.end) {
                    Some(chain) => {
                        if let Some(name) = chain_name(chain.as_bytes()) {
                            self.begins().insert(name, Some(offset));
                        }
                        Target::Chain(chain.to_owned())
                    }
                    None => Target::Continue,
                }
            }
        })
    }

    /// Name of the chain whose first rule is at an offset: its head stands right before it, and is as
    /// long as every head.
    fn chain_at(&self, offset: usize) -> Option<&str> {
        let head = offset.checked_sub(self.layout().length + ERROR_TARGET)?;
        self.try_entry(head)?.chain_head()
    }
}

/// struct xt_error_target: head, name of 30 bytes, filled up to eight.
const ERROR_TARGET: usize = 64;

impl<'a> Entry<'a> {
    /// Whether a chain begins behind the entry, or the table ends with it.
    fn is_head(&self) -> bool {
        let name = self.bytes.get(self.target_offset + 2..);
        name.is_some_and(|name| name.starts_with(b"ERROR\0"))
    }

    /// The name of the chain that begins behind the entry.
    fn chain_head(&self) -> Option<&'a str> {
        self.is_head().then_some(())?;
        let (_, _, info) = self.target()?;
        xt::c_string(info.get(..30)?)
    }

    fn target(&self) -> Option<(&'a str, u8, &'a [u8])> {
        extension(self.bytes, self.target_offset).map(|(name, revision, info, _)| (name, revision, info))
    }

    fn matches(&self) -> Vec<(&'a str, u8, &'a [u8])> {
        let mut offset = self.layout.length;
        let mut matches = Vec::new();
        while offset < self.target_offset {
            let Some((name, revision, info, size)) = extension(self.bytes, offset) else {
                matches.push(("?", 0, &[][..]));
                break;
            };
            matches.push((name, revision, info));
            offset += size;
        }
        matches
    }

    /// Whether packets to an address, or to any of the node, can take the entry, by its destination alone.
    fn may_take(&self, destination: Option<IpAddr>) -> bool {
        const INVERTED_DESTINATION: u8 = 0x10;
        let at = |offset: usize| self.bytes.get(offset..offset + self.layout.address);
        let (Some(net), Some(mask)) = (at(self.layout.destination), at(self.layout.destination_mask)) else {
            return true;
        };
        if mask.iter().all(|byte| *byte == 0) {
            return true;
        }
        let contains = |address: &[u8]| {
            let pairs = address.iter().zip(net).zip(mask);
            pairs.into_iter().all(|((a, n), m)| a & m == *n)
        };
        let is_in = match destination {
            Some(IpAddr::V4(ip)) => contains(&ip.octets()),
            Some(IpAddr::V6(ip)) => contains(&ip.octets()),
            // Rules name no address of the node.
            None => false,
        };
        let inverted = self.bytes.get(self.layout.inverted).copied().unwrap_or_default();
        is_in == (inverted & INVERTED_DESTINATION == 0)
    }

    /// Conditions on addresses, protocol and interfaces, which stand in the entry itself.
    fn addresses(&self, family: IpFamily) -> Vec<Match> {
        const INVERTED_IN: u8 = 0x01;
        const INVERTED_SOURCE: u8 = 0x08;
        const INVERTED_DESTINATION: u8 = 0x10;
        const INVERTED_PROTOCOL: u8 = 0x40;
        let layout = self.layout;
        let inverted = self.bytes.get(layout.inverted).copied().unwrap_or_default();
        let mut matches = Vec::new();
        if let Some(net) = self.network(family, layout.source, layout.source_mask) {
            let not = inverted & INVERTED_SOURCE != 0;
            matches.push(net.map_or_else(
                || Match::Other("source".to_owned()),
                |net| Match::Source { net, not },
            ));
        }
        if let Some(net) = self.network(family, layout.destination, layout.destination_mask) {
            let not = inverted & INVERTED_DESTINATION != 0;
            matches.push(net.map_or_else(
                || Match::Other("destination".to_owned()),
                |net| Match::Destination { net, not },
            ));
        }
        match u16_at(self.bytes, layout.protocol).and_then(|p| u8::try_from(p).ok()) {
            Some(0) | None => {}
            Some(_) if inverted & INVERTED_PROTOCOL != 0 => matches.push(Match::Other("protocol".to_owned())),
            Some(number) => matches.push(Match::Protocol(number)),
        }
        let interfaces = self
            .bytes
            .get(layout.interfaces..layout.interfaces + 32)
            .unwrap_or_default();
        if interfaces.iter().any(|byte| *byte != 0) || inverted & INVERTED_IN != 0 {
            matches.push(Match::Other("interface".to_owned()));
        }
        matches
    }

    /// None if every address will do; Some(None) for a mask that is no prefix.
    fn network(&self, family: IpFamily, address: usize, mask: usize) -> Option<Option<IpNet>> {
        let mask = self.address(family, mask)?;
        if mask.is_unspecified() {
            return None;
        }
        Some(
            self.address(family, address)
                .and_then(|address| IpNet::with_netmask(address, mask).ok()),
        )
    }

    fn address(&self, family: IpFamily, offset: usize) -> Option<IpAddr> {
        let bytes = self.bytes.get(offset..offset + self.layout.address)?;
        Some(match family {
            IpFamily::V4 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            IpFamily::V6 => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
        })
    }
}

/// Name, revision, data and size of a match or target.
fn extension(entry: &[u8], offset: usize) -> Option<(&str, u8, &[u8], usize)> {
    let bytes = entry.get(offset..)?;
    let size = usize::from(u16_at(bytes, 0)?);
    let name = xt::c_string(bytes.get(2..31)?)?;
    let info = bytes.get(XT_HEAD..size)?;
    Some((name, *bytes.get(31)?, info, size))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    /// An entry with a standard target or the head of a chain.
    fn entry(destination: [u8; 4], target: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; V4_ENTRY.length];
        bytes[4..8].copy_from_slice(&destination);
        bytes[12..16].copy_from_slice(&[255; 4]);
        let size = (XT_HEAD + data.len()).next_multiple_of(8);
        let mut head = vec![0; size];
        head[..2].copy_from_slice(&u16::try_from(size).unwrap().to_ne_bytes());
        copy_name(&mut head[2..31], target);
        head[XT_HEAD..XT_HEAD + data.len()].copy_from_slice(data);
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&u16::try_from(112 + size).unwrap().to_ne_bytes());
        bytes.extend(head);
        bytes
    }

    fn head(name: &str) -> Vec<u8> {
        let mut data = vec![0; 30];
        copy_name(&mut data, name);
        entry([0; 4], "ERROR", &data)
    }

    fn table() -> Vec<u8> {
        let policy = entry([0; 4], "", &(-2_i32).to_ne_bytes());
        let end = entry([0; 4], "", &(-5_i32).to_ne_bytes());
        [
            policy,
            head("KUBE-SERVICES"),
            entry([10, 96, 0, 1], "", &(-1_i32).to_ne_bytes()),
            end,
            head("ERROR"),
        ]
        .concat()
    }

    fn blob(family: IpFamily, entries: &[u8], hooks: Vec<Hook>) -> Blob {
        Blob::of(family, [&[0; HEAD], entries].concat(), hooks)
    }

    fn ask_everything(blob: &Blob) {
        for chain in [
            "PREROUTING",
            "OUTPUT",
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            "ERROR",
            "",
        ] {
            let _ = blob.rules(chain);
            let _ = blob.policy(chain);
            let _ = blob.rules_of(chain, |entry| entry.may_take(Some(Ipv4Addr::LOCALHOST.into())));
            let _ = blob.rules_of(chain, |entry| entry.may_take(Some(Ipv6Addr::LOCALHOST.into())));
        }
    }

    #[test]
    fn a_chain_reaches_from_its_head_to_its_last_entry() {
        let blob = blob(IpFamily::V4, &table(), vec![("PREROUTING", 0..0)]);
        assert_eq!(blob.rules("PREROUTING"), Ok(Some(Vec::new())));
        assert_eq!(blob.rules("KUBE-NODEPORTS"), Ok(None));
        let rules = blob.rules("KUBE-SERVICES").unwrap().unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].target, Target::Drop);
        assert!(rules[0].can_take(Some([10, 96, 0, 1].into()), 6, 80));
    }

    #[test]
    fn a_chain_is_the_same_whether_a_jump_has_led_to_it_or_not() {
        let jump = |to: usize| entry([0; 4], "", &i32::try_from(to).unwrap().to_ne_bytes());
        let policy = entry([0; 4], "", &(-2_i32).to_ne_bytes());
        let first = jump(0).len() + policy.len() + head("A").len();
        let hooks = || vec![("OUTPUT", 0..u32::try_from(jump(0).len()).unwrap())];
        let entries = [
            jump(first),
            policy,
            head("A"),
            entry([10, 96, 0, 1], "", &(-1_i32).to_ne_bytes()),
            entry([0; 4], "", &(-5_i32).to_ne_bytes()),
            head("ERROR"),
        ]
        .concat();
        let met = blob(IpFamily::V4, &entries, hooks());
        let output = met.rules("OUTPUT").unwrap().unwrap();
        assert_eq!(output[0].leads_to(), Some("A"));
        assert_eq!(met.rules("A").unwrap().unwrap().len(), 1);
        assert_eq!(met.rules("A"), blob(IpFamily::V4, &entries, hooks()).rules("A"));
        assert_eq!(met.policy("OUTPUT"), Some(Target::Accept));
    }

    #[test]
    fn a_table_that_is_cut_off_is_not_one_without_the_chain() {
        let whole = table();
        let cut = blob(IpFamily::V4, &whole[..whole.len() - 8], Vec::new());
        assert_eq!(cut.rules("KUBE-NODEPORTS"), Err(Damaged));
    }

    proptest! {
        #[test]
        fn any_answer_about_a_table_is_survived(info in prop::collection::vec(any::<u8>(), 0..100), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            ask_everything(&blob(IpFamily::V4, &bytes, hooks(&info)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048), v6: bool, hook in 0_u32..4096) {
            let family = if v6 { IpFamily::V6 } else { IpFamily::V4 };
            ask_everything(&blob(family, &bytes, vec![("OUTPUT", hook..hook + 300)]));
        }

        #[test]
        fn a_damaged_table_is_survived(at in 0_usize..800, value: u8, length in 0_u32..900) {
            let mut bytes = table();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(usize::try_from(length).unwrap());
            ask_everything(&blob(IpFamily::V4, &bytes, vec![("OUTPUT", 0..length)]));
        }
    }
}
