//! Tracked connections of a node.

use std::net::SocketAddr;

use super::text::{Parsed, Text};
use crate::{
    api::StaleConnection,
    engine::Facts,
    formats::text::conntrack::{self, Entry},
    kube_proxy::{ExpectedPort, Protocol, Vantage, expected},
    objects::Object,
};

/// Most tracked connections that a report holds.
const MAX_STALE: usize = 8;

/// UDP connections to the Service that lead to Pods that are gone, and that somebody still uses: one list cannot tell
/// those from what is about to be forgotten, so that it takes two.
pub(super) fn stale(facts: &Facts, node: &str, files: &[Parsed<'_>]) -> Vec<StaleConnection> {
    let lists: Vec<&[Entry]> = files
        .iter()
        .filter_map(|file| match &file.text {
            Text::Conntrack(entries) => Some(entries.as_slice()),
            _ => None,
        })
        .collect();
    let (Some(service), [.., earlier, later]) = (facts.service.as_deref(), lists.as_slice()) else {
        return Vec::new();
    };
    let is_used = |entry: &&Entry| {
        let now = &entry.connection;
        earlier.iter().map(|e| &e.connection).any(|before| {
            (before.source, before.destination, before.answers) == (now.source, now.destination, now.answers)
                && now.seconds_left > before.seconds_left
        })
    };
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let vantage = Vantage { node: "", zone: None };
    let of_node = facts.cluster_nodes.iter().find(|n| n.name() == node);
    let own = of_node.map(|n| n.internal_ips()).unwrap_or_default();
    let mut all = Vec::new();
    // Without an endpoint there is nowhere else to lead.
    let is_served = |p: &&ExpectedPort| p.protocol == Protocol::Udp && !p.serving.is_empty();
    for port in expected(service, &slices, vantage).iter().filter(is_served) {
        let serving: Vec<SocketAddr> = port.serving.iter().copied().collect();
        let addresses = port.destinations.iter().flat_map(|destination| {
            // A node port is at the addresses of the node.
            let ips = destination.address.map_or_else(|| own.clone(), |ip| vec![ip]);
            ips.into_iter().map(|ip| SocketAddr::new(ip, destination.port))
        });
        for address in addresses {
            let found = conntrack::stale_udp(later, address, &serving);
            all.extend(found.into_iter().filter(is_used).map(|entry| StaleConnection {
                destination: address.to_string(),
                endpoint: entry.connection.answers.to_string(),
                source: entry.connection.source.to_string(),
            }));
        }
    }
    all.truncate(MAX_STALE);
    all
}
