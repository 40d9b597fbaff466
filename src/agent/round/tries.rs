//! Tries at an address of the Service, each told by the endpoint that it was sent to.
//!
//! Which endpoint that is, conntrack of the node shows, unless a packet was lost before the node was done
//! with it: the kernel keeps no entry of a connection whose first packet it dropped. Such a try is put
//! down to an endpoint only where one alone was met by no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use futures::future::join_all;

use super::{LocalPod, Round, dials::Outcome};
use crate::{
    agent::{dial::Dial, netns::Netns},
    api::{Answer, DialPath, HttpProbe},
    proxy::Protocol,
};

/// Somebody who dials an address of the Service.
pub(super) struct Way<'a> {
    pub from: Option<&'a LocalPod<'a>>,
    pub netns: &'a Netns,
    pub path: DialPath,
    /// The Service port, as number/protocol.
    pub port: String,
    pub protocol: Protocol,
    pub target: SocketAddr,
    /// Endpoints that it can be sent to.
    pub endpoints: BTreeSet<SocketAddr>,
    pub http: Option<&'a HttpProbe>,
}

/// How the tries of one way ended, by the endpoint that they were sent to.
pub(super) type Outcomes = BTreeMap<Option<SocketAddr>, Outcome>;

/// Dials until each endpoint was met: at most four times as often as there are, at least eight times and
/// at most thirty-two.
pub(super) async fn tries(round: &Round<'_>, way: &Way<'_>) -> Outcomes {
    let most = (4 * way.endpoints.len()).clamp(8, 32);
    let first = way.endpoints.len().clamp(2, most);
    let mut outcomes = Outcomes::new();
    note(&mut outcomes, wave(round, way, first).await);
    let is_done = |outcomes: &Outcomes| {
        let all_met = way.endpoints.iter().all(|e| outcomes.contains_key(&Some(*e)));
        // Nothing is forwarded to a host of the network itself, so that there is nothing to be met.
        all_met && outcomes.values().all(|(answer, _)| *answer == Answer::Accepted)
    };
    if !is_done(&outcomes) {
        note(&mut outcomes, wave(round, way, most - first).await);
    }
    put_down(&mut outcomes, &way.endpoints);
    outcomes
}

async fn wave(round: &Round<'_>, way: &Way<'_>, number: usize) -> Vec<(Option<SocketAddr>, Outcome)> {
    let tries = join_all((0..number).map(|_| try_once(round, way))).await;
    tries.into_iter().flatten().collect()
}

/// One answer is enough: an endpoint fails only if all tries that met it did.
fn note(outcomes: &mut Outcomes, tries: Vec<(Option<SocketAddr>, Outcome)>) {
    for (endpoint, outcome) in tries {
        match outcomes.get_mut(&endpoint) {
            Some(known) if outcome.0 == Answer::Accepted => *known = outcome,
            Some(_) => {}
            None => {
                outcomes.insert(endpoint, outcome);
            }
        }
    }
}

/// Puts tries that were lost on the way down to the one endpoint that no other try has met.
fn put_down(outcomes: &mut Outcomes, endpoints: &BTreeSet<SocketAddr>) {
    let mut unmet = endpoints.iter().filter(|e| !outcomes.contains_key(&Some(**e)));
    let (Some(only), None) = (unmet.next().copied(), unmet.next()) else {
        return;
    };
    if endpoints.len() > 1
        && outcomes
            .get(&None)
            .is_some_and(|(answer, _)| *answer != Answer::Accepted)
    {
        let lost = outcomes.remove(&None);
        outcomes.extend(lost.map(|outcome| (Some(only), outcome)));
    }
}

async fn try_once(round: &Round<'_>, way: &Way<'_>) -> Option<(Option<SocketAddr>, Outcome)> {
    let permit = round.permit().await?;
    let problem =
        |error: &std::io::Error| round.problem(format!("{} could not be dialled: {error}.", way.target));
    let started = Dial::start(way.netns, way.protocol, way.target)
        .inspect_err(problem)
        .ok()?;
    let source = started.source();
    // An answer may come before conntrack is asked; the entry stays for a while.
    let dialled = started.finish(round.patience()).await;
    let endpoint = source.and_then(|source| round.sent_to(way.protocol, source, way.target));
    drop(permit);
    let dialled = dialled.inspect_err(problem).ok()?;
    let by = dialled.offender.map(|offender| format!("by {offender}"));
    let outcome = match way.http {
        Some(http) if dialled.answer == Answer::Accepted => round.speak(way.netns, way.target, http).await,
        _ => (dialled.answer, by),
    };
    Some((endpoint, outcome))
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
        put_down(&mut found, &all);
        assert_eq!(found.get(&Some(endpoint(3))), Some(&(Answer::TimedOut, None)));
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
            put_down(&mut found, &all);
            assert_eq!(found, of);
        }
    }

    #[test]
    fn one_answer_outweighs_failures() {
        let mut found = Outcomes::new();
        let timed_out = (Some(endpoint(1)), (Answer::TimedOut, None));
        note(
            &mut found,
            vec![
                timed_out.clone(),
                (Some(endpoint(1)), (Answer::Accepted, None)),
                timed_out,
            ],
        );
        assert_eq!(found.get(&Some(endpoint(1))), Some(&(Answer::Accepted, None)));
    }
}
