//! Endpoints to which a node has no route, or one at which packets end.
//!
//! That is a fact of one table at one moment, beside which others may exist. So it is said, and nobody is blamed for it.

use std::net::IpAddr;

use super::text::{Parsed, Text};
use crate::{bundle::Problem, engine::Facts, formats::text::routes::Routes};

/// Most endpoints that are named.
const MAX_NAMED: usize = 3;

/// What the saved routes of a node say against the way to endpoints.
pub(super) fn lost(facts: &Facts, files: &[Parsed<'_>]) -> Vec<Problem> {
    let addresses = addresses(facts);
    let mut problems = Vec::new();
    for (file, routes) in tables(files) {
        let shown = addresses.iter().filter(|ip| routes.show(**ip));
        let lost = shown.filter_map(|ip| against(routes, *ip));
        problems.extend(lost.take(MAX_NAMED).map(|what| file.problem(what)));
    }
    problems
}

/// That routes say nothing against it, where requests failed: who looks for the cause need not look there.
pub(super) fn found(facts: &Facts, files: &[Parsed<'_>]) -> Vec<Problem> {
    let addresses = addresses(facts);
    let lead = |(_, routes): &(&Parsed<'_>, &Routes)| {
        let leads = |ip: &IpAddr| routes.show(*ip) && against(routes, *ip).is_none();
        !addresses.is_empty() && addresses.iter().all(leads)
    };
    tables(files)
        .filter(lead)
        .map(|(file, _)| {
            file.problem(
                "a route leads to every endpoint, so the routes of this node do not explain failed requests",
            )
        })
        .collect()
}

fn tables<'a>(files: &'a [Parsed<'a>]) -> impl Iterator<Item = (&'a Parsed<'a>, &'a Routes)> {
    files.iter().filter_map(|file| match &file.text {
        Text::Routes(routes) => Some((file, routes)),
        _ => None,
    })
}

fn addresses(facts: &Facts) -> Vec<IpAddr> {
    let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    let mut addresses: Vec<IpAddr> = endpoints
        .flat_map(|e| &e.addresses)
        .filter_map(|address| address.parse().ok())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Why packets to an address do not leave.
fn against(routes: &Routes, ip: IpAddr) -> Option<String> {
    match routes.towards(ip) {
        Some(route) if route.ends => Some(format!(
            "line {}: packets to endpoint {ip} end at this route, unless `ip rule` names another table",
            route.line
        )),
        Some(_) => None,
        None => Some(format!(
            "no route leads to endpoint {ip}, unless `ip rule` names another table"
        )),
    }
}
