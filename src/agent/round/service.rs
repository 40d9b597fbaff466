//! The Service dialled by its addresses, from the clients and from the node.
//!
//! Which endpoint a dial was sent to is what conntrack of the node shows: tries go on until each was
//! seen. A dial that came back to the client itself says something about hairpin only.

use std::{collections::BTreeMap, net::SocketAddr};

use futures::future::join_all;

use super::{LocalPod, Round, SECOND_LOOK, dials::Tally, family};
use crate::{
    agent::{dial::Dial, netfilter::conntrack::Conntrack, netns::Netns},
    api::{Answer, DialFailure, DialPath, HttpProbe},
    proxy::{Destination, Protocol, Purpose, Traffic, expected},
};

/// Somebody who dials an address of the Service.
struct Way<'a> {
    from: Option<&'a LocalPod<'a>>,
    netns: &'a Netns,
    path: DialPath,
    port: String,
    protocol: Protocol,
    target: SocketAddr,
    /// Endpoints that it can be sent to.
    endpoints: usize,
    http: Option<&'a HttpProbe>,
}

/// How the tries of one way ended, by the endpoint that they were sent to.
type Outcomes = BTreeMap<Option<SocketAddr>, (Answer, Option<String>)>;

pub(super) async fn look(round: &Round<'_>) -> Tally {
    let ways = ways(round);
    let mut tally = Tally::default();
    let found = join_all(ways.iter().map(|way| try_way(round, way))).await;
    for (way, outcomes) in ways.iter().zip(found) {
        let from = way.from.map(|pod| pod.key.as_str());
        for (endpoint, (answer, detail)) in outcomes {
            let failure = (answer != Answer::Accepted).then(|| DialFailure {
                from: from.map(str::to_owned),
                path: way.path,
                port: way.port.clone(),
                target: way.target.to_string(),
                endpoint: endpoint.map(|e| e.to_string()),
                same_node: endpoint.and_then(|e| is_local(round, e)),
                same_bridge: is_on_one_bridge(round, way, endpoint),
                answer,
                detail,
            });
            tally.count(from, way.path, &way.port, family(way.target), None, failure);
        }
    }
    tally
}

/// The addresses of the Service that are dialled: its own from everywhere, node ports on the node. Those
/// of load balancers and externalIPs may be anybody's.
fn ways<'a>(round: &'a Round<'a>) -> Vec<Way<'a>> {
    let mut all = Vec::new();
    let Some(service) = &round.subject.service else {
        return all;
    };
    let slices: Vec<_> = round.subject.slices.iter().collect();
    for port in expected(service, &slices, round.vantage()) {
        let is_asked = |p: &&crate::objects::ServicePort| p.name() == port.name && round.is_asked(p);
        let Some(asked) = service.spec.ports.iter().find(is_asked) else {
            continue;
        };
        if port.protocol == Protocol::Sctp {
            continue;
        }
        let name = format!("{}/{}", asked.port, port.protocol);
        let http = round.http_for(service, &name);
        for destination in &port.destinations {
            let Traffic::To(endpoints) = &destination.inside else {
                continue;
            };
            let way = |from, netns, path, target| Way {
                from,
                netns,
                path,
                port: name.clone(),
                protocol: port.protocol,
                target,
                endpoints: endpoints.len(),
                http,
            };
            for (path, target) in targets(round, destination) {
                if round.spec.from_node {
                    all.push(way(None, &round.node.netns, path, target));
                }
                if path == DialPath::Service {
                    let usable = |c: &&LocalPod<'_>| !c.pod.host_network || round.spec.from_node;
                    for client in round.clients.iter().filter(usable) {
                        all.push(way(Some(client), &client.netns, path, target));
                    }
                }
            }
        }
    }
    all
}

fn targets(round: &Round<'_>, destination: &Destination) -> Vec<(DialPath, SocketAddr)> {
    match (destination.purpose, destination.address) {
        (Purpose::ClusterIp, Some(address)) => {
            vec![(DialPath::Service, SocketAddr::new(address, destination.port))]
        }
        (Purpose::NodePort, _) => {
            let of_family = |ip: &&std::net::IpAddr| {
                let endpoint = match &destination.inside {
                    Traffic::To(endpoints) => endpoints.first().copied(),
                    Traffic::Reject | Traffic::Drop => None,
                };
                endpoint.is_some_and(|e| e.is_ipv4() == ip.is_ipv4())
            };
            let ip = round.subject.node_ips.iter().find(of_family);
            ip.map(|ip| (DialPath::NodePort, SocketAddr::new(*ip, destination.port)))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Tries a way twice where anything failed; what failed both times stays.
async fn try_way(round: &Round<'_>, way: &Way<'_>) -> Outcomes {
    let mut outcomes = tries(round, way).await;
    if outcomes.values().all(|(answer, _)| *answer == Answer::Accepted) {
        return outcomes;
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let Some(subject) = round.read_again().await else {
        return Outcomes::new();
    };
    let still_ready = super::ready(round, &subject);
    let second = tries(round, way).await;
    outcomes.retain(|endpoint, (answer, _)| {
        let is_ready = endpoint.is_none_or(|e| still_ready.iter().any(|r| r.address == e));
        *answer == Answer::Accepted || is_ready
    });
    for (endpoint, (answer, detail)) in &mut outcomes {
        match second.get(endpoint) {
            Some((again, _)) if *again == Answer::Accepted => (*answer, *detail) = (Answer::Accepted, None),
            Some(_) => {}
            // Of an endpoint that was not met again nothing is known; where the second look worked
            // altogether, the first failure has passed.
            None if second.values().any(|(again, _)| *again == Answer::Accepted) && endpoint.is_none() => {
                (*answer, *detail) = (Answer::Accepted, None);
            }
            None => {}
        }
    }
    outcomes
}

/// Dials until each endpoint was met: at most four times as often as there are, at least eight times and
/// at most thirty-two.
async fn tries(round: &Round<'_>, way: &Way<'_>) -> Outcomes {
    let number = match way.protocol {
        // Over UDP one datagram goes the way of all from one socket, and silence says nothing.
        Protocol::Udp => 1,
        _ => (4 * way.endpoints).clamp(8, 32),
    };
    let dials = join_all((0..number).map(|_| try_once(round, way))).await;
    let own: Vec<String> = way.from.map(|pod| pod.pod.ips.clone()).unwrap_or_default();
    let mut outcomes = Outcomes::new();
    for (endpoint, outcome) in dials.into_iter().flatten() {
        if endpoint.is_some_and(|e| own.contains(&e.ip().to_string())) {
            continue;
        }
        // One answer is enough: an endpoint fails only if all tries that met it did.
        let known = outcomes.entry(endpoint).or_insert_with(|| outcome.clone());
        if outcome.0 == Answer::Accepted {
            *known = outcome;
        }
    }
    // A client that is the only endpoint meets nobody but itself.
    if way.endpoints == 1 && is_endpoint(round, way) {
        return Outcomes::new();
    }
    outcomes
}

fn is_endpoint(round: &Round<'_>, way: &Way<'_>) -> bool {
    let Some(client) = way.from else { return false };
    super::ready(round, round.subject)
        .iter()
        .any(|r| client.pod.ips.contains(&r.address.ip().to_string()))
}

async fn try_once(
    round: &Round<'_>,
    way: &Way<'_>,
) -> Option<(Option<SocketAddr>, (Answer, Option<String>))> {
    let permit = round.node.dials.acquire().await.ok()?;
    let started = Dial::start(way.netns, way.protocol, way.target)
        .inspect_err(|error| round.problem(format!("{} could not be dialled: {error}.", way.target)))
        .ok()?;
    let source = started.source();
    // An answer may come before conntrack is asked; the entry stays for a while.
    let dialled = started.finish(round.patience()).await;
    let endpoint = source.and_then(|source| sent_to(round, way, source));
    drop(permit);
    let dialled = dialled
        .inspect_err(|error| round.problem(format!("{} could not be dialled: {error}.", way.target)))
        .ok()?;
    let mut outcome = (
        dialled.answer,
        dialled.offender.map(|offender| format!("by {offender}")),
    );
    if let Some(http) = way.http.filter(|_| outcome.0 == Answer::Accepted) {
        outcome = round.speak(way.netns, way.target, http).await;
    }
    Some((endpoint, outcome))
}

/// The endpoint that a dial was sent to, if the rules sent it anywhere.
fn sent_to(round: &Round<'_>, way: &Way<'_>, source: SocketAddr) -> Option<SocketAddr> {
    let conntrack = round.node.netns.run(Conntrack::open).ok()?;
    let connection = conntrack.find(way.protocol, source, way.target).ok()??;
    (connection.answers != way.target).then_some(connection.answers)
}

fn is_local(round: &Round<'_>, endpoint: SocketAddr) -> Option<bool> {
    super::ready(round, round.subject)
        .iter()
        .find(|r| r.address == endpoint)
        .map(|r| r.is_local)
}

/// Whether client and endpoint are Pods of this node whose links are ports of one bridge.
fn is_on_one_bridge(round: &Round<'_>, way: &Way<'_>, endpoint: Option<SocketAddr>) -> bool {
    let Some(client) = way.from.filter(|c| !c.pod.host_network) else {
        return false;
    };
    // Where no answer tells which endpoint it was, any on the bridge may have been it.
    let candidates = round.endpoints.iter().filter(|pod| {
        !pod.pod.host_network
            && pod.key != client.key
            && endpoint.is_none_or(|e| pod.pod.ips.contains(&e.ip().to_string()))
    });
    let bridge = super::hairpin::bridge_of(round, client);
    bridge.is_some()
        && candidates
            .into_iter()
            .any(|pod| super::hairpin::bridge_of(round, pod) == bridge)
}
