//! Both ends of the dials as they are today: who dials, and the endpoints and ports that are dialled.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts,
    evidence::{
        dials::{Count, Dials, Failed},
        reports::Reports,
        targets::{Target, key, node_has_family, targets},
    },
};
use svcdiag_api::{Answer, PortProtocol};
use svcdiag_objects::{IpFamily, Object, Pod, Protocol, ServicePort};

/// Containers of service meshes that take the connections of their Pod.
const SIDECARS: [&str; 4] = ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"];

/// Of more endpoints an agent dials a part in each round.
pub(crate) const WINDOW: usize = 50;

/// What the reports are held against.
pub(crate) struct Ends<'a> {
    facts: &'a Facts,
    /// Ready endpoints of the judged ports.
    pub targets: BTreeMap<SocketAddr, Target<'a>>,
    /// The judged ports, as number/protocol.
    ports: BTreeMap<PortProtocol, &'a ServicePort>,
    /// The Pods of the Service's namespace and of the clients', as namespace/name.
    pods: BTreeMap<String, &'a Pod>,
    /// Pods whose connections a proxy takes, as their agents saw it.
    intercepted: BTreeSet<&'a str>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(facts: &'a Facts, judged: &[&'a ServicePort], reports: &Reports<'a>) -> Self {
        let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
        let mut pods: BTreeMap<String, &Pod> = BTreeMap::new();
        for pod in facts.pods.iter().chain(others).map(AsRef::as_ref) {
            match pods.entry(key(pod)) {
                Entry::Vacant(entry) => {
                    entry.insert(pod);
                }
                // Files may hold a Pod twice; which comes first means nothing.
                Entry::Occupied(mut entry) => {
                    let known = *entry.get();
                    if known != pod && format!("{known:?}") < format!("{pod:?}") {
                        entry.insert(pod);
                    }
                }
            }
        }
        let ports = judged.iter().filter_map(|p| Some((p.port_protocol()?, *p)));
        let ports: BTreeMap<PortProtocol, &ServicePort> = ports.collect();
        let intercepted = reports.current.iter().flat_map(|r| &r.facts.intercepted);
        Self {
            facts,
            targets: targets(facts, &ports),
            ports,
            pods,
            intercepted: intercepted.map(String::as_str).collect(),
        }
    }

    /// Whether a judged port can be dialled.
    pub(crate) fn has_ports_to_dial(&self) -> bool {
        self.ports
            .values()
            .any(|p| p.protocol == Protocol::Tcp || p.protocol == Protocol::Udp)
    }

    /// A Pod by its namespace/name.
    pub(crate) fn pod(&self, key: &str) -> Option<&'a Pod> {
        self.pods.get(key).copied()
    }

    /// Whether an endpoint or a known Pod has an address.
    pub(crate) fn has_pod_at(&self, ip: IpAddr) -> bool {
        let is_it = |pod: &&Pod| pod.ips().any(|own| own.parse() == Ok(ip));
        self.targets.keys().any(|endpoint| endpoint.ip() == ip) || self.pods.values().any(is_it)
    }

    /// A judged port by its number/protocol.
    pub(crate) fn service_port(&self, port: PortProtocol) -> Option<&'a ServicePort> {
        self.ports.get(&port).copied()
    }

    /// Whether somebody has an address of an IP family, without which nothing can be dialled in it; so it is
    /// where their addresses are not known.
    pub(super) fn has_family(&self, node: &str, from: Option<&str>, family: IpFamily) -> bool {
        match from {
            Some(key) => {
                let ips = self.pod(key).into_iter().flat_map(Pod::ips);
                let ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
                ips.is_empty() || ips.iter().any(|ip| IpFamily::of(*ip) == family)
            }
            None => node_has_family(self.facts, node, family),
        }
    }

    /// Whether a sidecar takes the connections of a Pod.
    pub(crate) fn has_sidecar(&self, key: &str) -> bool {
        let named = |pod: &Pod| pod.long_running().any(|c| SIDECARS.contains(&c.name.as_str()));
        self.intercepted.contains(key) || self.pod(key).is_some_and(named)
    }

    /// The Pod whose sidecar has reset a connection: that of the endpoint, or where it is not known which one
    /// it was, of the first if all have one.
    pub(crate) fn resets_for_its_mesh(&self, failed: &Failed<'a>) -> Option<&'a str> {
        if failed.answer != Answer::Reset {
            return None;
        }
        let guarded = |target: &Target<'a>| target.pod.filter(|pod| self.has_sidecar(&key(pod)));
        let pod = match &failed.target {
            Some(target) => guarded(target)?,
            None => {
                let pods: Option<Vec<&Pod>> = self.targets.values().map(guarded).collect();
                pods?.first().copied()?
            }
        };
        Some(pod.name())
    }

    /// Whether the one who dialled uses the network of the node.
    pub(super) fn is_of_host(&self, count: &Count<'_>) -> bool {
        count
            .from
            .is_none_or(|key| self.pod(key).is_some_and(Pod::is_host_network))
    }

    /// Whether a round may leave out endpoints, so that nobody can tell which of them answered.
    pub(crate) fn is_in_a_window(&self) -> bool {
        self.targets.len() > WINDOW
    }

    /// Whether those who are counted together have reached an endpoint, dialling it directly.
    pub(crate) fn has_reached(
        &self,
        direct: &Dials<'_>,
        count: &Count<'_>,
        endpoint: SocketAddr,
        target: Target<'_>,
        port: PortProtocol,
    ) -> bool {
        let is_itself = count
            .from
            .and_then(|key| self.pod(key))
            .is_some_and(|pod| pod.ips().any(|ip| ip.parse() == Ok(endpoint.ip())));
        let is_its_refusal =
            |f: &Failed| f.endpoint == Some(endpoint) && f.dial.port == port && f.is_closed_to_datagrams();
        count.succeeded > 0
            && !direct.failures.iter().any(is_its_refusal)
            && count.port == port
            && count.family == IpFamily::of(endpoint.ip())
            && is_of(count, target)
            && !is_itself
            && !direct
                .reported
                .contains(&(count.node, count.from, Some(endpoint)))
    }
}

/// Whether a count is of the dials to endpoints where a target is. Of those on no node files say that they are on
/// another one.
fn is_of(count: &Count<'_>, target: Target<'_>) -> bool {
    match target.node {
        Some(node) => count.same_node == Some(node == count.node),
        None => count.same_node != Some(true),
    }
}
