//! Tracked UDP connections to the Service that lead to Pods that are gone.
//!
//! Like kube-proxy: the original destination is the Service's, the reply would come from no endpoint
//! that serves, and there are endpoints that do. Two looks at least ten seconds apart have to see the
//! same connection with its time not running down: somebody keeps sending.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Memory, Round};
use crate::{
    api::StaleConnection,
    proxy::{Protocol, expected},
};

const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
const MAX: usize = 8;

/// Source, destination and who should answer.
type Flow = (SocketAddr, SocketAddr, SocketAddr);

/// Connections seen before: since when, and how many seconds they had left.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<Flow, (Instant, u32)>);

pub(super) fn look(round: &Round<'_>, memory: &Memory) -> Vec<StaleConnection> {
    let mut suspects = memory
        .suspects
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    let mut seen = HashMap::new();
    let mut stale = Vec::new();
    for (flow, seconds_left) in flows_to_nowhere(round) {
        let (since, before) = suspects.0.get(&flow).copied().unwrap_or((now, seconds_left));
        let elapsed = now.duration_since(since);
        if elapsed >= BETWEEN_LOOKS && u64::from(before.saturating_sub(seconds_left)) < elapsed.as_secs() / 2
        {
            stale.push(StaleConnection {
                source: flow.0.to_string(),
                destination: flow.1.to_string(),
                endpoint: flow.2.to_string(),
            });
        }
        seen.insert(flow, (since, before));
    }
    suspects.0 = seen;
    stale.sort_by(|a, b| (&a.destination, &a.source).cmp(&(&b.destination, &b.source)));
    stale.truncate(MAX);
    stale
}

fn flows_to_nowhere(round: &Round<'_>) -> Vec<(Flow, u32)> {
    let Some(service) = &round.subject.service else {
        return Vec::new();
    };
    let slices: Vec<_> = round.subject.slices.iter().collect();
    let mut all = Vec::new();
    for port in expected(service, &slices, round.vantage()) {
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
                    round.problem(format!("Tracked connections could not be listed: {error}."));
                }
            }
        }
    }
    all
}
