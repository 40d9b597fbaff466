//! Failed dials to other nodes once more, while those nodes watch what arrives, and this one what leaves. It takes one dial's
//! time, where a round takes that of all.

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use svcdiag_api::{Answer, DialFailure, DialPath, Left, NodeFacts};

use super::{LocalPod, Round, dials::Look, watch::leaving::Leaving};

/// What was seen here of the packets, if there are such dials among the failures of the last round, and none of them gets an
/// answer now either.
pub(super) async fn still_lost(round: &Round<'_>, facts: &NodeFacts) -> Option<Vec<Left>> {
    let lost = facts.failures.iter().filter(|failure| is_lost(failure));
    let dials: Option<Vec<(&LocalPod<'_>, Leaving)>> = lost.map(|failure| dial(round, failure)).collect();
    let dials = dials.filter(|dials| !dials.is_empty())?;
    let leaving: Vec<Leaving> = dials.iter().map(|(_, leaving)| leaving.clone()).collect();
    let again = join_all(dials.iter().map(async |(client, to)| {
        let dialled = round.dial(&client.netns, to.protocol, to.endpoint, None, Look::Second);
        let ((answer, _), _) = dialled.await.ok()?;
        Some(answer)
    }));
    let (answers, left) = round.seen_leaving(&leaving, again).await;
    let is_lost = answers.iter().all(|answer| *answer == Some(Answer::TimedOut));
    is_lost.then_some(left)
}

fn dial<'r>(round: &'r Round<'_>, failure: &DialFailure) -> Option<(&'r LocalPod<'r>, Leaving)> {
    let from = failure.from.clone()?;
    let endpoint: SocketAddr = failure.target.parse().ok()?;
    let client = round.clients.iter().find(|client| client.key == from)?;
    let mut ips = client.pod.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    let ip = ips.find(|ip| ip.is_ipv4() == endpoint.is_ipv4())?;
    let leaving = Leaving {
        from,
        protocol: failure.port.protocol,
        client: ip,
        endpoint,
    };
    Some((client, leaving))
}

fn is_lost(failure: &DialFailure) -> bool {
    failure.path == DialPath::Endpoint
        && failure.from.is_some()
        && failure.same_node == Some(false)
        && failure.answer == Answer::TimedOut
}
