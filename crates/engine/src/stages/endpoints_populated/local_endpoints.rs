//! internalTrafficPolicy Local: who has an endpoint on their own node, and who has none.
//!
//! A client whose node has no endpoint cannot use the Service, and that is what the policy asks for: it is a
//! fault only for Pods that are known to be clients. externalTrafficPolicy Local shuts nobody inside the
//! cluster out.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    Facts, Finding,
    clients::{Clients, Role},
    evidence::Evidence,
    pods::{
        behind_endpoints::pods_behind,
        state::{self, trouble::Trouble},
    },
    stages::endpoints_populated::stale::SLICE_GRACE,
    text::{self, quoted},
    time::later,
};
use svcdiag_api::Reason;
use svcdiag_objects::{Endpoint, Object, Pod, Service};

/// What a Local policy makes of endpoints that are ready.
pub(super) enum Local {
    /// Every Pod that counts has an endpoint on its node, or the policy is another one.
    Served,
    /// Some have none, which is no fault: in words, and when it may become one.
    Hint(String, Option<Timestamp>),
    /// Clients are without endpoints.
    Lacking(Finding),
}

/// Holds the endpoints against the nodes of the clients.
pub(super) fn judge(evidence: &Evidence<'_>, service: &Service, endpoints: &[&Endpoint]) -> Local {
    let facts = evidence.facts;
    if !service.is_internally_local() || service.is_headless() {
        return Local::Served;
    }
    let serving = |e: &&&Endpoint| e.is_ready() || e.is_serving() && e.is_terminating();
    let served: BTreeSet<&str> = endpoints
        .iter()
        .filter(serving)
        .filter_map(|e| e.node_name.as_deref())
        .collect();
    let Clients::Pods { pods, role } = &evidence.clients else {
        return Local::Served;
    };
    let (inside, outside): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|p| served.contains(node(p)));
    if outside.is_empty() {
        return Local::Served;
    }
    let lacking: BTreeSet<&str> = outside.iter().map(|p| node(p)).collect();
    let who = who_lacks(&lacking, &outside);
    if *role != Role::Named {
        return Local::Hint(
            format!(
                "The Service's internalTrafficPolicy is Local, and {who}. To have the clients checked, name them in spec.clients.podSelector."
            ),
            None,
        );
    }
    let restarting: Vec<(&str, Timestamp)> = lacking
        .iter()
        .filter_map(|node| Some((*node, restarts_until(facts, node)?)))
        .collect();
    if restarting.len() == lacking.len() {
        let until = restarting.iter().map(|(_, until)| *until).min();
        let nodes: Vec<&str> = restarting.iter().map(|(node, _)| *node).collect();
        return Local::Hint(
            format!(
                "The Service's internalTrafficPolicy is Local, and its Pod on {} may be restarting: {} cannot use the Service until it is ready.",
                text::nodes(&nodes),
                names(&outside)
            ),
            until,
        );
    }
    let remediation = format!(
        "Run an endpoint on every node that has clients (for example with a DaemonSet), or let traffic go to endpoints on other nodes: `kubectl -n {} patch service {} --type=merge -p '{{\"spec\":{{\"internalTrafficPolicy\":\"Cluster\"}}}}'`.",
        quoted(&facts.namespace),
        quoted(service.name())
    );
    let message = format!("The Service's internalTrafficPolicy is Local, and {who}.");
    Local::Lacking(if inside.is_empty() {
        Finding::nothing_works(Reason::NoLocalEndpoints, message, remediation)
    } else {
        Finding::part_fails(Reason::NoLocalEndpoints, message, remediation)
    })
}

fn node(pod: &Pod) -> &str {
    pod.spec.node_name.as_deref().unwrap_or_default()
}

fn names(pods: &[&Pod]) -> String {
    let names: Vec<&str> = pods.iter().map(|p| p.name()).collect();
    let noun = if names.len() == 1 { "Pod" } else { "Pods" };
    format!("{noun} {}", text::list(&names))
}

fn who_lacks(nodes: &BTreeSet<&str>, pods: &[&Pod]) -> String {
    let nodes: Vec<&str> = nodes.iter().copied().collect();
    let have = match nodes.as_slice() {
        [only] => format!("node {only} has no endpoint of it"),
        _ => format!("none of the nodes {} has an endpoint of it", text::list(&nodes)),
    };
    format!("{have}, so {} there cannot use the Service", names(pods))
}

/// Until when a node's own Pod may be on its way: while it starts or ends there, and where a DaemonSet creates the
/// next Pod once the last one is gone, for a while after the endpoints changed.
fn restarts_until(facts: &Facts, node_name: &str) -> Option<Timestamp> {
    let pods = pods_behind(facts);
    let soon = |time: Timestamp| later(time, SLICE_GRACE);
    let own = pods.iter().filter(|p| node(p) == node_name).filter_map(|pod| {
        if let Some(ends) = &pod.metadata.deletion_timestamp {
            return Some(soon(ends.0));
        }
        match state::trouble(facts, pod) {
            Trouble::Starting(start) if !pod.is_ready() => Some(start.until),
            _ => None,
        }
    });
    let has_daemon_set = pods.iter().any(|pod| is_of_a_daemon_set(pod));
    let after_change = facts.endpoints_settle_at(SLICE_GRACE).filter(|_| has_daemon_set);
    own.chain(after_change).filter(|until| *until > facts.now).max()
}

fn is_of_a_daemon_set(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet")
}
