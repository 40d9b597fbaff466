//! On which paths a node tries packets of full size: from one of its clients to one endpoint of each of a few other nodes.
//!
//! The packets go to a port that nobody has asked for. So both ends are Pods that no policy isolates: where one does, or
//! where nobody can tell, somebody may take them for an attack.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Facts,
    evidence::targets::key,
    plan::probe_of,
    pods::behind_endpoints::EndpointPods,
    policies::rules::{self, Direction},
};
use svcdiag_api::ProbePath;
use svcdiag_objects::{NetworkPolicy, Object, Pod};

/// Other nodes that each node tries.
const MOST: usize = 4;

/// An endpoint's Pod, by name, and its address.
type Endpoint<'a> = (&'a str, IpAddr);

/// Both ends of all paths that may be tried.
pub(super) struct Ends<'a> {
    /// The clients, by node.
    clients: BTreeMap<&'a str, &'a Pod>,
    /// The endpoints, by node.
    endpoints: BTreeMap<&'a str, BTreeSet<Endpoint<'a>>>,
}

impl<'a> Ends<'a> {
    /// Those among the clients that were chosen, and among the endpoints of the Service, that no policy isolates.
    pub(super) fn of(facts: &'a Facts, clients: &[&'a Pod]) -> Self {
        let mut ends = Self {
            clients: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        };
        if !is_known_who_is_isolated(facts) {
            return ends;
        }
        let policies: Vec<&NetworkPolicy> = facts.policies.iter().map(AsRef::as_ref).collect();
        let may_be_tried = |pod: &Pod| !pod.is_host_network() && is_free(&policies, pod);
        for client in clients.iter().copied().filter(|pod| may_be_tried(pod)) {
            if let Some(node) = client.spec.node_name.as_deref() {
                ends.clients.entry(node).or_insert(client);
            }
        }
        if !ends.clients.is_empty() {
            ends.endpoints = endpoints(facts, may_be_tried);
        }
        ends
    }

    /// The paths of a node. The other nodes are those that come after it in a ring, so that not all try the same.
    pub(super) fn paths(&self, facts: &Facts, node: &str) -> Vec<ProbePath> {
        let Some(client) = self.clients.get(node) else {
            return Vec::new();
        };
        let after = self.endpoints.iter().filter(|(other, _)| **other > node);
        let before = self.endpoints.iter().filter(|(other, _)| **other < node);
        after
            .chain(before)
            .filter_map(|(other, endpoints)| {
                Some(ProbePath {
                    from: key(client),
                    to: chosen(facts, node, client, endpoints)?.to_string(),
                    node: (*other).to_owned(),
                })
            })
            .take(MOST)
            .collect()
    }
}

/// Whether it is known which Pods policies isolate.
fn is_known_who_is_isolated(facts: &Facts) -> bool {
    facts.other_policy_kinds.is_empty() && facts.why_unreadable("networkpolicies").is_none()
}

/// Whether no policy isolates a Pod.
fn is_free(policies: &[&NetworkPolicy], pod: &Pod) -> bool {
    [Direction::Ingress, Direction::Egress]
        .into_iter()
        .all(|direction| rules::isolating(policies, pod, direction).is_empty())
}

/// The endpoints that may be tried, by node: running Pods with the address that the EndpointSlice has.
fn endpoints<'a>(
    facts: &'a Facts,
    may_be_tried: impl Fn(&Pod) -> bool,
) -> BTreeMap<&'a str, BTreeSet<Endpoint<'a>>> {
    let pods = EndpointPods::of(facts);
    let mut all: BTreeMap<&str, BTreeSet<Endpoint<'_>>> = BTreeMap::new();
    for (ip, endpoint) in facts.slices.iter().flat_map(|slice| slice.ready()) {
        let Some(pod) = pods.behind(endpoint) else {
            continue;
        };
        // That it terminates is said by its slice, with which all else of the question changes.
        let is_running = pod.status.phase.as_deref() == Some("Running");
        if let Some(node) = pod.spec.node_name.as_deref()
            && is_running
            && addresses(pod).contains(&ip)
            && may_be_tried(pod)
        {
            all.entry(node).or_default().insert((pod.name(), ip));
        }
    }
    all
}

/// The address of an endpoint, of a family that the client has: that which was asked for before, as long as there is one,
/// since another path is another trial.
fn chosen(facts: &Facts, node: &str, client: &Pod, endpoints: &BTreeSet<Endpoint<'_>>) -> Option<IpAddr> {
    let own = addresses(client);
    let before = probe_of(facts, node).map(|probe| probe.asked.full_size_paths.as_slice());
    let was_asked = |ip: &IpAddr| {
        let mut paths = before.unwrap_or_default().iter();
        paths.any(|path| path.to.parse() == Ok(*ip))
    };
    let of_family = || {
        let ips = endpoints.iter().map(|(_, ip)| *ip);
        ips.filter(|ip| own.iter().any(|own| own.is_ipv4() == ip.is_ipv4()))
    };
    of_family().find(was_asked).or_else(|| of_family().next())
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    pod.ips().filter_map(|ip| ip.parse().ok()).collect()
}
