//! The Service dialled by its addresses, from the clients and from the node.
//!
//! A dial that came back to the client itself is only evidence about hairpin.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    CONFIRM_AFTER, LocalPod, Round,
    attempts::{Outcomes, Route, attempts},
    dials::{Look, Outcome, Tally},
    watch::Repeated,
};
use svcdiag_api::{Answer, DialFailure, DialPath};
use svcdiag_kube_proxy::{
    Destination, IpFamily, Protocol, Purpose, Traffic, destinations, serves_node_ports_at,
};

/// Results of every path, once.
pub(super) struct FirstProbe<'a> {
    routes: Vec<(Route<'a>, Outcomes)>,
    /// Since when all that has failed had failed once.
    begun: Option<Instant>,
}

pub(super) async fn first_probe<'a>(round: &'a Round<'a>) -> FirstProbe<'a> {
    let routes = join_all(routes(round).into_iter().map(async |route| {
        let (outcomes, begun) = attempts(round, &route, Look::First).await;
        (without_itself(&route, outcomes), begun, route)
    }));
    let routes = routes.await;
    let has_failed = |outcomes: &Outcomes| outcomes.values().any(is_failure);
    let failed = routes.iter().filter(|(outcomes, ..)| has_failed(outcomes));
    FirstProbe {
        begun: failed.filter_map(|(_, begun, _)| *begun).max(),
        routes: routes
            .into_iter()
            .map(|(outcomes, _, route)| (route, outcomes))
            .collect(),
    }
}

/// Repeats what failed.
pub(super) async fn probe(round: &Round<'_>, first: FirstProbe<'_>) -> Tally {
    let FirstProbe { routes, begun } = first;
    let mut tally = Tally::default();
    let repeated: Vec<Repeated<'_>> = routes
        .iter()
        .filter(|(_, outcomes)| outcomes.values().any(is_failure))
        .map(|(route, _)| Repeated {
            from: route.from,
            netns: route.netns,
            protocol: route.port.protocol,
            target: route.target,
            endpoints: route.endpoints.iter().copied().collect(),
        })
        .collect();
    if let Some(begun) = begun {
        tokio::time::sleep_until(begun + CONFIRM_AFTER).await;
    }
    let again = join_all(routes.iter().map(async |(route, outcomes)| {
        let outcomes = try_again(round, route, outcomes.clone()).await;
        (route, outcomes)
    }));
    for (route, outcomes) in round.watched(repeated, again).await {
        let from = route.from.map(|pod| pod.key.as_str());
        for (endpoint, (answer, detail)) in outcomes {
            let mut failure = None;
            if answer != Answer::Accepted {
                failure = Some(DialFailure {
                    from: from.map(str::to_owned),
                    path: route.path,
                    port: route.port,
                    target: route.target.to_string(),
                    endpoint: endpoint.map(|e| e.to_string()),
                    same_node: endpoint.and_then(|e| is_local(round, e)),
                    same_bridge: is_on_one_bridge(round, route, endpoint).await,
                    answer,
                    detail,
                });
            }
            let family = IpFamily::of(route.target.ip());
            tally.count(from, route.path, route.port, family, None, failure);
        }
    }
    tally
}

/// The addresses of the Service that are dialled: its cluster IPs from everywhere, node ports on the node. Addresses of load
/// balancers and externalIPs may belong to anyone.
fn routes<'a>(round: &'a Round<'a>) -> Vec<Route<'a>> {
    let mut all = Vec::new();
    let service = &round.subject.service;
    let slices: Vec<_> = round.subject.slices.iter().collect();
    for port in destinations(service, &slices, round.vantage()) {
        let is_asked = |p: &&svcdiag_objects::ServicePort| {
            p.name() == port.name && p.protocol == port.protocol && round.is_asked(p)
        };
        let Some(asked) = service.spec.ports.iter().find(is_asked) else {
            continue;
        };
        let Some(number) = asked.port_protocol().filter(|p| p.protocol != Protocol::Sctp) else {
            continue;
        };
        for destination in &port.destinations {
            let Traffic::To(endpoints) = &destination.inside else {
                continue;
            };
            let route = |from: Option<&'a LocalPod<'a>>, netns, path, target| Route {
                http: round.http_for(from, number),
                from,
                netns,
                path,
                port: number,
                target,
                endpoints: endpoints.clone(),
            };
            for (path, target) in targets(round, destination, endpoints) {
                if round.spec.from_node && round.has_family(None, target.ip()) {
                    all.push(route(None, &round.node.netns, path, target));
                }
                if path == DialPath::Service {
                    let usable = |c: &&LocalPod<'_>| {
                        (!c.pod.host_network || round.spec.from_node)
                            && round.has_family(Some(c), target.ip())
                    };
                    for client in round.clients.iter().filter(usable) {
                        all.push(route(Some(client), &client.netns, path, target));
                    }
                }
            }
        }
    }
    all
}

fn targets(
    round: &Round<'_>,
    destination: &Destination,
    endpoints: &BTreeSet<SocketAddr>,
) -> Vec<(DialPath, SocketAddr)> {
    match (destination.purpose, destination.address) {
        (Purpose::ClusterIp, Some(address)) => {
            vec![(DialPath::Service, SocketAddr::new(address, destination.port))]
        }
        (Purpose::NodePort, _) => {
            let is_v4 = endpoints.first().is_some_and(SocketAddr::is_ipv4);
            let ip = round.subject.node_ips.iter().find(|ip| ip.is_ipv4() == is_v4);
            ip.filter(|ip| serves_node_ports(round, destination, **ip))
                .map(|ip| (DialPath::NodePort, SocketAddr::new(*ip, destination.port)))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Whether kube-proxy should serve node ports on an address of the node; true if this is unknown.
fn serves_node_ports(round: &Round<'_>, destination: &Destination, ip: IpAddr) -> bool {
    let opened = super::rules::open(round, None);
    opened.is_none_or(|(_, rules)| {
        serves_node_ports_at(rules.as_ref(), ip, destination.protocol, destination.port).unwrap_or(true)
    })
}

/// Repeats a path where anything failed, and keeps what failed both times. Nothing is known about an endpoint that was not
/// reached again or is no longer ready, nor about a failure without an endpoint that may have been at such a one.
async fn try_again(round: &Round<'_>, route: &Route<'_>, mut outcomes: Outcomes) -> Outcomes {
    if !outcomes.values().any(is_failure) {
        return outcomes;
    }
    let second = without_itself(route, attempts(round, route, Look::Second).await.0);
    let ready = super::ready(round, &round.read_again());
    let is_ready = |e: &SocketAddr| ready.iter().any(|ready| ready.address == *e);
    outcomes.retain(|endpoint, outcome| {
        let still_ready = match endpoint {
            Some(endpoint) => is_ready(endpoint),
            None => route.endpoints.iter().all(is_ready),
        };
        !is_failure(outcome) || second.contains_key(endpoint) && still_ready
    });
    outcomes.retain(|endpoint, outcome| match second.get(endpoint) {
        // Over UDP, silence before or after a refusal proves nothing.
        Some(again) if is_failure(again) != is_failure(outcome) && route.port.is_udp() => false,
        Some(again) if is_failure(outcome) => {
            *outcome = again.clone();
            true
        }
        _ => true,
    });
    // What is reached now counts, even if nothing was reached the first time.
    if !route.port.is_udp() {
        let reached = second.into_iter().filter(|(_, outcome)| !is_failure(outcome));
        for (endpoint, outcome) in reached {
            outcomes.entry(endpoint).or_insert(outcome);
        }
    }
    outcomes
}

fn is_failure((answer, _): &Outcome) -> bool {
    *answer != Answer::Accepted
}

/// Drops the attempts that reached the client itself: those that conntrack shows, and lost ones that may have been
/// such.
fn without_itself(route: &Route<'_>, mut outcomes: Outcomes) -> Outcomes {
    let Some(client) = route.from.filter(|client| !client.pod.host_network) else {
        return outcomes;
    };
    let is_own = |endpoint: &SocketAddr| client.pod.ips.contains(&endpoint.ip().to_string());
    let may_be_own = route
        .endpoints
        .iter()
        .any(|e| is_own(e) && !outcomes.contains_key(&Some(*e)));
    outcomes.retain(|endpoint, _| match endpoint {
        Some(endpoint) => !is_own(endpoint),
        None => !may_be_own,
    });
    outcomes
}

fn is_local(round: &Round<'_>, endpoint: SocketAddr) -> Option<bool> {
    super::ready(round, &round.subject)
        .iter()
        .find(|r| r.address == endpoint)
        .and_then(|r| r.same_node)
}

/// Whether client and endpoint are Pods of this node on the same bridge.
async fn is_on_one_bridge(round: &Round<'_>, route: &Route<'_>, endpoint: Option<SocketAddr>) -> bool {
    let Some(client) = route.from.filter(|c| !c.pod.host_network) else {
        return false;
    };
    // If no answer shows the endpoint, it may have been any on the bridge.
    let candidates = round.endpoints.iter().filter(|pod| {
        !pod.pod.host_network
            && pod.key != client.key
            && endpoint.is_none_or(|e| pod.pod.ips.contains(&e.ip().to_string()))
    });
    let bridge = super::hairpin::bridge_of(round, client).await;
    for pod in candidates.filter(|_| bridge.is_some()) {
        if super::hairpin::bridge_of(round, pod).await == bridge {
            return true;
        }
    }
    false
}
