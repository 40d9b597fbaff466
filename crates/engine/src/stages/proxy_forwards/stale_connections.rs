//! Senders of UDP that conntrack ties to Pods that are gone.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    Facts, Finding,
    evidence::{
        Evidence,
        proxies::{self, Proxy},
    },
    text::{self, SHOWN, quoted},
};
use svcdiag_api::{Reason, StaleConnection};
use svcdiag_kube_proxy::{Protocol, expected};
use svcdiag_objects::Service;

/// Senders that are tied to a Pod that is gone. What does kube-proxy's work in its stead may have packets tracked
/// before it gives them another destination.
pub(super) fn stale_connections(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let service = facts.service.as_deref()?;
    let mut found: Vec<(&str, &StaleConnection)> = reports
        .current
        .iter()
        .filter(|r| proxies::of(r) == Proxy::Own)
        .flat_map(|r| r.facts.stale_connections.iter().map(move |c| (r.node, c)))
        .filter(|(node, connection)| still_leads_nowhere(facts, service, node, connection))
        .collect();
    found.sort_by(|a, b| (a.0, &a.1.source, &a.1.endpoint).cmp(&(b.0, &b.1.source, &b.1.endpoint)));
    if found.is_empty() {
        return None;
    }
    let entries: Vec<String> = found
        .iter()
        .map(|(node, c)| {
            // What kube-proxy had no rule for yet went on as it came.
            let goes = match c.endpoint == c.destination {
                true => "was tracked without being translated".to_owned(),
                false => format!("goes to {}", c.endpoint),
            };
            format!("on node {node}, {} to {} {goes}", c.source, c.destination)
        })
        .collect();
    Some(Finding::part_fails(
        Reason::StaleConntrackEntry,
        format!(
            "UDP conntrack entries still lead to endpoints that are gone. They do not expire while their senders keep sending: {}.",
            text::list(&entries)
        ),
        delete(&found),
    ))
}

/// How to delete the entries: one command takes all from one address to one endpoint on a node.
fn delete(found: &[(&str, &StaleConnection)]) -> String {
    let ip = |address: &str| {
        address
            .parse::<SocketAddr>()
            .map_or_else(|_| address.to_owned(), |a| a.ip().to_string())
    };
    let ways: BTreeSet<(&str, String, String)> = found
        .iter()
        .map(|(node, c)| (*node, ip(&c.destination), ip(&c.endpoint)))
        .collect();
    let each = ways.iter().take(SHOWN).map(|(node, destination, endpoint)| {
        format!(
            "Delete the entries on node {node}: `conntrack -D -p udp --orig-dst {} --reply-src {}`.",
            quoted(destination),
            quoted(endpoint)
        )
    });
    let each: Vec<String> = each.collect();
    let nodes: BTreeSet<&str> = ways.iter().skip(SHOWN).map(|(node, ..)| *node).collect();
    let others = match nodes.is_empty() {
        true => String::new(),
        false => format!(
            " Do the same for the others on {}: `conntrack -L -p udp` lists them among all entries.",
            text::nodes(&nodes.into_iter().collect::<Vec<_>>())
        ),
    };
    format!(
        "{}{others} The next packet then goes to a current endpoint.",
        each.join(" ")
    )
}

fn still_leads_nowhere(facts: &Facts, service: &Service, node: &str, connection: &StaleConnection) -> bool {
    let (Ok(destination), Ok(endpoint)) = (
        connection.destination.parse::<SocketAddr>(),
        connection.endpoint.parse::<SocketAddr>(),
    ) else {
        return false;
    };
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let seen_from = svcdiag_kube_proxy::Vantage { node, zone: None };
    expected(service, &slices, seen_from).iter().any(|port| {
        port.protocol == Protocol::Udp
            && port
                .destinations
                .iter()
                .any(|d| d.address.is_none_or(|ip| ip == destination.ip()) && d.port == destination.port())
            && !port.serving.is_empty()
            && !port.serving.contains(&endpoint)
    })
}
