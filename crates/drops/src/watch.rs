use std::{fs, io};

use svcdiag_netns::bpf::{Attached, Constant, HashMap};

use crate::{
    Drop, Filter, Kernel, Unavailable,
    kernel::Paths,
    program::{self, Maps, Point, What},
    record::{RECORD_SIZE, Record},
};

/// Different drops that one watch counts; others are not known. A dial leads to a handful, but others may dial the same
/// endpoints, each from a port of its own. The kernel takes some 200 bytes for each, so less than a mebibyte.
pub const MAX_DROPS: usize = 4096;

/// Filters of one watch: a dial of a Service with a hundred endpoints has four for each at most.
pub const MAX_FILTERS: usize = 512;

/// Of errno.h.
const EPERM: i32 = 1;

/// Capabilities by their numbers in linux/capability.h.
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Drops are counted until this is stopped or dropped.
#[derive(Debug)]
pub struct Watch {
    program: Attached,
    drops: HashMap,
    filters: Vec<Filter>,
    kernel: Kernel,
}

impl Watch {
    /// Starts to count the drops of packets that a filter matches, the first that does. Of more than [`MAX_FILTERS`]
    /// the first are watched.
    ///
    /// # Errors
    /// Where the kernel does not let this process watch.
    pub fn start(kernel: &Kernel, filters: &[Filter]) -> Result<Self, Unavailable> {
        Self::of(kernel, filters, false)
    }

    /// The same for packets of TCP that open a connection, and all of other protocols.
    ///
    /// # Errors
    /// The same.
    pub fn of_opening(kernel: &Kernel, filters: &[Filter]) -> Result<Self, Unavailable> {
        Self::of(kernel, filters, true)
    }

    fn of(kernel: &Kernel, filters: &[Filter], opening: bool) -> Result<Self, Unavailable> {
        let filters: Vec<Filter> = filters.iter().take(MAX_FILTERS).copied().collect();
        let what = What {
            point: Point::Dropped,
            opening,
        };
        let attach = || {
            let entries = u32::try_from(MAX_DROPS).map_err(io::Error::other)?;
            let drops = HashMap::new(RECORD_SIZE, size_of::<u64>(), entries)?;
            // The program holds it.
            let format = Constant::new(program::FUNCTION_FORMAT)?;
            let maps = Maps {
                counts: drops.descriptor(),
                format: Some(format.descriptor()),
            };
            let program = program::assemble(&kernel.layout, what, &filters, maps);
            let program = Attached::to_tracepoint(c"kfree_skb", &program, program::LICENCE)?;
            Ok((program, drops))
        };
        let (program, drops) = attach().map_err(|error| why(error, &kernel.paths))?;
        Ok(Self {
            program,
            drops,
            filters,
            kernel: kernel.clone(),
        })
    }

    /// Stops, and returns what was dropped, in the order of the filters. Older kernels want the rights for that which
    /// starting takes.
    ///
    /// # Errors
    /// When the kernel does not give its counts.
    pub fn stop(self) -> io::Result<Vec<Drop>> {
        drop(self.program);
        let entries = self.drops.entries(MAX_DROPS)?;
        let mut records: Vec<Record> = entries
            .iter()
            .filter_map(|(key, count)| Record::decode(key, count, &self.filters))
            .collect();
        records.sort();
        let drops = records.into_iter().map(|record| record.describe(&self.kernel));
        Ok(drops.collect())
    }
}

/// Why the kernel has refused.
pub(crate) fn why(error: io::Error, paths: &Paths) -> Unavailable {
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
