//! Which Pod stands behind an endpoint.
//!
//! The endpoints controller writes the Pod's UID into an endpoint. Others who write endpoints (a leader
//! election, an operator, somebody by hand, a tool that redacts objects) may name the Pod only, or nothing
//! but its address.

use std::collections::BTreeMap;

use crate::Facts;
use svcdiag_objects::{Endpoint, Object, Pod};

/// The Pods of the Service's namespace, as endpoints name them.
pub(crate) struct EndpointPods<'a> {
    by_uid: BTreeMap<&'a str, &'a Pod>,
    by_name: BTreeMap<&'a str, &'a Pod>,
    by_address: BTreeMap<&'a str, &'a Pod>,
}

impl<'a> EndpointPods<'a> {
    pub(crate) fn of(facts: &'a Facts) -> Self {
        let mut pods: Vec<&Pod> = facts.pods.iter().map(AsRef::as_ref).collect();
        // Files may hold a Pod twice; which comes first means nothing.
        pods.sort_by(|a, b| (a.name(), &a.metadata.uid).cmp(&(b.name(), &b.metadata.uid)));
        let uids = pods.iter().filter_map(|p| Some((p.metadata.uid.as_deref()?, *p)));
        // An address of a node is that of many Pods, and one of a Pod that has ended may be another's by now.
        let owns = |p: &&&Pod| !p.is_host_network() && !p.has_ended();
        let addresses = pods.iter().filter(owns).flat_map(|p| p.ips().map(|ip| (ip, *p)));
        Self {
            by_uid: uids.collect(),
            by_name: pods.iter().map(|p| (p.name(), *p)).collect(),
            by_address: addresses.collect(),
        }
    }

    /// The Pod behind an endpoint, if it is one of the namespace.
    pub(crate) fn behind(&self, endpoint: &Endpoint) -> Option<&'a Pod> {
        let Some(target) = &endpoint.target_ref else {
            let address = endpoint.addresses.first()?;
            return self.by_address.get(address.as_str()).copied();
        };
        if target.kind.as_deref().is_some_and(|kind| kind != "Pod") {
            return None;
        }
        if let Some(uid) = &target.uid {
            return self.by_uid.get(uid.as_str()).copied();
        }
        let pod = *self.by_name.get(target.name.as_deref()?)?;
        // A Pod that was made again under its name is another one.
        let has_address = pod.ips().any(|ip| endpoint.addresses.iter().any(|a| a == ip));
        has_address.then_some(pod)
    }
}

/// The Pods behind the Service: those that it selects, else those that its EndpointSlices name.
pub(crate) fn pods_behind(facts: &Facts) -> Vec<&Pod> {
    if facts.service.as_deref().is_some_and(|s| s.has_selector()) {
        return facts.selected_pods();
    }
    let known = EndpointPods::of(facts);
    let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    let pods: BTreeMap<&str, &Pod> = endpoints
        .filter_map(|e| known.behind(e))
        .map(|p| (p.name(), p))
        .collect();
    pods.into_values().collect()
}
