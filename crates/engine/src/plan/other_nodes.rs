//! Whose node ports a node dials, so that somebody but the node itself has tried them.

use std::collections::BTreeSet;

use crate::{
    Facts,
    plan::{cluster_node, subject},
    ports,
};
use svcdiag_api::ProbeOtherNode;
use svcdiag_objects::Service;

/// Other nodes that each node tries. Each is tried by as many.
const MOST: usize = 2;

/// The nodes that come after this one among those that are asked, in a ring: each of them tries its own node ports too,
/// and what does not answer there says nothing of the way between.
pub(super) fn of(
    facts: &Facts,
    service: &Service,
    node: &str,
    chosen: &BTreeSet<&str>,
) -> Vec<ProbeOtherNode> {
    let has_node_ports = ports::judged(facts, service)
        .iter()
        .any(|p| p.node_port.is_some());
    if !has_node_ports {
        return Vec::new();
    }
    let after = chosen.iter().filter(|other| **other > node);
    let before = chosen.iter().filter(|other| **other < node);
    after
        .chain(before)
        .filter(|other| serves(facts, service, other))
        .take(MOST)
        .map(|other| ProbeOtherNode {
            name: (*other).to_owned(),
            ips: subject::node(cluster_node(facts, other)).ips,
        })
        .filter(|other| !other.ips.is_empty())
        .collect()
}

/// Whether a node takes what comes from outside: with the traffic policy Local, one without a ready endpoint drops it.
pub(crate) fn serves(facts: &Facts, service: &Service, node: &str) -> bool {
    service.spec.external_traffic_policy.as_deref() != Some("Local")
        || facts
            .slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .any(|e| e.is_ready() && e.node_name.as_deref() == Some(node))
}
