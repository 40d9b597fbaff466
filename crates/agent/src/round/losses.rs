//! Packets that are lost at times: TCP connections that needed a second SYN, and DNS questions without an answer.
//!
//! One lost packet proves nothing, so they are counted over many rounds. Nothing else than what is dialled anyway is
//! counted, and nothing right after a change, when Pods come and go. `loss_counters` finds what the kernel counts with them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use parking_lot::Mutex;
use svcdiag_api::{LossyPath, PathLoss};
use svcdiag_netns::Netns;

use super::{
    MAX_FAILURES, Memory, Round,
    loss_counters::{Coincidence, Counter, Rises, Scope},
};

/// After so many rounds all counts are halved, so that what is long ago is forgotten.
const ROUNDS: u32 = 40;

/// What counts as a loss: in so many rounds, and one of so many tries. What was told stays until it is half of that, so
/// that a report does not come and go by chance.
const LOSSY_ROUNDS: u32 = 3;
const ONE_OF: u32 = 50;
const STILL_ONE_OF: u32 = 2 * ONE_OF;

/// Counters that are reported of a path.
const MAX_COUNTERS: usize = 8;

/// What was tried: an address dialled, or a DNS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Address(SocketAddr),
    Dns(SocketAddr),
}

/// How often something was tried, and how often a packet was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    tries: u32,
    lost: u32,
}

/// The tries of a round, by network namespace.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<BTreeMap<(u64, To), Tally>>);

impl Tries {
    /// Notes a TCP connection, and whether its first packet was sent again.
    pub(super) fn connected(&self, from: &Netns, to: SocketAddr, again: bool) {
        self.note(from, To::Address(to), again);
    }

    /// Notes a question to a DNS server, and whether it was not answered.
    pub(super) fn asked(&self, from: &Netns, server: SocketAddr, unanswered: bool) {
        self.note(from, To::Dns(server), unanswered);
    }

    /// The DNS servers that were asked.
    pub(super) fn dns_servers(&self) -> Vec<SocketAddr> {
        let tries = self.0.lock();
        let servers = tries.keys().filter_map(|(_, to)| match to {
            To::Dns(server) => Some(*server),
            To::Address(_) => None,
        });
        servers.collect()
    }

    fn note(&self, from: &Netns, to: To, is_lost: bool) {
        let mut tries = self.0.lock();
        let tally = tries.entry((from.inode(), to)).or_default();
        tally.tries += 1;
        tally.lost += u32::from(is_lost);
    }
}

/// A client, or the node, and a path.
pub(super) type Key = (Option<String>, LossyPath);

/// What many rounds have counted.
#[derive(Debug, Default)]
pub(super) struct History {
    revision: String,
    rounds: u32,
    paths: BTreeMap<Key, Counts>,
    counters: BTreeMap<(Key, Counter), Coincidence>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tries: u32,
    lost: u32,
    lossy_rounds: u32,
    /// Whether it was told.
    is_told: bool,
}

impl Counts {
    fn is_lossy(self) -> bool {
        let is_one_of = |most: u32| self.lost.saturating_mul(most) >= self.tries;
        self.lossy_rounds >= LOSSY_ROUNDS && is_one_of(ONE_OF)
            || self.is_told && self.lossy_rounds > 0 && is_one_of(STILL_ONE_OF)
    }
}

impl History {
    /// Whether any path has lost packets lately: only then is it worth to read counters.
    pub(super) fn has_losses(&self) -> bool {
        self.paths.values().any(|counts| counts.lossy_rounds > 0)
    }

    /// Adds a round, with the counters that were read in it. The first one of a revision does not count.
    fn add(&mut self, revision: &str, round: &BTreeMap<Key, Tally>, rises: &Rises, scope: &Scope) {
        if self.revision != revision {
            revision.clone_into(&mut self.revision);
            return;
        }
        for (key, tally) in round {
            let counts = self.paths.entry(key.clone()).or_default();
            counts.tries += tally.tries;
            counts.lost += tally.lost;
            counts.lossy_rounds += u32::from(tally.lost > 0);
            if counts.lossy_rounds == 0 {
                continue;
            }
            for (counter, rose) in rises.iter().filter(|(counter, _)| scope.concerns(counter, key)) {
                let both = (key.clone(), counter.clone());
                self.counters.entry(both).or_default().add(tally.lost, *rose);
            }
        }
        self.rounds += 1;
        if self.rounds >= ROUNDS {
            self.rounds /= 2;
            for counts in self.paths.values_mut() {
                counts.tries /= 2;
                counts.lost /= 2;
                counts.lossy_rounds /= 2;
            }
            self.paths.retain(|_, counts| counts.tries > 0);
            self.counters.values_mut().for_each(Coincidence::halve);
            let paths = &self.paths;
            let is_lossy = |key: &Key| paths.get(key).is_some_and(|counts| counts.lossy_rounds > 0);
            self.counters.retain(|(key, _), _| is_lossy(key));
        }
    }

    /// The paths with losses that count.
    fn losses(&mut self) -> Vec<PathLoss> {
        for counts in self.paths.values_mut() {
            counts.is_told = counts.is_lossy();
        }
        let counters = &mut self.counters;
        let mut reports = |key: &Key| {
            let of_path = counters.iter_mut().filter(|((of, _), _)| of == key);
            let reports = of_path.filter_map(|((_, counter), coincidence)| coincidence.report(counter));
            reports.take(MAX_COUNTERS).collect()
        };
        let lossy = self.paths.iter().filter(|(_, counts)| counts.is_told);
        lossy
            .map(|(key, counts)| PathLoss {
                from: key.0.clone(),
                path: key.1,
                tries: counts.tries,
                lost: counts.lost,
                counters: reports(key),
            })
            .take(MAX_FAILURES)
            .collect()
    }
}

/// Adds a round to those before, and returns what they say of the clients that are there now.
pub(super) fn over_rounds(
    round: &Round<'_>,
    memory: &Memory,
    (rises, scope): &(Rises, Scope),
) -> Vec<PathLoss> {
    let mut history = memory.losses.lock();
    history.add(&round.spec.revision, &by_path(round), rises, scope);
    let is_here = |from: &Option<String>| {
        from.as_ref()
            .is_none_or(|key| round.clients.iter().any(|client| client.key == *key))
    };
    history.paths.retain(|(from, _), _| is_here(from));
    history.counters.retain(|((from, _), _), _| is_here(from));
    history.losses()
}

fn by_path(round: &Round<'_>) -> BTreeMap<Key, Tally> {
    let mut all: BTreeMap<Key, Tally> = BTreeMap::new();
    let tries = round.tries.0.lock();
    for ((namespace, to), tally) in tries.iter() {
        // A server that answers nothing at all is out of reach, which is another matter.
        if matches!(to, To::Dns(_)) && tally.lost == tally.tries {
            continue;
        }
        let Some(key) = origin(round, *namespace).zip(path(round, *to)) else {
            continue;
        };
        let sum = all.entry(key).or_default();
        sum.tries += tally.tries;
        sum.lost += tally.lost;
    }
    all
}

/// The client in a network namespace, or None for the node; nothing for any other.
fn origin(round: &Round<'_>, namespace: u64) -> Option<Option<String>> {
    if namespace == round.node.netns.inode() {
        return Some(None);
    }
    let client = round
        .clients
        .iter()
        .find(|client| client.netns.inode() == namespace)?;
    Some(Some(client.key.clone()))
}

fn path(round: &Round<'_>, to: To) -> Option<LossyPath> {
    let address = match to {
        To::Address(address) => address,
        To::Dns(_) => return Some(LossyPath::DNS),
    };
    let is_its = |ip: &String| ip.parse::<IpAddr>() == Ok(address.ip());
    if round.subject.service.spec.cluster_ips.iter().any(is_its) {
        return Some(LossyPath::Service);
    }
    let ready = super::ready(round, &round.subject);
    let same_node = ready.iter().find(|ready| ready.address == address)?.same_node?;
    Some(match same_node {
        true => LossyPath::SameNode,
        false => LossyPath::OtherNode,
    })
}

#[cfg(test)]
mod tests {
    use svcdiag_api::{LossCounter, LossCounterName};

    use super::*;

    fn round(tries: u32, lost: u32) -> BTreeMap<Key, Tally> {
        [((None, LossyPath::OtherNode), Tally { tries, lost })].into()
    }

    /// What rounds of ten tries with these losses are reported as.
    fn after(losses: &[u32]) -> Vec<(u32, u32)> {
        let (rises, scope) = Default::default();
        let mut history = History::default();
        history.add("1", &round(10, 10), &rises, &scope);
        let mut told = history.losses();
        for lost in losses {
            history.add("1", &round(10, *lost), &rises, &scope);
            told = history.losses();
        }
        told.iter().map(|loss| (loss.lost, loss.tries)).collect()
    }

    #[test]
    fn counters_are_read_only_after_losses_and_reported_with_them() {
        let clashes = Counter {
            pod: None,
            name: LossCounterName::ConntrackInsertFailed,
        };
        let (none, scope): (Rises, Scope) = Default::default();
        let some: Rises = [(clashes.clone(), 4)].into();
        let mut history = History::default();
        history.add("1", &round(10, 0), &none, &scope);
        history.add("1", &round(10, 0), &some, &scope);
        assert!(!history.has_losses() && history.counters.is_empty());
        history.add("1", &round(10, 2), &none, &scope);
        assert!(history.has_losses());
        for _ in 0..5 {
            history.add("1", &round(10, 2), &some, &scope);
        }
        let told = history.losses();
        assert_eq!((told[0].lost, told[0].tries), (12, 70));
        let expected = LossCounter {
            pod: None,
            counter: clashes.name,
            rose: 20,
            rounds: 5,
        };
        assert_eq!(told[0].counters, [expected]);
        for _ in 0..200 {
            history.add("1", &round(10, 0), &some, &scope);
        }
        assert!(!history.has_losses() && history.counters.is_empty());
        assert_eq!(history.losses(), []);
    }

    #[test]
    fn what_several_rounds_have_lost_is_told() {
        assert_eq!(after(&[1, 0, 2, 0, 1]), [(4, 50)]);
        assert_eq!(after(&[10, 10, 0, 0]), [], "a burst");
        assert_eq!(after(&[1, 1]), [], "too few rounds");
        assert_eq!(after(&[]), [], "right after a change");
        let rare: Vec<u32> = (0..39).map(|i| u32::from(i % 12 == 0)).collect();
        assert_eq!(after(&[0; 39]), []);
        assert_eq!(after(&rare), [], "4 of 390");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut losses = vec![5; 4];
        assert_eq!(after(&losses), [(20, 40)]);
        losses.extend([0; 40]);
        assert_eq!(after(&losses).len(), 1, "half of them");
        losses.extend([0; 150]);
        assert_eq!(after(&losses), []);
    }
}
