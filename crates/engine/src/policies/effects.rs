//! What policies do to dials and look-ups, for the stages that judge these: whose failure proves nothing.

use crate::{
    Facts,
    clients::Role,
    evidence::targets,
    pods::behind_endpoints::EndpointPods,
    policies::{
        rules::{self, Direction},
        view::{Client, PolicyView, Routes},
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
    free(facts, &[pod], Routes::pass).is_empty()
}

/// Those of some Pods that the policies keep from no endpoint at a port that clients use. The others are no clients:
/// that they do not get through is what somebody wanted.
pub(crate) fn admitted<'a>(facts: &'a Facts, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    free(facts, pods, |routes| routes.denied == 0)
}

/// Those of some Pods whose routes at all ports are free.
fn free<'a>(facts: &'a Facts, pods: &[&'a Pod], are_free: fn(&Routes) -> bool) -> Vec<&'a Pod> {
    let Some(service) = facts.service.as_deref() else {
        return pods.to_vec();
    };
    let ports = ports::judged(facts, service);
    let view = PolicyView::new(facts, service, pods, Role::Candidate);
    let clients = view.clients.iter();
    let is_free = |client: &&Client<'a>| ports.iter().all(|port| are_free(&view.routes(client, port)));
    clients.filter(is_free).map(|client| client.pod).collect()
}
