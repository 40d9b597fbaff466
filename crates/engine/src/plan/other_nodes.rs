//! Whose node ports a node dials, so that somebody but the node itself has tried them.

use std::collections::BTreeSet;

use crate::{Facts, plan::subject, ports};
use svcdiag_api::ProbeOtherNode;
use svcdiag_objects::Service;

/// Other nodes that each node tries. Each is tried by as many.
const MOST: usize = 2;

/// The nodes that come after this one in a ring of those that are asked for as long as nothing changes: each of them tries
/// its own node ports too, and what does not answer there says nothing of the way between. The sample of further nodes
/// is no part of it: it moves on, and each move would change the question of others.
pub(super) fn of(
    facts: &Facts,
    service: &Service,
    node: &str,
    lasting: &BTreeSet<&str>,
) -> Vec<ProbeOtherNode> {
    let has_node_ports = ports::judged(facts, service)
        .iter()
        .any(|p| p.node_port.is_some());
    if !has_node_ports {
        return Vec::new();
    }
    let after = lasting.iter().filter(|other| **other > node);
    let before = lasting.iter().filter(|other| **other < node);
    after
        .chain(before)
        .filter(|other| serves(facts, service, other))
        .take(MOST)
        .map(|other| ProbeOtherNode {
            name: (*other).to_owned(),
            ips: subject::node(facts.cluster_node(other)).ips,
        })
        .filter(|other| !other.ips.is_empty())
        .collect()
}

/// Whether a node takes what comes from outside: with the traffic policy Local, one without a ready endpoint drops it.
fn serves(facts: &Facts, service: &Service, node: &str) -> bool {
    let mut endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    !is_local(service) || endpoints.any(|e| e.is_ready() && e.node_name.as_deref() == Some(node))
}

/// Whether traffic from outside stays on the node that it comes to.
pub(crate) fn is_local(service: &Service) -> bool {
    service.spec.external_traffic_policy.as_deref() == Some("Local")
}
