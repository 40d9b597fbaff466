use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
};

use svcdiag_netns::bpf::{Attached, HashMap};

use crate::{
    Drop, Filter, Interface, Kernel, Leg, Tuple, Unavailable,
    kernel::Paths,
    program::{self, NAME_LENGTH, record},
    symbols,
};

/// Different drops that one watch counts; of others only that there were some is known. A dial leads to a handful.
pub const MAX_DROPS: usize = 256;

/// Filters of one watch: a dial of a Service with a hundred endpoints has four for each at most.
pub const MAX_FILTERS: usize = 512;

const RECORD_SIZE: usize = record::SIZE.unsigned_abs() as usize;

/// The key under which the program counts what it has no room for. No packet has it: its protocol is none.
const LOST: [u8; RECORD_SIZE] = [0; RECORD_SIZE];

/// With the one for what is lost.
const ENTRIES: usize = MAX_DROPS + 1;

/// Of errno.h.
const EPERM: i32 = 1;

/// Capabilities by their numbers in linux/capability.h.
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// What was dropped during a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// In the order of the filters.
    pub counted: Vec<Drop>,
    /// Whether that is all: nothing was dropped for which there was no room.
    pub complete: bool,
}

/// Drops are counted until this is finished or dropped.
#[derive(Debug)]
pub struct Watch {
    program: Attached,
    drops: HashMap,
    filters: Vec<Filter>,
    kernel: Kernel,
}

impl Watch {
    /// Starts to count the drops of packets that a filter matches, the first that does.
    ///
    /// # Errors
    /// Where the kernel does not let this process watch.
    pub fn start(kernel: &Kernel, filters: &[Filter]) -> Result<Self, Unavailable> {
        if filters.len() > MAX_FILTERS {
            return Err(Unavailable::TooManyFilters(filters.len()));
        }
        let is_mixed = |Filter { tuple, .. }: &Filter| tuple.source.is_ipv6() != tuple.destination.is_ipv6();
        if filters.iter().any(is_mixed) {
            return Err(Unavailable::MixedFamilies);
        }
        let attach = || {
            let entries = u32::try_from(ENTRIES).map_err(io::Error::other)?;
            let drops = HashMap::new(RECORD_SIZE, size_of::<u64>(), entries)?;
            drops.insert(&LOST, &[0; size_of::<u64>()])?;
            let program = program::assemble(&kernel.layout, filters, drops.descriptor());
            let program = Attached::to_tracepoint(c"kfree_skb", &program, program::LICENCE)?;
            Ok((program, drops))
        };
        let (program, drops) = attach().map_err(|error| why(error, &kernel.paths))?;
        Ok(Self {
            program,
            drops,
            filters: filters.to_vec(),
            kernel: kernel.clone(),
        })
    }

    /// Stops, and returns what was dropped.
    ///
    /// # Errors
    /// When the kernel does not give its counts.
    pub fn finish(self) -> io::Result<Drops> {
        self.stop().map(Counts::describe)
    }

    /// Stops, and reads the counts, for which older kernels want the rights that starting takes.
    ///
    /// # Errors
    /// When the kernel does not give its counts.
    pub fn stop(self) -> io::Result<Counts> {
        drop(self.program);
        let entries = self.drops.entries(ENTRIES)?;
        let none = [0; size_of::<u64>()];
        let complete = entries.iter().any(|(key, count)| *key == LOST && *count == none);
        let mut records: Vec<Record> = entries
            .iter()
            .filter_map(|(key, count)| Record::decode(key, count, &self.filters))
            .collect();
        records.sort();
        Ok(Counts {
            records,
            complete,
            kernel: self.kernel,
        })
    }
}

/// What a watch has counted, by the kernel's own numbers.
#[derive(Debug)]
pub struct Counts {
    records: Vec<Record>,
    complete: bool,
    kernel: Kernel,
}

impl Counts {
    /// Names what was dropped. If anything was, it reads the list of the kernel's functions, which takes the time of
    /// a hundred thousand lines: not for a thread that others wait for.
    #[must_use]
    pub fn describe(self) -> Drops {
        let Self {
            records,
            complete,
            kernel,
        } = self;
        let mut addresses: Vec<u64> = records.iter().map(|record| record.location).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let functions = match addresses[..] {
            [] => BTreeMap::new(),
            _ => symbols::functions(&kernel.paths.symbols, &addresses),
        };
        let counted = records
            .into_iter()
            .map(|record| record.describe(&kernel, &functions))
            .collect();
        Drops { counted, complete }
    }
}

/// Why the kernel has refused.
fn why(error: io::Error, paths: &Paths) -> Unavailable {
    // Unreadable files say nothing, and the kernel's own word remains.
    let lockdown = fs::read_to_string(&paths.lockdown).unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return Unavailable::LockedDown;
    }
    // The verifier refuses with other numbers: that is our fault, and no lack of permission.
    if error.raw_os_error() != Some(EPERM) {
        return Unavailable::Refused(error);
    }
    let status = fs::read_to_string(&paths.status).unwrap_or_default();
    match may_trace(&status) {
        Some(false) => Unavailable::NoCapability,
        Some(true) => Unavailable::Forbidden,
        None => Unavailable::Refused(error),
    }
}

/// Whether a thread of this status has the capabilities to trace, if it says.
fn may_trace(status: &str) -> Option<bool> {
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(held.trim(), 16).ok()?;
    let has = |capability: u32| held >> capability & 1 == 1;
    Some(has(SYS_ADMIN) || has(BPF) && has(PERFMON))
}

/// What the program has written, in the order in which drops are returned.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    filter: usize,
    leg: Leg,
    tuple: Tuple,
    reason: u32,
    location: u64,
    namespace: u32,
    index: u32,
    name: String,
    received_by: u32,
    count: u64,
}

impl Record {
    fn decode(key: &[u8], count: &[u8], filters: &[Filter]) -> Option<Self> {
        let number = |at: i16| bytes(key, at).map(u32::from_ne_bytes);
        (*key != LOST).then_some(())?;
        let filter: usize = bytes(key, record::FILTER).map(u16::from_ne_bytes)?.into();
        let Filter { leg, tuple } = *filters.get(filter)?;
        let address = |at: i16| {
            Some(if tuple.destination.is_ipv6() {
                IpAddr::from(bytes::<16>(key, at)?)
            } else {
                IpAddr::from(bytes::<4>(key, at)?)
            })
        };
        let port = |at: i16| bytes(key, at).map(u16::from_be_bytes);
        let name: [u8; NAME_LENGTH.unsigned_abs() as usize] = bytes(key, record::NAME)?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(Self {
            filter,
            leg,
            tuple: Tuple {
                protocol: tuple.protocol,
                source: SocketAddr::new(address(record::SOURCE)?, port(record::PORTS)?),
                destination: SocketAddr::new(address(record::DESTINATION)?, port(record::PORTS + 2)?),
            },
            reason: number(record::REASON)?,
            location: bytes(key, record::LOCATION).map(u64::from_ne_bytes)?,
            namespace: number(record::NAMESPACE)?,
            index: number(record::INDEX)?,
            name: String::from_utf8_lossy(&name[..length]).into_owned(),
            received_by: number(record::RECEIVED_BY)?,
            count: bytes(count, 0).map(u64::from_ne_bytes)?,
        })
    }

    fn describe(self, kernel: &Kernel, functions: &BTreeMap<u64, String>) -> Drop {
        let known = |number: u32| (number != 0).then_some(number);
        Drop {
            leg: self.leg,
            tuple: self.tuple,
            reason: kernel.reason(self.reason),
            location: functions.get(&self.location).cloned(),
            interface: known(self.index).map(|index| Interface {
                index,
                name: self.name,
            }),
            namespace: known(self.namespace),
            received_by: known(self.received_by),
            count: self.count,
        }
    }
}

fn bytes<const N: usize>(from: &[u8], at: i16) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracing_takes_both_capabilities_or_the_one_for_all() {
        let status = |held: u64| format!("Name:\tagent\nCapPrm:\t0\nCapEff:\t{held:016x}\n");
        for (held, may) in [
            (0, false),
            (1 << 39, false),
            (1 << 38, false),
            (3 << 38, true),
            (1 << 21, true),
        ] {
            assert_eq!(may_trace(&status(held)), Some(may), "{held:x}");
        }
        assert_eq!(may_trace("Name:\tagent\n"), None);
    }

    #[test]
    fn a_refusal_is_explained_by_lockdown_then_by_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |number: i32, lockdown: &str, held: u64| {
            let paths = Paths {
                lockdown: folder.path().join("lockdown"),
                status: folder.path().join("status"),
                ..Paths::default()
            };
            fs::write(&paths.lockdown, lockdown).unwrap();
            fs::write(&paths.status, format!("CapEff:\t{held:x}\n")).unwrap();
            why(io::Error::from_raw_os_error(number), &paths)
        };
        const EINVAL: i32 = 22;
        const OPEN: &str = "[none] integrity confidentiality\n";
        const LOCKED: &str = "none integrity [confidentiality]\n";
        let all = u64::MAX;
        // Then helpers are unknown to the verifier.
        assert!(matches!(refused(EINVAL, LOCKED, all), Unavailable::LockedDown));
        assert!(matches!(refused(EPERM, OPEN, 0), Unavailable::NoCapability));
        assert!(matches!(refused(EPERM, OPEN, all), Unavailable::Forbidden));
        assert!(matches!(refused(EINVAL, OPEN, 0), Unavailable::Refused(_)));
    }
}
