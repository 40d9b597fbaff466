//! What is behind a Service, as NetworkPolicies see it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Facts,
    pods::behind_endpoints::{EndpointPods, pods_behind},
    policies::rules::{self, Direction},
};
use svcdiag_objects::{Labels, NetworkPolicy, Object, Pod, Service};

/// Pods behind the Service that no policy and no port tells apart, or addresses that are no Pods.
pub(crate) struct Target<'a> {
    pub pod: Option<&'a Pod>,
    pub addresses: Vec<String>,
    /// How many Pods it stands for.
    pub pods: usize,
    /// The node of all of them, where it is one.
    pub node: Option<&'a str>,
    pub isolating: Vec<&'a NetworkPolicy>,
}

/// What policies can tell Pods apart by: labels, whether they are on the host's network, and the
/// number of each port.
type LikePods<'a> = (&'a Labels, bool, Vec<Option<i32>>);

/// The Pods behind the Service, those with the same labels and ports taken together, and the addresses in its
/// EndpointSlices that are those of no Pod.
pub(crate) fn targets<'a>(
    facts: &'a Facts,
    service: &'a Service,
    policies: &[&'a NetworkPolicy],
) -> Vec<Target<'a>> {
    let mut groups: BTreeMap<LikePods, Vec<&Pod>> = BTreeMap::new();
    for pod in serving(facts, service) {
        let numbers = service
            .spec
            .ports
            .iter()
            .map(|p| pod.resolve_port(&p.target_port(), &p.protocol))
            .collect();
        groups
            .entry((pod.labels(), pod.is_host_network(), numbers))
            .or_default()
            .push(pod);
    }
    let of_pods = groups.into_values().filter_map(|pods| {
        let pod = *pods.first()?;
        Some(Target {
            pod: Some(pod),
            addresses: Vec::new(),
            pods: pods.len(),
            node: only_node(&pods),
            isolating: rules::isolating(policies, pod, Direction::Ingress),
        })
    });
    let foreign = if service.has_selector() {
        BTreeSet::new()
    } else {
        foreign_addresses(facts)
    };
    let of_addresses = foreign.into_iter().map(|address| Target {
        pod: None,
        addresses: vec![address.to_owned()],
        pods: 0,
        node: None,
        isolating: Vec::new(),
    });
    of_pods.chain(of_addresses).collect()
}

/// The Pods that take the Service's traffic; those that would if they were ready, where none is.
fn serving<'a>(facts: &'a Facts, service: &Service) -> Vec<&'a Pod> {
    let pods = pods_behind(facts).into_iter().filter(|p| !p.is_terminating());
    let (ready, others): (Vec<&Pod>, Vec<&Pod>) =
        pods.partition(|p| p.is_ready() || service.publishes_not_ready());
    if ready.is_empty() { others } else { ready }
}

fn only_node<'a>(pods: &[&'a Pod]) -> Option<&'a str> {
    let nodes: BTreeSet<Option<&str>> = pods.iter().map(|p| p.spec.node_name.as_deref()).collect();
    nodes.first().copied().flatten().filter(|_| nodes.len() == 1)
}

fn foreign_addresses(facts: &Facts) -> BTreeSet<&str> {
    let known = EndpointPods::of(facts);
    let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    let foreign = endpoints.filter(|e| known.behind(e).is_none());
    foreign
        .filter_map(|e| e.addresses.first().map(String::as_str))
        .collect()
}
