//! How packets left the node that are lost on their way through the Service to another node: what the node made of their
//! source address, and whether the endpoint answers the node itself when it is dialled past the Service.

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use svcdiag_api::{Answer, Departure, DialFailure, DialPath, DirectDial};
use svcdiag_kube_proxy::Protocol;

use super::{Round, dials::Look};
use crate::dial::Dial;

/// Failures that are looked at: they tend to be alike.
const MAX_DEPARTURES: usize = 8;

/// Sockets of a client that are asked for.
const MAX_SOCKETS: usize = 256;

pub(super) async fn probe(round: &Round<'_>, failures: &[DialFailure]) -> Vec<Departure> {
    let lost = failures.iter().filter(|failure| {
        // Where the endpoint does not answer past the Service either, the way there is at fault and no translation.
        is_lost_to_another_node(failure) && !fails_past_the_service(failures, failure)
    });
    let departures = lost.take(MAX_DEPARTURES).map(|failure| departure(round, failure));
    join_all(departures).await.into_iter().flatten().collect()
}

fn is_lost_to_another_node(failure: &DialFailure) -> bool {
    failure.path == DialPath::Service
        && failure.port.protocol == Protocol::Tcp
        && failure.same_node == Some(false)
        && failure.answer == Answer::TimedOut
}

fn fails_past_the_service(failures: &[DialFailure], failure: &DialFailure) -> bool {
    failures
        .iter()
        .any(|other| other.path == DialPath::Endpoint && other.endpoint == failure.endpoint)
}

async fn departure(round: &Round<'_>, failure: &DialFailure) -> Option<Departure> {
    let target: SocketAddr = failure.target.parse().ok()?;
    let endpoint: SocketAddr = failure.endpoint.as_deref()?.parse().ok()?;
    let own = sources_of(round, failure).await;
    let sockets: Vec<SocketAddr> = {
        let known = round.seen.sources();
        let own = known.iter().filter(|socket| own.contains(&socket.ip()));
        own.take(MAX_SOCKETS).copied().collect()
    };
    // The kernel remembers a connection that nobody answered for two minutes (nf_conntrack_tcp_timeout_syn_sent). To ask for
    // each socket is cheap; to ask for all connections to an address has the kernel walk through its whole table.
    let conntrack = round.conntrack.as_ref()?;
    let mut known = sockets.into_iter().filter_map(|socket| {
        let found = conntrack.find(Protocol::Tcp, socket, target);
        found.ok().flatten()
    });
    let connection = known.find(|connection| connection.answers == endpoint)?;
    let direct = match failure.from {
        None => dial_past_the_service(round, endpoint).await,
        Some(_) => None,
    };
    Some(Departure {
        from: failure.from.clone(),
        target: failure.target.clone(),
        endpoint: endpoint.to_string(),
        source: connection.source.ip().to_string(),
        left_as: connection.answers_to.ip().to_string(),
        direct,
    })
}

/// The addresses of whoever dialled.
async fn sources_of(round: &Round<'_>, failure: &DialFailure) -> Vec<IpAddr> {
    match &failure.from {
        None => round.own_addresses().await.to_vec(),
        Some(key) => {
            let client = round.clients.iter().find(|client| client.key == *key);
            let ips = client.into_iter().flat_map(|client| &client.pod.ips);
            ips.filter_map(|ip| ip.parse().ok()).collect()
        }
    }
}

/// The node's one dial of an endpoint on another node. Its success proves something; a policy may well turn it away.
async fn dial_past_the_service(round: &Round<'_>, endpoint: SocketAddr) -> Option<DirectDial> {
    let _permit = round.permit().await?;
    let started = Dial::start(&round.node.netns, Protocol::Tcp, endpoint)
        .await
        .ok()?;
    let source = started.source()?;
    let dialled = started.finish(round.patience_of(Look::First)).await.ok()?;
    Some(DirectDial {
        answer: dialled.answer,
        source: source.ip().to_string(),
    })
}
