//! What counts of a report: what was asked about.
//!
//! An agent knows its node and nothing else. One that speaks of Pods, names and servers that its question does not
//! name is not the agent any more, and would have users look at, or type, what somebody else has chosen.

use std::collections::BTreeSet;

use svcdiag_api::{NodeFacts, NodeProbeSpec, ProbePod};

/// Every cluster has this name, by which its DNS is tried.
const CONTROL: &str = "kubernetes.default";

/// The facts that answer a question.
pub(super) fn of(asked: &NodeProbeSpec, mut facts: NodeFacts) -> NodeFacts {
    let key = |pod: &ProbePod| format!("{}/{}", pod.namespace, pod.name);
    let clients: BTreeSet<String> = asked.clients.iter().map(key).collect();
    let pods: BTreeSet<String> = asked.endpoints.iter().map(key).chain(clients.clone()).collect();
    let is_origin = |from: &Option<String>| from.as_ref().is_none_or(|pod| clients.contains(pod));
    facts.dials.retain(|dial| is_origin(&dial.from));
    facts.failures.retain(|dial| is_origin(&dial.from));
    // A Pod that dials itself is asked as an endpoint.
    let is_dialler = |from: &Option<String>| from.as_ref().is_none_or(|pod| pods.contains(pod));
    facts.drops.retain(|drop| is_dialler(&drop.from));
    facts.listeners.retain(|of| pods.contains(&of.pod));
    facts.hairpins.retain(|of| pods.contains(&of.pod));
    facts.intercepted.retain(|pod| pods.contains(pod));
    facts.resolvers.retain(|of| clients.contains(&of.pod));
    for resolver in &mut facts.resolvers {
        resolver.lookups.retain(|lookup| is_asked(asked, &lookup.name));
    }
    let dns = asked.cluster_dns.iter();
    let dns = dns.flat_map(|dns| dns.addresses.iter().chain(&dns.endpoints));
    let servers: BTreeSet<String> = dns
        .map(|address| host(address).to_owned())
        .chain(facts.resolvers.iter().flat_map(|r| r.servers.clone()))
        .collect();
    facts
        .dns_servers
        .retain(|of| is_origin(&of.from) && servers.contains(host(&of.server)));
    facts
}

/// Whether a name is one of the Service's, or the cluster's own. An ExternalName Service stands for another one,
/// which no question names.
fn is_asked(asked: &NodeProbeSpec, name: &str) -> bool {
    let of = |known: &str| {
        name.strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    of(&asked.service_name) || of(CONTROL) || asked.service.without_rules
}

/// An address without its port.
fn host(address: &str) -> &str {
    match address.parse::<std::net::SocketAddr>() {
        Ok(_) => address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host.trim_matches(['[', ']'])),
        Err(_) => address,
    }
}
