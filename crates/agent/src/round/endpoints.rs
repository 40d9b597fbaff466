//! The endpoints dialled directly, bypassing the Service: those on the node and those of the API server from the node
//! itself, all from the clients.

use futures::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::{
    CONFIRM_AFTER, LocalPod, MAX_FAILURES, Memory, Ready, Round,
    dials::{Look, Outcome, Tally},
    ready,
    watch::Repeated,
};
use crate::blocking::{Pool, blocking};
use svcdiag_api::{Answer, DialFailure, DialPath, ListeningSocket, PodListeners};
use svcdiag_kube_proxy::IpFamily;
use svcdiag_netns::{Netns, sockets};

/// Endpoints dialled in one round; with more, a window advances every round.
const MAX_ENDPOINTS: usize = 50;

/// A planned dial.
struct Planned<'a> {
    /// The client; None for the node.
    by: Option<&'a LocalPod<'a>>,
    from: Option<&'a str>,
    netns: &'a Netns,
    to: &'a Ready,
}

pub(super) async fn probe(round: &Round<'_>, memory: &Memory) -> Tally {
    let endpoints = window(ready(round, &round.subject), memory);
    let planned = plan(round, &endpoints);
    let mut tally = Tally::default();
    let first = join_all(planned.iter().map(|p| dial(round, p, Look::First))).await;
    let failing: Vec<usize> = failing(&first);
    let begun = failing
        .iter()
        .filter_map(|index| Some(first.get(*index)?.as_ref()?.1));
    let mut second = Vec::new();
    let mut still_ready = Vec::new();
    if let Some(begun) = begun.max() {
        sleep_until(begun + CONFIRM_AFTER).await;
        let again: Vec<&Planned<'_>> = failing.iter().filter_map(|i| planned.get(*i)).collect();
        let repeated = again.iter().map(|p| Repeated {
            from: p.by,
            netns: p.netns,
            protocol: p.to.port.protocol,
            target: p.to.address,
            endpoints: vec![p.to.address],
        });
        let dials = join_all(again.iter().map(|p| dial(round, p, Look::Second)));
        second = round.watched(repeated.collect(), dials).await;
        still_ready = ready(round, &round.read_again());
    }
    for (index, (planned, outcome)) in planned.iter().zip(&first).enumerate() {
        let Some(((answer, _), _)) = outcome else { continue };
        let mut failure = None;
        if *answer != Answer::Accepted {
            // It counts if the endpoint is still ready and the confirming dial fails as well.
            let position = failing.iter().position(|i| *i == index);
            let confirmed = position.and_then(|p| second.get(p)).and_then(Option::as_ref);
            match confirmed {
                Some(((answer, detail), _))
                    if *answer != Answer::Accepted && still_ready.contains(planned.to) =>
                {
                    failure = Some(DialFailure {
                        from: planned.from.map(str::to_owned),
                        path: DialPath::Endpoint,
                        port: planned.to.port,
                        target: planned.to.address.to_string(),
                        endpoint: Some(planned.to.address.to_string()),
                        same_node: planned.to.same_node,
                        same_bridge: false,
                        answer: *answer,
                        detail: detail.clone(),
                    });
                }
                Some(((Answer::Accepted, _), _)) if !planned.to.port.is_udp() => {}
                // Gone, not dialled again, or silent after a refusal: unknown.
                _ => continue,
            }
        }
        tally.count(
            planned.from,
            DialPath::Endpoint,
            planned.to.port,
            IpFamily::of(planned.to.address.ip()),
            planned.to.same_node,
            failure,
        );
    }
    tally
}

fn failing(outcomes: &[Option<(Outcome, Instant)>]) -> Vec<usize> {
    outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| {
            outcome
                .as_ref()
                .is_some_and(|((answer, _), _)| *answer != Answer::Accepted)
        })
        .map(|(index, _)| index)
        .collect()
}

/// Local endpoints first, then an advancing window.
fn window(mut endpoints: Vec<Ready>, memory: &Memory) -> Vec<Ready> {
    if endpoints.len() <= MAX_ENDPOINTS {
        return endpoints;
    }
    let (mut chosen, others): (Vec<Ready>, Vec<Ready>) =
        endpoints.drain(..).partition(|e| e.same_node == Some(true));
    chosen.truncate(MAX_ENDPOINTS);
    let room = MAX_ENDPOINTS - chosen.len();
    let mut start = memory.window.lock();
    let count = others.len().max(1);
    chosen.extend(others.into_iter().cycle().skip(*start % count).take(room));
    *start = (*start + room) % count;
    chosen
}

fn plan<'a>(round: &'a Round<'a>, endpoints: &'a [Ready]) -> Vec<Planned<'a>> {
    let mut all = Vec::new();
    for to in endpoints {
        // The slice of the API server names no nodes, and every node must reach its endpoints.
        let is_near = to.same_node == Some(true) || to.same_node.is_none() && is_api_server(round);
        if is_near && round.spec.from_node && round.has_family(None, to.address.ip()) {
            all.push(Planned {
                by: None,
                from: None,
                netns: &round.node.netns,
                to,
            });
        }
        for client in &round.clients {
            let itself = client.pod.ips.iter().any(|ip| *ip == to.address.ip().to_string());
            let may_dial = !client.pod.host_network || round.spec.from_node;
            if !itself && may_dial && round.has_family(Some(client), to.address.ip()) {
                all.push(Planned {
                    by: Some(client),
                    from: Some(&client.key),
                    netns: &client.netns,
                    to,
                });
            }
        }
    }
    all
}

fn is_api_server(round: &Round<'_>) -> bool {
    (round.namespace, round.spec.service_name.as_str()) == ("default", "kubernetes")
}

async fn dial(round: &Round<'_>, planned: &Planned<'_>, look: Look) -> Option<(Outcome, Instant)> {
    let http = round.http_for(planned.by, planned.to.port);
    let outcome = round
        .dial(
            planned.netns,
            planned.to.port.protocol,
            planned.to.address,
            http,
            look,
        )
        .await;
    outcome
        .inspect_err(|error| {
            round.problem(format!("{} could not be dialled: {error}.", planned.to.address));
        })
        .ok()
}

/// Listening sockets of the Pods on the node that refused a dial, unless the Pod runs in a virtual machine.
pub(super) async fn listeners(round: &Round<'_>, failures: &[DialFailure]) -> Vec<PodListeners> {
    let refused: Vec<&str> = failures
        .iter()
        .filter(|f| f.answer == Answer::Refused)
        .filter_map(|f| f.endpoint.as_deref())
        .collect();
    let is_refusing = |ips: &[String]| {
        ips.iter().any(|ip| {
            refused.iter().any(|endpoint| {
                let host = endpoint.rsplit_once(':').map_or(*endpoint, |(host, _)| host);
                host.trim_matches(['[', ']']) == ip
            })
        })
    };
    let mut all = Vec::new();
    for endpoint in &round.endpoints {
        if !is_refusing(&endpoint.pod.ips) || endpoint.pod.runtime_class.is_some() {
            continue;
        }
        let Some(pid) = endpoint.pids.first().copied() else {
            continue;
        };
        match blocking(Pool::Pod, move || sockets::listeners(pid))
            .await
            .flatten()
        {
            Ok(found) => all.push(PodListeners {
                pod: endpoint.key.clone(),
                ips: endpoint.pod.ips.clone(),
                sockets: found
                    .iter()
                    .take(32)
                    .map(|l| ListeningSocket {
                        protocol: l.protocol.into(),
                        address: l.address.ip().to_string(),
                        port: l.address.port(),
                    })
                    .collect(),
            }),
            Err(error) => {
                round.problem(format!(
                    "The sockets of Pod {} could not be listed: {error}.",
                    endpoint.key
                ));
            }
        }
    }
    all.truncate(MAX_FAILURES);
    all
}
