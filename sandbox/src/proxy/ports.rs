//! What a Service port needs on a node, as kube-proxy chooses it.
//!
//! Source: kube-proxy's `newServicePortInfo`, `CategorizeEndpoints`, `topologyModeFromHints` and the head of
//! `syncProxyRules`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::{Cluster, Family, NodeView, Protocol, ServicePortName};

/// Labels by which a Service is another proxy's, or to be taken for headless.
const NOT_OURS: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// spec.sessionAffinityConfig.clientIP.timeoutSeconds where it is not set.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// One port of a Service in one IP family.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: ServicePortName,
    pub cluster_ip: IpAddr,
    pub port: u16,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    pub source_ranges: Vec<IpNet>,
    pub node_port: Option<u16>,
    pub health_check_node_port: Option<u16>,
    /// How long a client stays with its endpoint, in seconds.
    pub affinity: Option<i32>,
    pub internal_local: bool,
    pub external_local: bool,
    /// Endpoints of the cluster policy, if anything uses it; in kube-proxy's order, as all of them.
    pub cluster: Vec<SocketAddr>,
    /// Endpoints of the Local policy, if anything uses it.
    pub local: Vec<SocketAddr>,
    /// All that rules on this node lead to.
    pub reachable: Vec<SocketAddr>,
    /// Those of them that are on this node.
    pub here: Vec<SocketAddr>,
    /// Whether there are usable endpoints, on whatever node.
    pub has_endpoints: bool,
}

impl Port {
    /// Whether it is reached from outside the cluster.
    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.load_balancer_ips.is_empty() || !self.external_ips.is_empty()
    }

    /// Whether traffic to the cluster IP has somewhere to go.
    pub fn has_internal_endpoints(&self) -> bool {
        self.has_endpoints && !(self.internal_local && self.local.is_empty())
    }

    /// Whether traffic from outside the cluster has somewhere to go.
    pub fn has_external_endpoints(&self) -> bool {
        self.has_endpoints && !(self.external_local && self.local.is_empty())
    }

    /// Addresses that load balancers may send to when the node is among the sources they let in. A node
    /// that has a load balancer's address itself sends from that address.
    pub fn sources_of_node(&self, node_ip: Option<IpAddr>) -> &[IpAddr] {
        let is_let_in = node_ip.is_some_and(|ip| self.source_ranges.iter().any(|range| range.contains(&ip)));
        if is_let_in { &self.load_balancer_ips } else { &[] }
    }
}

/// All Service ports that a node has rules for in an IP family, sorted by their names.
pub fn ports(cluster: &Cluster, node: &NodeView, family: Family) -> Vec<Port> {
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in &cluster.slices {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            slices.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut ports: Vec<Port> = cluster
        .services
        .iter()
        .filter_map(|service| Some((service, cluster_ip(service, family)?)))
        .flat_map(|(service, cluster_ip)| {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let slices = slices.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
            let specs = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            specs.filter_map(move |spec| port(service, spec, cluster_ip, slices, node))
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

/// The Service's address in a family; None where kube-proxy has nothing to do with it.
fn cluster_ip(service: &Service, family: Family) -> Option<IpAddr> {
    let spec = service.spec.as_ref()?;
    let labels = service.metadata.labels.as_ref();
    if spec.type_.as_deref() == Some("ExternalName")
        || labels.is_some_and(|labels| NOT_OURS.iter().any(|label| labels.contains_key(*label)))
    {
        return None;
    }
    // clusterIPs came with dual stack; clusterIP is the first of them.
    let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    addresses(ips, family).into_iter().next()
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>, family: Family) -> Vec<IpAddr> {
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .filter(|ip| Family::of(*ip) == family)
        .collect()
}

fn number(port: Option<i32>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
}

fn port(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    slices: &[&EndpointSlice],
    node: &NodeView,
) -> Option<Port> {
    let family = Family::of(cluster_ip);
    let spec = service.spec.as_ref()?;
    let name = ServicePortName {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        service: service.metadata.name.clone().unwrap_or_default(),
        port: port.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
    };
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    // With ipMode Proxy the load balancer delivers to the node; its own address is not for nodes to answer.
    let ingress = balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let endpoints = Endpoints::of(&name, slices, family);
    let externally_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let mut result = Port {
        name,
        cluster_ip,
        port: number(Some(port.port))?,
        external_ips: addresses(spec.external_ips.iter().flatten(), family),
        load_balancer_ips: addresses(ingress.filter_map(|ingress| ingress.ip.as_ref()), family),
        source_ranges: ranges
            .filter_map(|range| range.trim().parse::<IpNet>().ok())
            .filter(|range| Family::of(range.addr()) == family)
            .map(|range| range.trunc())
            .collect(),
        node_port: number(port.node_port),
        health_check_node_port: number(spec.health_check_node_port).filter(|_| externally_local),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref();
            let client_ip = config.and_then(|config| config.client_ip.as_ref());
            client_ip
                .and_then(|client_ip| client_ip.timeout_seconds)
                .unwrap_or(DEFAULT_AFFINITY_SECONDS)
        }),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: false,
        cluster: Vec::new(),
        local: Vec::new(),
        reachable: Vec::new(),
        here: Vec::new(),
        has_endpoints: false,
    };
    result.external_local = externally_local && result.is_external();
    endpoints.choose(&mut result, node);
    Some(result)
}

/// The endpoints of a Service port, by address.
struct Endpoints<'a>(BTreeMap<SocketAddr, &'a Endpoint>);

impl<'a> Endpoints<'a> {
    fn of(name: &ServicePortName, slices: &[&'a EndpointSlice], family: Family) -> Self {
        let mut all: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
        for slice in slices {
            for port in slice.ports.iter().flatten() {
                let is_the_port = port.name.as_deref().unwrap_or_default() == name.port
                    && Protocol::parse(port.protocol.as_deref()) == Some(name.protocol);
                let Some(number) = number(port.port).filter(|_| is_the_port) else {
                    continue;
                };
                for endpoint in slice.endpoints.iter().flatten() {
                    // kube-proxy uses the first address only.
                    let first = endpoint.addresses.first().map(std::slice::from_ref);
                    for ip in addresses(first.unwrap_or_default(), family) {
                        // An address can stand in two slices for a moment; the one that is ready counts.
                        let known = all.entry(SocketAddr::new(ip, number)).or_insert(endpoint);
                        if !is_ready(known) && is_ready(endpoint) {
                            *known = endpoint;
                        }
                    }
                }
            }
        }
        Self(all)
    }

    /// The addresses of some of them. kube-proxy sorts them as text.
    fn addresses(&self, wanted: impl Fn(&Endpoint) -> bool) -> Vec<SocketAddr> {
        let wanted = self.0.iter().filter(|(_, endpoint)| wanted(endpoint));
        let mut addresses: Vec<SocketAddr> = wanted.map(|(address, _)| *address).collect();
        addresses.sort_by_cached_key(ToString::to_string);
        addresses
    }

    /// Chooses the endpoints for the policies that the port uses.
    fn choose(&self, port: &mut Port, node: &NodeView) {
        let is_here = |endpoint: &Endpoint| endpoint.node_name.as_deref() == Some(&node.name);
        let or_else = |first: Vec<SocketAddr>, second: &dyn Fn() -> Vec<SocketAddr>| {
            if first.is_empty() { second() } else { first }
        };
        // Pods of the cluster are let past a Local policy for traffic from outside: to the cluster's endpoints.
        let uses_cluster = !port.internal_local || port.is_external();
        let uses_local = port.internal_local || port.external_local;
        if uses_cluster {
            let hints = Hints::of(self, node);
            port.cluster = or_else(self.addresses(|e| is_ready(e) && hints.allow(e, node)), &|| {
                self.addresses(is_leaving)
            });
        }
        if uses_local {
            port.local = or_else(self.addresses(|e| is_here(e) && is_ready(e)), &|| {
                self.addresses(|e| is_here(e) && is_leaving(e))
            });
        }
        port.has_endpoints =
            !port.cluster.is_empty() || (uses_local && self.0.values().any(|e| is_ready(e) || is_leaving(e)));
        let reachable: BTreeSet<SocketAddr> = port.cluster.iter().chain(&port.local).copied().collect();
        port.reachable = reachable.into_iter().collect();
        port.reachable.sort_by_cached_key(ToString::to_string);
        port.here = port.reachable.clone();
        port.here
            .retain(|address| self.0.get(address).is_some_and(|endpoint| is_here(endpoint)));
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// Whether it is being shut down and still takes traffic.
fn is_leaving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let serving = conditions.and_then(|conditions| conditions.serving);
    let terminating = conditions.and_then(|conditions| conditions.terminating);
    serving.unwrap_or_else(|| is_ready(endpoint)) && terminating.unwrap_or(false)
}

/// How hints narrow the endpoints of the cluster policy.
enum Hints {
    /// To those meant for the node.
    Node,
    /// To those meant for the node's zone.
    Zone,
    /// Not at all.
    None,
}

impl Hints {
    fn of(endpoints: &Endpoints<'_>, node: &NodeView) -> Self {
        // Hints count only if every ready endpoint has one, and one of them names us.
        let count = |names: fn(&Endpoint) -> Vec<&str>, me: &str| {
            let ready = || endpoints.0.values().filter(|e| is_ready(e)).map(|e| names(e));
            ready().all(|names| !names.is_empty()) && ready().any(|names| names.contains(&me))
        };
        if count(hinted_nodes, &node.name) {
            Self::Node
        } else if node.zone.as_ref().is_some_and(|zone| count(hinted_zones, zone)) {
            Self::Zone
        } else {
            Self::None
        }
    }

    fn allow(&self, endpoint: &Endpoint, node: &NodeView) -> bool {
        match self {
            Self::Node => hinted_nodes(endpoint).contains(&node.name.as_str()),
            Self::Zone => hinted_zones(endpoint)
                .iter()
                .any(|zone| node.zone.as_deref() == Some(*zone)),
            Self::None => true,
        }
    }
}

fn hinted_nodes(endpoint: &Endpoint) -> Vec<&str> {
    let hints = endpoint
        .hints
        .iter()
        .flat_map(|hints| hints.for_nodes.iter().flatten());
    hints.map(|node| node.name.as_str()).collect()
}

fn hinted_zones(endpoint: &Endpoint) -> Vec<&str> {
    let hints = endpoint
        .hints
        .iter()
        .flat_map(|hints| hints.for_zones.iter().flatten());
    hints.map(|zone| zone.name.as_str()).collect()
}
