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
    dns_clients::CONTROL,
    loss_counters::{Coincidence, Counter, Window},
};
use crate::dns::Reply;

/// After so many rounds all counts are halved, so that what is long ago is forgotten.
const ROUNDS: u32 = 40;

/// What counts as a loss: in so many rounds, and one of so many tries. What was told stays until it is half of that, so
/// that a report does not come and go by chance.
const LOSSY_ROUNDS: u32 = 3;
const ONE_OF: u32 = 50;
const STILL_ONE_OF: u32 = 2 * ONE_OF;

/// Counters that are reported of a path.
const MAX_COUNTERS: usize = 8;

/// How often something was tried, and how often a packet was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    tries: u32,
    lost: u32,
    /// Whether more was lost that does not count, since it may have another cause.
    is_unclear: bool,
}

/// A question to a DNS server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    name: String,
    ipv6: bool,
}

/// How the tries of one question ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    tally: Tally,
    /// Whether it was answered, and whether with addresses.
    is_answered: bool,
    is_found: bool,
}

/// The tries of a round, by network namespace.
#[derive(Debug, Default)]
pub(super) struct Tries {
    connections: Mutex<BTreeMap<(u64, SocketAddr), Tally>>,
    questions: Mutex<BTreeMap<(u64, SocketAddr), Questions>>,
}

type Questions = BTreeMap<Question, Answers>;

impl Tries {
    /// Notes a TCP connection, and whether its first packet was sent again.
    pub(super) fn connected(&self, from: &Netns, to: SocketAddr, again: bool) {
        let mut connections = self.connections.lock();
        connections.entry((from.inode(), to)).or_default().add(again);
    }

    /// Notes a question to a DNS server, and how it ended.
    pub(super) fn asked(&self, from: &Netns, server: SocketAddr, name: &str, ipv6: bool, reply: &Reply) {
        let question = Question {
            name: name.to_owned(),
            ipv6,
        };
        let mut questions = self.questions.lock();
        let of_server = questions.entry((from.inode(), server)).or_default();
        of_server.entry(question).or_default().add(reply);
    }

    /// The DNS servers that were asked.
    pub(super) fn dns_servers(&self) -> Vec<SocketAddr> {
        let questions = self.questions.lock();
        questions.keys().map(|(_, server)| *server).collect()
    }
}

impl Tally {
    fn add(&mut self, is_lost: bool) {
        self.tries += 1;
        self.lost += u32::from(is_lost);
    }
}

impl Answers {
    fn add(&mut self, reply: &Reply) {
        self.tally.add(*reply == Reply::TimedOut);
        self.is_found |= matches!(reply, Reply::Addresses(..));
        self.is_answered |= matches!(reply, Reply::Addresses(..) | Reply::NotFound(_));
    }
}

/// What a server's answers count. A server that does not know the name that every cluster knows is none of the cluster's,
/// or does not work; and a question that it never answers is one that it, or something on the way, does not let
/// through. Both are other matters.
fn of_server(questions: &Questions) -> Tally {
    let is_control = |question: &Question| {
        let rest = question.name.strip_prefix(CONTROL);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut sum = Tally::default();
    if !questions
        .iter()
        .any(|(question, answers)| is_control(question) && answers.is_found)
    {
        return sum;
    }
    for answers in questions.values() {
        if answers.is_answered {
            sum.tries += answers.tally.tries;
            sum.lost += answers.tally.lost;
        } else {
            sum.is_unclear |= answers.tally.lost > 0;
        }
    }
    sum
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
    fn add(&mut self, revision: &str, round: &BTreeMap<Key, Tally>, window: &Window) {
        if self.revision != revision {
            revision.clone_into(&mut self.revision);
            return;
        }
        for (key, tally) in round {
            let counts = self.paths.entry(key.clone()).or_default();
            counts.tries += tally.tries;
            counts.lost += tally.lost;
            counts.lossy_rounds += u32::from(tally.lost > 0);
            if counts.lossy_rounds == 0 || tally.lost == 0 && tally.is_unclear {
                continue;
            }
            let rises = window.rises.iter();
            for (counter, rose) in rises.filter(|(counter, _)| window.scope.concerns(counter, key)) {
                let both = (key.clone(), counter.clone());
                let coincidence = self.counters.entry(both).or_default();
                coincidence.add(tally.lost, *rose, window.length);
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
            // Pods that are gone have no counters any more.
            let is_read = |counter: &Counter| window.rises.contains_key(counter);
            self.counters
                .retain(|(key, counter), _| is_lossy(key) && is_read(counter));
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
pub(super) fn over_rounds(round: &Round<'_>, memory: &Memory, window: &Window) -> Vec<PathLoss> {
    let mut history = memory.losses.lock();
    history.add(&round.spec.revision, &by_path(round), window);
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
    let mut add = |namespace, path, tally: Tally| {
        let Some(key) = origin(round, namespace).zip(path) else {
            return;
        };
        let sum = all.entry(key).or_default();
        sum.tries += tally.tries;
        sum.lost += tally.lost;
        sum.is_unclear |= tally.is_unclear;
    };
    for ((namespace, to), tally) in round.tries.connections.lock().iter() {
        add(*namespace, path(round, *to), *tally);
    }
    // The name of another domain is for servers elsewhere to answer, which the cluster's wait for.
    if round.subject.service.is_external_name() {
        return all;
    }
    for ((namespace, _), questions) in round.tries.questions.lock().iter() {
        let tally = of_server(questions);
        if tally.tries > 0 {
            add(*namespace, Some(LossyPath::DNS), tally);
        }
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

fn path(round: &Round<'_>, address: SocketAddr) -> Option<LossyPath> {
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
    use std::time::Duration;

    use svcdiag_api::{LossCounter, LossCounterName};

    use super::{super::loss_counters::Scope, *};

    fn round(tries: u32, lost: u32) -> BTreeMap<Key, Tally> {
        [(
            (None, LossyPath::OtherNode),
            Tally {
                tries,
                lost,
                ..Tally::default()
            },
        )]
        .into()
    }

    /// What rounds of ten tries with these losses are reported as.
    fn after(losses: &[u32]) -> Vec<(u32, u32)> {
        let none = Window::default();
        let mut history = History::default();
        history.add("1", &round(10, 10), &none);
        let mut told = history.losses();
        for lost in losses {
            history.add("1", &round(10, *lost), &none);
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
        let none = Window::default();
        let window = |rose| Window {
            rises: [(clashes.clone(), rose)].into(),
            length: Duration::from_secs(1),
            ..Window::default()
        };
        let mut history = History::default();
        history.add("1", &round(10, 0), &none);
        history.add("1", &round(10, 0), &window(4));
        assert!(!history.has_losses() && history.counters.is_empty());
        history.add("1", &round(10, 2), &none);
        assert!(history.has_losses());
        for _ in 0..5 {
            history.add("1", &round(10, 2), &window(4));
            assert_eq!(history.losses().iter().flat_map(|loss| &loss.counters).count(), 0);
        }
        for _ in 0..3 {
            history.add("1", &round(10, 0), &window(0));
        }
        let told = history.losses();
        assert_eq!((told[0].lost, told[0].tries), (12, 100));
        let expected = LossCounter {
            pod: None,
            counter: clashes.name,
            rose: 20,
            rounds: 5,
        };
        assert_eq!(told[0].counters, [expected]);
        for _ in 0..200 {
            history.add("1", &round(10, 0), &window(4));
        }
        assert!(!history.has_losses() && history.counters.is_empty());
        assert_eq!(history.losses(), []);
    }

    #[test]
    fn rounds_in_which_a_counter_stays_count_as_well() {
        let checksums = Counter {
            pod: None,
            name: LossCounterName::UDPChecksumErrors,
        };
        let scope = Scope {
            tunnels_over_udp: true,
            ..Scope::default()
        };
        let window = |rose| Window {
            rises: [(checksums.clone(), rose)].into(),
            length: Duration::from_secs(1),
            scope: scope.clone(),
        };
        let is_reported = |rounds: &[(u32, u32)]| {
            let mut history = History::default();
            history.add("1", &round(10, 0), &window(0));
            for (lost, rose) in rounds {
                history.add("1", &round(10, *lost), &window(*rose));
            }
            !history.losses()[0].counters.is_empty()
        };
        assert!(is_reported(&[[(1, 3), (0, 0)]; 6].concat()));
        let losses_without_a_rise = [[(1, 3), (0, 0), (1, 0)]; 6].concat();
        assert!(!is_reported(&losses_without_a_rise));
    }

    #[test]
    fn counters_of_pods_that_are_gone_are_forgotten() {
        let of = |pod: &str| Counter {
            pod: Some(pod.to_owned()),
            name: LossCounterName::UDPChecksumErrors,
        };
        let window = |pod: &str| Window {
            rises: [(of(pod), 1)].into(),
            scope: Scope {
                endpoints: [pod.to_owned()].into(),
                serves_dns: true,
                ..Scope::default()
            },
            ..Window::default()
        };
        let dns: BTreeMap<Key, Tally> = [(
            (None, LossyPath::DNS),
            Tally {
                tries: 10,
                lost: 1,
                ..Tally::default()
            },
        )]
        .into();
        let mut history = History::default();
        for number in 0..=ROUNDS {
            history.add("1", &dns, &window(if number < 9 { "a/old" } else { "a/new" }));
        }
        let known: Vec<&Counter> = history.counters.keys().map(|(_, counter)| counter).collect();
        assert_eq!(known, [&of("a/new")]);
    }

    #[test]
    fn only_questions_that_the_server_answers_as_well_count() {
        let found = || Reply::Addresses(vec![std::net::Ipv4Addr::LOCALHOST.into()], 5);
        let lost = || Reply::TimedOut;
        let after = |replies: Vec<(&str, bool, Reply)>| {
            let mut questions = Questions::new();
            for (name, ipv6, reply) in &replies {
                let name = (*name).to_owned();
                let question = Question { name, ipv6: *ipv6 };
                questions.entry(question).or_default().add(reply);
            }
            let sum = of_server(&questions);
            (sum.lost, sum.tries)
        };
        let (web, control) = (
            "web.shop.svc.cluster.local.",
            "kubernetes.default.svc.cluster.local.",
        );
        assert_eq!(
            after(vec![
                (web, false, lost()),
                (web, false, found()),
                (control, false, found())
            ]),
            (1, 3)
        );
        assert_eq!(
            after(vec![
                (web, false, lost()),
                (web, false, Reply::NotFound(5)),
                (control, false, found())
            ]),
            (1, 3)
        );
        let v6_is_swallowed = vec![
            (web, true, lost()),
            (web, true, lost()),
            (web, false, found()),
            (control, false, found()),
        ];
        assert_eq!(after(v6_is_swallowed), (0, 2));
        let fails = || Reply::Failed("SERVFAIL".to_owned());
        assert_eq!(
            after(vec![
                (web, false, lost()),
                (web, false, fails()),
                (control, false, found())
            ]),
            (0, 1)
        );
        let of_another_network = vec![
            (web, false, lost()),
            (web, false, Reply::NotFound(5)),
            (control, false, Reply::NotFound(5)),
        ];
        assert_eq!(after(of_another_network), (0, 0));
        assert_eq!(
            after(vec![
                (control, false, lost()),
                ("kubernetes.default-x.", false, found())
            ]),
            (0, 0)
        );
        assert_eq!(after(Vec::new()), (0, 0));
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
