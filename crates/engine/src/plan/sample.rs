//! Which further nodes a diagnosis looks at, and how the sample moves on.
//!
//! Every node has a place on a dial, and so has the hand of every diagnosis, which goes round once while about as many hours
//! pass as there are nodes. The sample is the nodes that come next after the hand. So it exchanges one node about once an
//! hour, each diagnosis at a time of its own and on nodes of its own: thousands of diagnoses neither move on together nor
//! crowd upon one node. And because a place depends on nothing but the name, a node that comes or goes changes the samples
//! that it is part of, and no others.

use jiff::Timestamp;

/// A node passes the hand about once in this time.
const PACE_SECONDS: u64 = 3600;

/// The place of the hand of a diagnosis.
#[derive(Clone, Copy)]
pub(super) struct Hand(u64);

impl Hand {
    /// The hand of a diagnosis among so many nodes.
    pub(super) fn of(uid: &str, nodes: usize, now: Timestamp) -> Self {
        let own = place(uid);
        // A speed that changed with every node would move all hands at once. It changes where the number of nodes doubles, and
        // that is not at the same number for all diagnoses: by then it has grown by between one and two times.
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX).max(1);
        let grown = u128::from(nodes) * (256 + u128::from(own & 0xff)) / 256;
        let hours = 1_u64 << grown.ilog2().min(32);
        let second = u64::MAX / (hours * PACE_SECONDS);
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        Self(own.wrapping_add(seconds.wrapping_mul(second)))
    }

    /// The nodes that come next, up to so many.
    pub(super) fn next(self, nodes: Vec<&str>, most: usize) -> impl Iterator<Item = &str> {
        let distance = |node: &str| place(node).wrapping_sub(self.0);
        let mut nodes: Vec<(u64, &str)> = nodes.into_iter().map(|node| (distance(node), node)).collect();
        if most > 0 && most < nodes.len() {
            nodes.select_nth_unstable(most - 1);
        }
        nodes.into_iter().take(most).map(|(_, node)| node)
    }
}

/// A place on the dial: FNV-1a, whose high bits are spread evenly by the last step of SplitMix64. It stays the same over
/// versions, or an update would have all samples exchanged.
pub(super) fn place(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const MOST: usize = 3;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("worker-{n:04}")).collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn sample<'a>(uid: &str, nodes: &'a [String], seconds: i64) -> BTreeSet<&'a str> {
        let names = nodes.iter().map(String::as_str).collect();
        Hand::of(uid, nodes.len(), at(seconds))
            .next(names, MOST)
            .collect()
    }

    /// UIDs as the API server makes them are random; here they only differ.
    fn uids(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|n| format!("5f0c4f4e-0000-4000-8000-{n:012}"))
    }

    #[test]
    fn samples_move_on_evenly_and_by_about_a_node_an_hour() {
        let nodes = names(100);
        let mut moved = [0_usize; 60];
        for uid in uids(500) {
            let mut before = sample(&uid, &nodes, 0);
            for (minute, moved) in moved.iter_mut().enumerate() {
                let present = sample(&uid, &nodes, 60 * (i64::try_from(minute).unwrap() + 1));
                *moved += present.difference(&before).count();
                before = present;
            }
        }
        let hour: usize = moved.iter().sum();
        assert!((400..650).contains(&hour), "{hour} exchanges of 500 samples");
        assert!(moved.iter().all(|n| *n < 25), "{moved:?}");
    }

    #[test]
    fn every_node_is_looked_at_within_twice_as_many_hours_as_there_are_nodes() {
        for count in [4, 10, 50] {
            let nodes = names(count);
            for uid in uids(5) {
                let hours = 0..2 * i64::try_from(count).unwrap();
                // A node may pass in less than an hour: it is looked at all the same.
                let times = hours.flat_map(|hour| (0..60).map(move |minute| 3600 * hour + 60 * minute));
                let seen: BTreeSet<&str> = times.flat_map(|time| sample(&uid, &nodes, time)).collect();
                assert_eq!(seen.len(), count, "{uid} of {count} nodes");
            }
        }
    }

    #[test]
    fn a_node_that_goes_changes_few_other_samples() {
        let all = names(300);
        let mut fewer = all.clone();
        let gone = fewer.remove(150);
        let others = uids(1000).filter(|uid| {
            let before = sample(uid, &all, 0);
            !before.contains(gone.as_str()) && before != sample(uid, &fewer, 0)
        });
        // Those whose hand changes its speed at just this number of nodes.
        let others = others.count();
        assert!(others < 20, "{others}");
    }

    #[test]
    fn no_node_is_in_many_samples() {
        let nodes = names(100);
        let mut samples: BTreeMap<&str, usize> = BTreeMap::new();
        for uid in uids(1000) {
            for node in sample(&uid, &nodes, 0) {
                *samples.entry(node).or_default() += 1;
            }
        }
        let most = samples.values().max().unwrap();
        assert!(*most < 150, "{most} where 30 are the average");
    }
}
