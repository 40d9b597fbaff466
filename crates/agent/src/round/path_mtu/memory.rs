//! What is remembered of paths, so that nothing is sent while nothing can have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::trial::{Found, Limit};
use svcdiag_api::ProbePath;

/// Without a change, time before a path that is well is tried again.
const PAUSE: Duration = Duration::from_secs(3600);

/// After so many trials in which too little was heard, a client and a node are left alone for an hour whatever changes: the
/// node most likely lets no ICMP message pass.
const MAX_UNKNOWN: u32 = 3;

/// How long what one NodeProbe has found well holds for others, for one round: each endpoint sends a client six ICMP messages
/// at once and then one a second, and a NodeProbe that comes later would have to wait for them.
const HOLDS_FOR_OTHERS: Duration = Duration::from_secs(10);

/// A client Pod, as namespace/name, and an address or a node.
type Key = (String, String);

/// What was found on a path, or on another one between the same nodes, before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing since the last change.
    Nothing,
    /// Nothing was heard of a packet of full size.
    Suspect,
    /// Packets were lost: what full size was, and what is lost.
    Lost(u16, Limit),
}

/// What is known of the paths of one NodeProbe.
#[derive(Debug, Default)]
pub(in crate::round) struct Known {
    revision: String,
    /// Paths that are well, and since when that is known.
    well: BTreeMap<Key, Instant>,
    /// Paths on which nothing was heard of a packet of full size.
    suspects: BTreeSet<Key>,
    /// Nodes on the way to which packets are lost: what full size was, and what is lost.
    lost: BTreeMap<String, (u16, Limit)>,
    /// Clients and nodes of which too little was heard: how often in a row, and when last.
    unknown: BTreeMap<Key, (u32, Instant)>,
}

impl Known {
    /// The paths that are to be tried in this round, each with what was found before. What is not asked any more is
    /// forgotten.
    pub(super) fn due<'a>(&mut self, revision: &str, asked: &'a [ProbePath]) -> Vec<(&'a ProbePath, Before)> {
        if self.revision != revision {
            revision.clone_into(&mut self.revision);
            self.well.clear();
            self.suspects.clear();
        }
        let is_asked = |known: &Key| asked.iter().any(|path| key(path) == *known);
        self.well
            .retain(|known, since| is_asked(known) && since.elapsed() < PAUSE);
        self.suspects.retain(is_asked);
        self.lost
            .retain(|node, _| asked.iter().any(|path| path.node == *node));
        let is_pair = |known: &Key| asked.iter().any(|path| pair(path) == *known);
        self.unknown
            .retain(|known, (_, since)| is_pair(known) && since.elapsed() < PAUSE);
        let is_left_alone = |path: &ProbePath| {
            let unknown = self.unknown.get(&pair(path));
            unknown.is_some_and(|(times, _)| *times >= MAX_UNKNOWN)
        };
        let is_due = |path: &&ProbePath| !self.well.contains_key(&key(path)) && !is_left_alone(path);
        let due = asked.iter().filter(is_due);
        due.map(|path| (path, self.before(path))).collect()
    }

    fn before(&self, path: &ProbePath) -> Before {
        match self.lost.get(&path.node) {
            Some((full, limit)) => Before::Lost(*full, *limit),
            None if self.suspects.contains(&key(path)) => Before::Suspect,
            None => Before::Nothing,
        }
    }

    /// Notes what was found on paths with packets of a size, and returns those that lose packets.
    pub(super) fn learn<'a>(
        &mut self,
        found: impl Iterator<Item = (&'a ProbePath, u16, Found)>,
    ) -> Vec<(&'a ProbePath, Limit)> {
        let now = Instant::now();
        let mut lost = Vec::new();
        for (path, full, found) in found {
            self.suspects.remove(&key(path));
            self.lost.remove(&path.node);
            if found != Found::Unknown {
                self.unknown.remove(&pair(path));
            }
            match found {
                Found::Passes => {
                    self.well.insert(key(path), now);
                }
                Found::Lost(limit) => {
                    self.lost.insert(path.node.clone(), (full, limit));
                    lost.push((path, limit));
                }
                Found::Suspect => {
                    self.suspects.insert(key(path));
                }
                Found::Unknown => {
                    let unknown = self.unknown.entry(pair(path)).or_insert((0, now));
                    *unknown = (unknown.0.saturating_add(1), now);
                }
            }
        }
        lost
    }
}

/// The paths that NodeProbes have found well lately, for one another: which NodeProbe, and when.
#[derive(Debug, Default)]
pub(in crate::round) struct Shared(BTreeMap<Key, (String, Instant)>);

impl Shared {
    /// Whether another NodeProbe has just found a path well. Its own finding says nothing of a change since.
    pub(super) fn is_well(&self, path: &ProbePath, asking: &str) -> bool {
        let known = self.0.get(&key(path));
        known.is_some_and(|(by, at)| by != asking && at.elapsed() < HOLDS_FOR_OTHERS)
    }

    pub(super) fn note_well(&mut self, path: &ProbePath, by: &str) {
        self.0.retain(|_, (_, at)| at.elapsed() < HOLDS_FOR_OTHERS);
        self.0.insert(key(path), (by.to_owned(), Instant::now()));
    }

    pub(super) fn forget(&mut self, path: &ProbePath) {
        self.0.remove(&key(path));
    }
}

fn key(path: &ProbePath) -> Key {
    (path.from.clone(), path.to.clone())
}

/// The client and the node: what is between them answers for all endpoints there.
fn pair(path: &ProbePath) -> Key {
    (path.from.clone(), path.node.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        passes: 1400,
        fails: 1500,
    };

    fn path(to: &str) -> ProbePath {
        ProbePath {
            from: "shop/client".to_owned(),
            to: to.to_owned(),
            node: "n2".to_owned(),
        }
    }

    /// Which paths are due, and notes what is found on them.
    fn round(known: &mut Known, revision: &str, asked: &[ProbePath], found: Found) -> Vec<String> {
        let due: Vec<_> = known.due(revision, asked);
        let names = due.iter().map(|(path, _)| path.to.clone()).collect();
        known.learn(due.into_iter().map(|(path, _)| (path, 1500, found)));
        names
    }

    #[test]
    fn a_path_that_is_well_is_tried_after_a_change_only() {
        let (mut known, asked) = (Known::default(), [path("10.0.0.1"), path("10.0.0.2")]);
        assert_eq!(round(&mut known, "1", &asked, Found::Passes).len(), 2);
        assert_eq!(round(&mut known, "1", &asked, Found::Passes).len(), 0);
        assert_eq!(round(&mut known, "2", &asked, Found::Passes).len(), 2);
        assert_eq!(round(&mut known, "2", &asked[..1], Found::Passes).len(), 0);
        assert_eq!(round(&mut known, "2", &asked, Found::Passes), ["10.0.0.2"]);
    }

    #[test]
    fn what_one_has_found_well_holds_for_others_alone() {
        let (mut shared, well) = (Shared::default(), path("10.0.0.1"));
        assert!(!shared.is_well(&well, "shop/a"));
        shared.note_well(&well, "shop/a");
        assert!(shared.is_well(&well, "shop/b"));
        assert!(!shared.is_well(&well, "shop/a"), "it asks after a change");
        assert!(!shared.is_well(&path("10.0.0.2"), "shop/b"));
        shared.forget(&well);
        assert!(!shared.is_well(&well, "shop/b"));
    }

    #[test]
    fn a_path_that_loses_packets_is_tried_in_every_round() {
        let (mut known, asked) = (Known::default(), [path("10.0.0.1")]);
        for revision in ["1", "1", "2"] {
            assert_eq!(round(&mut known, revision, &asked, Found::Lost(LIMIT)).len(), 1);
        }
        assert_eq!(known.due("3", &asked)[0].1, Before::Lost(1500, LIMIT));
        // Whichever endpoints the node has.
        assert_eq!(
            known.due("3", &[path("10.0.0.9")])[0].1,
            Before::Lost(1500, LIMIT)
        );
        assert_eq!(round(&mut known, "3", &asked, Found::Passes).len(), 1);
        assert_eq!(round(&mut known, "3", &asked, Found::Passes).len(), 0);
        assert_eq!(known.due("4", &asked)[0].1, Before::Nothing);
    }

    #[test]
    fn a_suspect_is_tried_in_the_next_round_unless_something_has_changed() {
        let (mut known, asked) = (Known::default(), [path("10.0.0.1")]);
        round(&mut known, "1", &asked, Found::Suspect);
        assert_eq!(known.due("1", &asked)[0].1, Before::Suspect);
        assert_eq!(known.due("2", &asked)[0].1, Before::Nothing);
    }

    #[test]
    fn where_nothing_is_heard_a_node_is_left_alone_whatever_changes() {
        let mut known = Known::default();
        for (revision, to) in [("1", "10.0.0.1"), ("1", "10.0.0.1"), ("2", "10.0.0.2")] {
            assert_eq!(round(&mut known, revision, &[path(to)], Found::Unknown).len(), 1);
        }
        assert_eq!(
            round(&mut known, "3", &[path("10.0.0.3")], Found::Unknown).len(),
            0
        );
        let elsewhere = ProbePath {
            node: "n3".to_owned(),
            ..path("10.0.0.3")
        };
        assert_eq!(round(&mut known, "3", &[elsewhere], Found::Unknown).len(), 1);
    }

    #[test]
    fn what_was_heard_in_between_counts() {
        let (mut known, asked) = (Known::default(), [path("10.0.0.1")]);
        for found in [Found::Unknown, Found::Unknown, Found::Passes] {
            assert_eq!(round(&mut known, "1", &asked, found).len(), 1);
        }
        for _ in 0..MAX_UNKNOWN {
            assert_eq!(round(&mut known, "2", &asked, Found::Unknown).len(), 1);
        }
        assert_eq!(round(&mut known, "2", &asked, Found::Unknown).len(), 0);
    }
}
