//! The Service's endpoints as they are today, by address and port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use crate::{Facts, pods::behind_endpoints::EndpointPods};
use svcdiag_api::PortProtocol;
use svcdiag_objects::{IpFamily, Object, Pod, Service, ServicePort};

/// An endpoint that is ready today.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Its node.
    pub node: Option<&'a str>,
    /// The Pod behind it.
    pub pod: Option<&'a Pod>,
}

impl Target<'_> {
    pub(crate) fn is_host_network(&self) -> bool {
        self.pod.is_some_and(Pod::is_host_network)
    }
}

/// The ready endpoints of some ports.
pub(crate) fn targets<'a>(
    facts: &'a Facts,
    ports: &BTreeMap<PortProtocol, &ServicePort>,
) -> BTreeMap<SocketAddr, Target<'a>> {
    let pods = EndpointPods::of(facts);
    let mut targets: BTreeMap<SocketAddr, Target<'a>> = BTreeMap::new();
    for slice in &facts.slices {
        let numbers = slice.ports.iter().filter(|p| {
            let is_judged = |port: &&ServicePort| p.name() == port.name() && p.protocol == port.protocol;
            ports.values().any(is_judged)
        });
        let numbers: Vec<u16> = numbers.filter_map(|p| u16::try_from(p.port?).ok()).collect();
        for (ip, endpoint) in slice.ready() {
            let target = Target {
                node: endpoint.node_name.as_deref(),
                pod: pods.behind(endpoint),
            };
            for number in &numbers {
                let known = targets.entry(SocketAddr::new(ip, *number)).or_insert(target);
                // Two slices may differ in what they know of it; which comes first means nothing.
                if (target.node, target.pod.map(|p| p.name())) > (known.node, known.pod.map(|p| p.name())) {
                    *known = target;
                }
            }
        }
    }
    targets
}

/// Whether an address is one of the Service's own.
pub(crate) fn is_address_of(service: &Service, ip: IpAddr) -> bool {
    service.cluster_ips().iter().any(|own| own.parse() == Ok(ip))
}

/// Whether a node has an address of an IP family in the cluster; so it is where nobody knows.
pub(crate) fn node_has_family(facts: &Facts, node: &str, family: IpFamily) -> bool {
    let ips = facts
        .cluster_node(node)
        .map(|n| n.internal_ips())
        .unwrap_or_default();
    ips.is_empty() || ips.iter().any(|ip| IpFamily::of(*ip) == family)
}

/// A Pod as namespace/name.
pub(crate) fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}
