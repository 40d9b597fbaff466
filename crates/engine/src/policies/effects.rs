//! What policies do to dials and look-ups, for the stages that judge these: whose failure proves nothing.

use crate::{
    Facts,
    clients::Role,
    evidence::targets,
    pods::behind_endpoints::EndpointPods,
    policies::{
        rules::{self, Direction},
        view::{PolicyView, Routes},
    },
    ports,
};
use svcdiag_objects::{NetworkPolicy, Pod};

/// Whether any policy isolates a Pod of the Service against others.
pub(crate) fn is_isolated(facts: &Facts, pod: &Pod) -> bool {
    let policies: Vec<&NetworkPolicy> = facts.policies.iter().map(AsRef::as_ref).collect();
    !rules::isolating(&policies, pod, Direction::Ingress).is_empty()
}

/// Whether policies may keep nodes away from a Pod of the Service: one isolates it, or nobody can tell.
pub(crate) fn may_be_closed_to_nodes(facts: &Facts, pod: Option<&Pod>) -> bool {
    !facts.other_policy_kinds.is_empty()
        || facts.why_unreadable("networkpolicies").is_some()
        || pod.is_some_and(|pod| is_isolated(facts, pod))
}

/// Whether policies may keep nodes away from endpoints, so that what nodes dial proves nothing.
pub fn may_keep_nodes_away(facts: &Facts) -> bool {
    let known = EndpointPods::of(facts);
    let ready = facts.slices.iter().flat_map(|slice| slice.ready());
    let mut pods = ready.filter_map(|(_, endpoint)| known.behind(endpoint));
    may_be_closed_to_nodes(facts, None) || pods.any(|pod| is_isolated(facts, pod))
}

/// Whether policies keep a Pod, as namespace/name, away from DNS.
pub(crate) fn is_cut_off_from_dns(facts: &Facts, key: &str) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
    let pods = facts.pods.iter().chain(others).map(AsRef::as_ref);
    let mut of_key = pods.filter(|pod: &&Pod| targets::key(pod) == key);
    of_key.any(|pod| {
        let view = PolicyView::new(facts, service, &[pod], Role::Candidate);
        view.clients.iter().any(|c| view.dns_access(c).is_some())
    })
}

/// Whether the policies keep a Pod from any endpoint, or may do so for all that can be told.
pub(crate) fn may_be_shut_out(facts: &Facts, pod: &Pod) -> bool {
    is_kept(facts, pod, |routes| !routes.pass())
}

/// Whether the policies keep a Pod from any endpoint at a port that clients use. Such a Pod is no client:
/// that it does not get through is what somebody wanted.
pub(crate) fn shut_out(facts: &Facts, pod: &Pod) -> bool {
    is_kept(facts, pod, |routes| routes.denied > 0)
}

fn is_kept(facts: &Facts, pod: &Pod, is_kept: fn(&Routes) -> bool) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let view = PolicyView::new(facts, service, &[pod], Role::Candidate);
    let ports = ports::judged(facts, service);
    ports
        .iter()
        .any(|port| view.clients.iter().any(|c| is_kept(&view.routes(c, port))))
}
