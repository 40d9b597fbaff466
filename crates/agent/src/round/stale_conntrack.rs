//! UDP conntrack entries of the Service that lead to Pods that are gone.
//!
//! As in kube-proxy: the original destination is the Service's, the reply would come from an endpoint that does not
//! serve, and other endpoints do. Two samples at least ten seconds apart must find the same entry with the same time
//! left: then something keeps sending. An entry whose time runs down is about to expire, and one that has gained time is a
//! new connection: an entry gets more time with its first answers, which never come from a Pod that is gone.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Memory, Round};
use svcdiag_api::StaleConnection;
use svcdiag_engine::asked::Subject;
use svcdiag_kube_proxy::{Protocol, expected};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const MAX: usize = 8;

/// Timeout in seconds of an entry without an answer (net.netfilter.nf_conntrack_udp_timeout).
/// However far samples are apart, an entry that has lost half of it may have expired.
const SHORTEST_LIFE: u64 = 30;

/// Source, destination and the endpoint that should answer.
type Flow = (SocketAddr, SocketAddr, SocketAddr);

/// Stale entries as of the last comparison.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<Flow, Suspect>);

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// When it was sampled.
    at: Instant,
    seconds_left: u32,
    /// Whether packets were still being sent then.
    is_used: bool,
}

impl Suspects {
    /// Compares a sample, from its start to its end, with the one before, and returns the entries in use. Samples that follow
    /// too quickly change nothing.
    fn compare(&mut self, found: Vec<(Flow, u32)>, begun: Instant, ended: Instant) -> Vec<Flow> {
        let known = std::mem::take(&mut self.0);
        for (flow, seconds_left) in found {
            let new = |is_used| Suspect {
                at: ended,
                seconds_left,
                is_used,
            };
            let suspect = known.get(&flow).map_or_else(
                || new(false),
                |before| {
                    let elapsed = begun.saturating_duration_since(before.at);
                    if elapsed < SAMPLE_INTERVAL {
                        *before
                    } else {
                        new(is_used(before.seconds_left, seconds_left, elapsed))
                    }
                },
            );
            self.0.insert(flow, suspect);
        }
        let used = self.0.iter().filter(|(_, suspect)| suspect.is_used);
        used.map(|(flow, _)| *flow).collect()
    }
}

fn is_used(before: u32, now: u32, elapsed: Duration) -> bool {
    u64::from(before.abs_diff(now)) < elapsed.as_secs().min(SHORTEST_LIFE) / 2
}

pub(super) fn probe(round: &Round<'_>, memory: &Memory) -> Vec<StaleConnection> {
    let mut found = Vec::new();
    let mut begun = Instant::now();
    if !flows_to_nowhere(round, &round.subject).is_empty() {
        // Endpoints may have been added since the round began.
        let subject = round.source.latest();
        begun = Instant::now();
        found = flows_to_nowhere(round, &subject);
    }
    let mut suspects = memory.suspects.lock();
    let mut stale: Vec<StaleConnection> = suspects
        .compare(found, begun, Instant::now())
        .into_iter()
        .map(|(source, destination, endpoint)| StaleConnection {
            source: source.to_string(),
            destination: destination.to_string(),
            endpoint: endpoint.to_string(),
        })
        .collect();
    stale.sort_by(|a, b| (&a.destination, &a.source).cmp(&(&b.destination, &b.source)));
    stale.truncate(MAX);
    stale
}

fn flows_to_nowhere(round: &Round<'_>, subject: &Subject) -> Vec<(Flow, u32)> {
    // Not all endpoints are known.
    if subject.is_cut {
        return Vec::new();
    }
    let slices: Vec<_> = subject.slices.iter().collect();
    let mut all = Vec::new();
    for port in expected(&subject.service, &slices, round.vantage()) {
        if port.protocol != Protocol::Udp || port.serving.is_empty() {
            continue;
        }
        let Some(conntrack) = &round.conntrack else {
            continue;
        };
        for destination in &port.destinations {
            let Some(address) = destination.address else {
                continue;
            };
            let target = SocketAddr::new(address, destination.port);
            match conntrack.towards(Protocol::Udp, target) {
                Ok(connections) => all.extend(
                    connections
                        .iter()
                        .filter(|c| !port.serving.contains(&c.answers))
                        .map(|c| ((c.source, c.destination, c.answers), c.seconds_left)),
                ),
                Err(error) => {
                    round.problem(format!("Conntrack entries could not be listed: {error}."));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an entry counts as in use, in each of several samples: at these seconds, with so many seconds left; None if it
    /// was not found.
    fn looks(at: &[(u64, Option<u32>)]) -> Vec<bool> {
        let ends = [
            ([10, 244, 1, 9], 41000),
            ([10, 96, 1, 175], 80),
            ([10, 244, 9, 9], 9376),
        ];
        let [source, destination, answers] = ends.map(SocketAddr::from);
        let (start, mut suspects) = (Instant::now(), Suspects::default());
        let mut look = |&(second, left): &(u64, Option<u32>)| {
            let now = start + Duration::from_secs(second);
            let found = left.map(|left| ((source, destination, answers), left));
            !suspects.compare(found.into_iter().collect(), now, now).is_empty()
        };
        at.iter().map(&mut look).collect()
    }

    #[test]
    fn a_connection_with_as_much_time_left_is_in_use() {
        for interval in [10, 60, 3600] {
            let at = [0, 1, 2].map(|n| (n * interval, Some(119)));
            assert_eq!(looks(&at), [false, true, true], "{interval}");
        }
        // Datagrams are seconds apart; without an answer the timeout is short.
        assert_eq!(
            looks(&[(0, Some(29)), (60, Some(18)), (120, Some(27))]),
            [false, true, true]
        );
    }

    #[test]
    fn a_connection_that_runs_down_is_not() {
        assert_eq!(
            looks(&[(0, Some(119)), (11, Some(108)), (22, Some(97)), (82, Some(37))]),
            [false; 4]
        );
    }

    #[test]
    fn looks_that_follow_fast_say_nothing_new() {
        assert_eq!(
            looks(&[(0, Some(119)), (1, Some(118)), (9, Some(110)), (11, Some(108))]),
            [false; 4]
        );
        assert_eq!(
            looks(&[(0, Some(119)), (9, Some(119)), (11, Some(119)), (15, Some(119))]),
            [false, false, true, true]
        );
    }

    #[test]
    fn a_connection_that_got_more_time_with_an_answer_and_then_ended_is_not() {
        assert_eq!(
            looks(&[
                (0, Some(29)),
                (12, Some(110)),
                (24, Some(98)),
                (84, Some(38)),
                (122, None)
            ]),
            [false; 5]
        );
    }

    #[test]
    fn a_connection_that_was_in_use_and_ended_is_so_no_longer() {
        assert_eq!(
            looks(&[(0, Some(119)), (60, Some(119)), (120, Some(62))]),
            [false, true, false]
        );
        // The short timeout without an answer expires before it can run down by much.
        assert_eq!(
            looks(&[(0, Some(29)), (60, Some(29)), (120, Some(6))]),
            [false, true, false]
        );
    }

    #[test]
    fn a_connection_that_was_gone_begins_anew() {
        assert_eq!(
            looks(&[(0, Some(119)), (20, None), (40, Some(119)), (60, Some(99))]),
            [false; 4]
        );
    }
}
