//! Attempts to dial an address of the Service, each with the endpoint that it was sent to.
//!
//! The node's conntrack shows the endpoint, unless the packet was lost before the node finished with it: the kernel
//! keeps no entry of a connection whose first packet it dropped. Such an attempt has failed, even if the packet that TCP
//! retransmits reaches another endpoint; it is attributed to an endpoint only if exactly one was reached by no other
//! attempt.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::Notify, time::Instant};

use super::{
    LocalPod, Round,
    dials::{Look, Outcome},
};
use crate::dial::{BEFORE_RETRANSMISSION, Dial};
use svcdiag_api::{Answer, DialPath, HttpProbe, PortProtocol};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::Netns;

/// An origin that dials an address of the Service.
pub(super) struct Route<'a> {
    pub from: Option<&'a LocalPod<'a>>,
    pub netns: &'a Netns,
    pub path: DialPath,
    /// The Service port.
    pub port: PortProtocol,
    pub target: SocketAddr,
    /// Endpoints that it can reach.
    pub endpoints: BTreeSet<SocketAddr>,
    pub http: Option<&'a HttpProbe>,
}

/// Results of the attempts on one path, by endpoint.
pub(super) type Outcomes = BTreeMap<Option<SocketAddr>, Outcome>;

/// Dials until each endpoint was reached: at most four times the number of endpoints, at least eight times and at most
/// thirty-two.
///
/// Every dial has a cost for the node, so dials for endpoints that chance has missed come in waves that start small and
/// double. If anything failed or is silent, in a second look, and over UDP, where silence takes time, all remaining dials
/// are made at once.
///
/// Returns also when all that has failed had failed once: for each endpoint when the first of its failed dials began, and of
/// these the latest. A dial that waits for its turn has not begun.
pub(super) async fn attempts(
    round: &Round<'_>,
    route: &Route<'_>,
    look: Look,
) -> (Outcomes, Option<Instant>) {
    let most = (4 * route.endpoints.len()).clamp(8, 32);
    let first = match look {
        Look::First => route.endpoints.len().clamp(2, most),
        Look::Second => most,
    };
    let mut left = most;
    let mut all = wave(round, route, look, first, &mut left).await;
    let mut size = unreached(route, &all);
    loop {
        let number = more(route.port.protocol, &all, unreached(route, &all), size).min(left);
        if number == 0 {
            break;
        }
        all.extend(wave(round, route, look, number, &mut left).await);
        size *= 2;
    }
    let begun = failed_since(&all, route.endpoints.len());
    let mut outcomes = tally(route.port.protocol, all);
    record(&mut outcomes, &route.endpoints);
    (outcomes, begun)
}

/// An attempt, and the endpoint that it was sent to.
struct Attempt {
    endpoint: Option<SocketAddr>,
    outcome: Outcome,
    /// Whether the first packet was lost before the node finished with it.
    was_lost: bool,
    begun: Instant,
}

impl Attempt {
    /// The endpoint that it counts for, where connections are tracked.
    fn counts_for(&self, is_tracked: bool) -> Option<SocketAddr> {
        self.endpoint.filter(|_| !(self.was_lost && is_tracked))
    }

    fn has_failed(&self) -> bool {
        self.was_lost || self.outcome.0 != Answer::Accepted
    }
}

/// A lost packet is recognised only if the node tracks connections to the Service at all.
fn is_tracked(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| attempt.endpoint.is_some())
}

/// Since when every endpoint that has failed has done so once; None if none has. Where it is not known which endpoint the
/// dials were sent to, as many must have failed as there are endpoints.
fn failed_since(attempts: &[Attempt], endpoints: usize) -> Option<Instant> {
    let is_tracked = is_tracked(attempts);
    let mut begun: BTreeMap<Option<SocketAddr>, Vec<Instant>> = BTreeMap::new();
    for one in attempts.iter().filter(|attempt| attempt.has_failed()) {
        begun
            .entry(one.counts_for(is_tracked))
            .or_default()
            .push(one.begun);
    }
    let once = begun.into_iter().filter_map(|(endpoint, mut begun)| {
        begun.sort();
        let enough = endpoint.map_or(endpoints, |_| 1);
        begun.get(enough.saturating_sub(1)).or(begun.last()).copied()
    });
    once.max()
}

/// How many more dials to make after some attempts, given the endpoints that were not reached and the size of the next
/// wave.
fn more(protocol: Protocol, attempts: &[Attempt], unreached: usize, size: usize) -> usize {
    let is_well = |t: &Attempt| t.outcome.0 == Answer::Accepted && !t.was_lost;
    match protocol {
        // Over UDP another attempt changes nothing, and silence takes time.
        Protocol::Udp if unreached == 0 => 0,
        Protocol::Udp => usize::MAX,
        _ if !attempts.iter().all(is_well) => usize::MAX,
        _ if unreached == 0 => 0,
        _ => size,
    }
}

/// How many endpoints no attempt was sent to.
fn unreached(route: &Route<'_>, attempts: &[Attempt]) -> usize {
    let is_met = |e: &&SocketAddr| attempts.iter().any(|t| t.endpoint == Some(**e));
    route.endpoints.iter().filter(|e| !is_met(e)).count()
}

/// Makes so many of the dials that are left, and all of them as soon as one is silent.
async fn wave(
    round: &Round<'_>,
    route: &Route<'_>,
    look: Look,
    number: usize,
    left: &mut usize,
) -> Vec<Attempt> {
    let is_silent = Notify::new();
    let attempts = |number| (0..number).map(|_| attempt(round, route, look, &is_silent));
    let mut running: FuturesUnordered<_> = attempts(number).collect();
    *left -= number;
    let mut all = Vec::new();
    while !running.is_empty() {
        tokio::select! {
            Some(one) = running.next() => all.extend(one),
            () = is_silent.notified(), if *left > 0 => running.extend(attempts(mem::take(left))),
        }
    }
    all
}

/// One answer is enough: an endpoint fails only if all attempts at it did. Over UDP one refusal is enough, since silence
/// is neither.
fn tally(protocol: Protocol, attempts: Vec<Attempt>) -> Outcomes {
    let is_tracked = is_tracked(&attempts);
    let mut outcomes = Outcomes::new();
    for one in attempts {
        let endpoint = one.counts_for(is_tracked);
        let outcome = match one.was_lost && is_tracked {
            true => (Answer::TimedOut, None),
            false => one.outcome,
        };
        match outcomes.get_mut(&endpoint) {
            Some(known) if (outcome.0 == Answer::Accepted) != (protocol == Protocol::Udp) => *known = outcome,
            Some(_) => {}
            None => {
                outcomes.insert(endpoint, outcome);
            }
        }
    }
    outcomes
}

/// Attributes lost attempts to the one endpoint that no other attempt has reached.
fn record(outcomes: &mut Outcomes, endpoints: &BTreeSet<SocketAddr>) {
    let is_failure = |(answer, _): &Outcome| *answer != Answer::Accepted;
    if endpoints
        .iter()
        .all(|e| outcomes.get(&Some(*e)).is_some_and(|o| !is_failure(o)))
    {
        // Every endpoint was reached, so the packet was lost by chance.
        outcomes.retain(|endpoint, outcome| endpoint.is_some() || !is_failure(outcome));
        return;
    }
    let mut unreached = endpoints.iter().filter(|e| !outcomes.contains_key(&Some(**e)));
    let (Some(only), None) = (unreached.next().copied(), unreached.next()) else {
        return;
    };
    if endpoints.len() > 1 && outcomes.get(&None).is_some_and(is_failure) {
        let lost = outcomes.remove(&None);
        outcomes.extend(lost.map(|outcome| (Some(only), outcome)));
    }
}

async fn attempt(round: &Round<'_>, route: &Route<'_>, look: Look, is_silent: &Notify) -> Option<Attempt> {
    // Held until the dial is over.
    let _permit = round.permit().await?;
    let problem =
        |error: &std::io::Error| round.problem(format!("{} could not be dialled: {error}.", route.target));
    let begun = Instant::now();
    let started = Dial::start(route.netns, route.port.protocol, route.target)
        .await
        .inspect_err(problem)
        .ok()?;
    let source = started.source();
    round.seen.note_source(source);
    let sent_to = || source.and_then(|source| round.sent_to(route.port.protocol, source, route.target));
    let has_settled = started.settles_within(BEFORE_RETRANSMISSION).await;
    if !has_settled {
        is_silent.notify_one();
    }
    let was_lost = !has_settled && sent_to().is_none();
    // An answer may arrive before conntrack is queried; the entry remains for a while.
    let patience = round.patience_of(look).saturating_sub(begun.elapsed());
    let dialled = started.finish(patience).await;
    let endpoint = sent_to();
    let dialled = dialled.inspect_err(problem).ok()?;
    if route.port.protocol == Protocol::Tcp && dialled.answer == Answer::Accepted {
        let again = dialled.needed_another_packet;
        round.tries.connected(route.netns, route.target, again);
    }
    let by = round.rejected_by(dialled.offender, route.target).await;
    let outcome = match route.http {
        Some(http) if dialled.answer == Answer::Accepted => {
            let spoken = round.speak(route.netns, route.target, http).await;
            spoken.inspect_err(problem).ok()?
        }
        _ => (dialled.answer, by),
    };
    Some(Attempt {
        endpoint,
        outcome,
        was_lost,
        begun,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 244, 0, last], 9376))
    }

    fn outcomes(of: &[(Option<u8>, Answer)]) -> Outcomes {
        of.iter()
            .map(|(e, answer)| (e.map(endpoint), (*answer, None)))
            .collect()
    }

    #[test]
    fn lost_tries_are_put_down_to_the_one_endpoint_that_was_not_met() {
        let all: BTreeSet<SocketAddr> = [1, 2, 3].map(endpoint).into();
        let mut found = outcomes(&[
            (Some(1), Answer::Accepted),
            (Some(2), Answer::Accepted),
            (None, Answer::TimedOut),
        ]);
        record(&mut found, &all);
        assert_eq!(found.get(&Some(endpoint(3))), Some(&(Answer::TimedOut, None)));
        assert_eq!(found.get(&None), None);
    }

    #[test]
    fn a_lost_try_is_chance_where_every_endpoint_was_reached() {
        let all: BTreeSet<SocketAddr> = [1, 2].map(endpoint).into();
        let mut found = outcomes(&[
            (Some(1), Answer::Accepted),
            (Some(2), Answer::Accepted),
            (None, Answer::TimedOut),
        ]);
        record(&mut found, &all);
        assert_eq!(found.get(&None), None);
    }

    #[test]
    fn lost_tries_stay_nobodys_where_several_endpoints_or_the_only_one_were_not_met() {
        let all: BTreeSet<SocketAddr> = [1, 2, 3].map(endpoint).into();
        for (of, all) in [
            (
                outcomes(&[(Some(1), Answer::Accepted), (None, Answer::TimedOut)]),
                all,
            ),
            (outcomes(&[(None, Answer::TimedOut)]), [endpoint(1)].into()),
        ] {
            let mut found = of.clone();
            record(&mut found, &all);
            assert_eq!(found, of);
        }
    }

    fn an_attempt(endpoint: Option<SocketAddr>, answer: Answer, was_lost: bool) -> Attempt {
        Attempt {
            endpoint,
            outcome: (answer, None),
            was_lost,
            begun: Instant::now(),
        }
    }

    #[test]
    fn more_dials_come_in_waves_only_where_chance_alone_left_an_endpoint_out() {
        let well = || an_attempt(Some(endpoint(1)), Answer::Accepted, false);
        assert_eq!(more(Protocol::Tcp, &[well()], 0, 2), 0);
        assert_eq!(more(Protocol::Tcp, &[well()], 1, 2), 2);
        for bad in [
            an_attempt(Some(endpoint(2)), Answer::Refused, false),
            an_attempt(Some(endpoint(2)), Answer::Accepted, true),
        ] {
            assert_eq!(more(Protocol::Tcp, &[well(), bad], 0, 2), usize::MAX);
        }
        assert_eq!(more(Protocol::Udp, &[well()], 1, 2), usize::MAX);
        assert_eq!(more(Protocol::Udp, &[well()], 0, 2), 0);
    }

    #[test]
    fn a_second_look_follows_the_first_failure_of_each_endpoint() {
        let start = Instant::now();
        let later = start + BEFORE_RETRANSMISSION;
        let failed = |endpoint, answer, begun| Attempt {
            begun,
            ..an_attempt(endpoint, answer, false)
        };
        let (one, two) = (Some(endpoint(1)), Some(endpoint(2)));
        let again = [
            failed(one, Answer::TimedOut, start),
            failed(one, Answer::TimedOut, later),
        ];
        assert_eq!(failed_since(&again, 2), Some(start));
        let another = [
            failed(one, Answer::TimedOut, start),
            failed(two, Answer::Refused, later),
        ];
        assert_eq!(failed_since(&another, 2), Some(later));
        let well = [
            failed(one, Answer::TimedOut, start),
            failed(two, Answer::Accepted, later),
        ];
        assert_eq!(failed_since(&well, 2), Some(start));
        assert_eq!(failed_since(&well[1..], 2), None);
        let nobody_knows = [
            failed(None, Answer::TimedOut, start),
            failed(None, Answer::TimedOut, later),
        ];
        assert_eq!(failed_since(&nobody_knows, 2), Some(later));
        assert_eq!(failed_since(&nobody_knows, 1), Some(start));
    }

    #[test]
    fn one_answer_outweighs_failures() {
        let one = Some(endpoint(1));
        let found = tally(
            Protocol::Tcp,
            vec![
                an_attempt(one, Answer::TimedOut, false),
                an_attempt(one, Answer::Accepted, false),
                an_attempt(one, Answer::TimedOut, false),
            ],
        );
        assert_eq!(found.get(&one), Some(&(Answer::Accepted, None)));
    }

    #[test]
    fn over_udp_one_refusal_outweighs_silence() {
        let one = Some(endpoint(1));
        let found = tally(
            Protocol::Udp,
            vec![
                an_attempt(one, Answer::Accepted, false),
                an_attempt(one, Answer::Refused, false),
                an_attempt(one, Answer::Accepted, false),
            ],
        );
        assert_eq!(found.get(&one), Some(&(Answer::Refused, None)));
    }

    #[test]
    fn a_lost_packet_counts_where_connections_are_tracked() {
        let lost = || an_attempt(Some(endpoint(2)), Answer::Accepted, true);
        let found = tally(
            Protocol::Tcp,
            vec![an_attempt(Some(endpoint(1)), Answer::Accepted, false), lost()],
        );
        assert_eq!(found.get(&None), Some(&(Answer::TimedOut, None)));
        let untracked = tally(
            Protocol::Tcp,
            vec![
                an_attempt(None, Answer::Accepted, true),
                an_attempt(None, Answer::Accepted, true),
            ],
        );
        assert_eq!(untracked.get(&None), Some(&(Answer::Accepted, None)));
    }
}
