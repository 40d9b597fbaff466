//! Failed dials to other nodes once more, while those nodes watch what arrives. It takes one dial's time, where a round
//! takes that of all.

use std::net::SocketAddr;

use futures::future::join_all;
use svcdiag_api::{Answer, DialFailure, DialPath, NodeFacts};

use super::{Round, dials::Look};

/// Whether there are such dials among the failures of the last round, and none of them gets an answer now either.
pub(super) async fn are_still_lost(round: &Round<'_>, facts: &NodeFacts) -> bool {
    let lost: Vec<&DialFailure> = facts.failures.iter().filter(|failure| is_lost(failure)).collect();
    let again = join_all(lost.iter().map(async |failure| {
        let mut clients = round.clients.iter();
        let client = clients.find(|client| Some(&client.key) == failure.from.as_ref())?;
        let target: SocketAddr = failure.target.parse().ok()?;
        let dialled = round.dial(&client.netns, failure.port.protocol, target, None, Look::Second);
        let (answer, _) = dialled.await.ok()?;
        Some(answer)
    }));
    let answers = again.await;
    !answers.is_empty() && answers.iter().all(|answer| *answer == Some(Answer::TimedOut))
}

fn is_lost(failure: &DialFailure) -> bool {
    failure.path == DialPath::Endpoint
        && failure.from.is_some()
        && failure.same_node == Some(false)
        && failure.answer == Answer::TimedOut
}
