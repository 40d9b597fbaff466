//! The Pods behind a Service as NetworkPolicies see them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Facts,
    policy::{self, Direction},
};
use crate::objects::{Labels, NetworkPolicy, Object, Pod, Service};

/// Pods behind the Service that no policy and no port tells apart, or addresses that are no Pods.
pub(super) struct Target<'a> {
    pub pod: Option<&'a Pod>,
    pub addresses: Vec<String>,
    /// How many Pods it stands for.
    pub pods: usize,
    pub isolating: Vec<&'a NetworkPolicy>,
}

/// What policies can tell Pods apart by: labels, whether they are on the host's network, and the
/// number of each port.
type LikePods<'a> = (&'a Labels, bool, Vec<Option<i32>>);

/// The Pods behind the Service, those with the same labels and ports taken together; without a
/// selector the addresses of the EndpointSlices.
pub(super) fn targets<'a>(
    facts: &'a Facts,
    service: &'a Service,
    policies: &[&'a NetworkPolicy],
) -> Vec<Target<'a>> {
    if !service.has_selector() {
        let addresses = facts
            .slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter_map(|e| e.addresses.first());
        let addresses: BTreeSet<&String> = addresses.collect();
        let target = |a: &String| Target {
            pod: None,
            addresses: vec![a.clone()],
            pods: 0,
            isolating: Vec::new(),
        };
        return addresses.into_iter().map(target).collect();
    }
    let mut groups: BTreeMap<LikePods, Vec<&Pod>> = BTreeMap::new();
    for pod in facts.selected_pods().into_iter().filter(|p| !p.is_terminating()) {
        let numbers = service
            .spec
            .ports
            .iter()
            .map(|p| pod.resolve_port(&p.target_port(), p.protocol()))
            .collect();
        groups
            .entry((pod.labels(), pod.is_host_network(), numbers))
            .or_default()
            .push(pod);
    }
    let target = |pods: Vec<&'a Pod>| {
        let pod = *pods.first()?;
        let isolating = policy::isolating(policies, pod, Direction::Ingress);
        Some(Target {
            pod: Some(pod),
            addresses: Vec::new(),
            pods: pods.len(),
            isolating,
        })
    };
    groups.into_values().filter_map(target).collect()
}
