//! Packets that conntrack itself has dropped, by the counters that `conntrack -S` prints.
//!
//! `insert_failed` counts entries that collided with another one, `drop` packets that were dropped for that or because
//! they found the table full. Kernels differ in whether a collision without a loss, or a chain that is too long, is in
//! `insert_failed`; neither is in `drop`. So collisions that lost a packet are in both.

use std::io;

use super::{Conntrack, HEADER, SUBSYSTEM};
use crate::netlink::{Attributes, Request};

/// IPCTNL_MSG_CT_GET_STATS_CPU: a message for each CPU.
const GET_STATS_CPU: u8 = 4;

const INSERT_FAILED: u16 = 9;
const DROP: u16 = 10;
const EARLY_DROP: u16 = 11;
/// Entries that were not inserted because a chain of the hash table was too long, which `insert_failed` counts as well.
const CHAIN_TOO_LONG: u16 = 15;

/// The counters of a network namespace, over all CPUs, since it exists. They overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    insert_failed: u32,
    drop: u32,
    early_drop: u32,
    chain_too_long: u32,
}

/// What conntrack has dropped between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets whose entry collided with another one.
    pub clashes: u32,
    /// Packets that found no room in the table.
    pub table_full: u32,
    /// Entries that were removed to make room in a full table.
    pub evicted: u32,
}

impl Statistics {
    /// What has been dropped until a later moment. Where collisions without a loss are counted as well, it is at most
    /// that many clashes, and at least that many for want of room.
    #[must_use]
    pub fn until(&self, later: &Self) -> Dropped {
        let rose = |of: fn(&Self) -> u32| of(later).wrapping_sub(of(self));
        let (failed, dropped) = (rose(|s| s.insert_failed), rose(|s| s.drop));
        let clashes = failed.saturating_sub(rose(|s| s.chain_too_long)).min(dropped);
        Dropped {
            clashes,
            table_full: dropped - clashes,
            evicted: rose(|s| s.early_drop),
        }
    }

    fn add(&mut self, cpu: &Self) {
        self.insert_failed = self.insert_failed.wrapping_add(cpu.insert_failed);
        self.drop = self.drop.wrapping_add(cpu.drop);
        self.early_drop = self.early_drop.wrapping_add(cpu.early_drop);
        self.chain_too_long = self.chain_too_long.wrapping_add(cpu.chain_too_long);
    }
}

impl Conntrack {
    /// The counters of the network namespace.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let messages = self.0.dump(&Request::netfilter(SUBSYSTEM, GET_STATS_CPU, 0))?;
        let mut sum = Statistics::default();
        for (_, body) in &messages {
            sum.add(&of_cpu(body));
        }
        Ok(sum)
    }
}

/// The counters of one CPU.
pub(crate) fn of_cpu(body: &[u8]) -> Statistics {
    let attributes = Attributes::behind(body, HEADER);
    let count = |kind| attributes.be_u32(kind).unwrap_or_default();
    Statistics {
        insert_failed: count(INSERT_FAILED),
        drop: count(DROP),
        early_drop: count(EARLY_DROP),
        chain_too_long: count(CHAIN_TOO_LONG),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statistics(insert_failed: u32, drop: u32) -> Statistics {
        Statistics {
            insert_failed,
            drop,
            ..Statistics::default()
        }
    }

    fn dropped(before: Statistics, after: Statistics) -> (u32, u32) {
        let Dropped {
            clashes, table_full, ..
        } = before.until(&after);
        (clashes, table_full)
    }

    /// What Linux 6.18 sent for two CPUs after five packets had collided: struct nfgenmsg with the number of the CPU, and the
    /// counters.
    const RECORDED: [&str; 2] = [
        "00000000080002000000000008000400000000000800080000000000080009000000000008000a000000000008000b000000000008000c000000000008000d000000000008000e000000000008000f0000000000",
        "00000001080002000000000008000400000000000800080000000000080009000000000508000a000000000508000b000000000008000c000000000008000d000000000008000e000000000008000f0000000000",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|c| u8::try_from(c.to_digit(16)?).ok())
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn the_counters_of_all_cpus_are_added() {
        let mut sum = Statistics::default();
        for message in RECORDED {
            sum.add(&of_cpu(&bytes(message)));
        }
        assert_eq!(sum, statistics(5, 5));
        let dropped = Statistics::default().until(&sum);
        assert_eq!((dropped.clashes, dropped.table_full, dropped.evicted), (5, 0, 0));
    }

    #[test]
    fn packets_that_collide_are_told_from_those_without_room() {
        let zero = statistics(0, 0);
        assert_eq!(dropped(zero, statistics(3, 3)), (3, 0));
        assert_eq!(dropped(zero, statistics(3, 10)), (3, 7));
        assert_eq!(dropped(zero, statistics(9, 0)), (0, 0), "nothing was lost");
        assert_eq!(dropped(zero, statistics(9, 2)), (2, 0));
        let too_long = |insert_failed, drop| Statistics {
            chain_too_long: 2,
            ..statistics(insert_failed, drop)
        };
        assert_eq!(dropped(zero, too_long(3, 1)), (1, 0));
        assert_eq!(dropped(zero, too_long(3, 4)), (1, 3), "no room for three");
        assert_eq!(dropped(zero, too_long(0, 4)), (0, 4));
    }

    #[test]
    fn counters_that_overflow_are_counted_on() {
        let before = statistics(u32::MAX, u32::MAX - 1);
        assert_eq!(dropped(before, statistics(1, 4)), (2, 4));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let cpu = of_cpu(&bytes);
            let mut sum = cpu;
            sum.add(&cpu);
            let _ = cpu.until(&sum);
        }
    }
}
