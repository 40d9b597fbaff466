//! What becomes of the packets to a Service port on a node.
//!
//! Source: kube-proxy's `NewServiceChangeTracker`, `EndpointSliceCache`, `CategorizeEndpoints` and
//! `topologyModeFromHints`, and what `syncProxyRules` of both proxiers derives from them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as ApiPort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Cluster, IpFamily, NodeView, Protocol, ServicePortName};

/// Labels of what kube-proxy leaves to others, on Services and on EndpointSlices.
const LABELS_OF_OTHERS: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

/// How long a client stays with its endpoint where the Service does not say so.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// A Service port in one IP family.
#[derive(Clone, Debug)]
pub(super) struct ServicePort {
    pub name: ServicePortName,
    pub cluster_ip: IpAddr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub health_check_node_port: Option<u16>,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that leave the destination of packets as it is.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Sources that load balancer addresses answer to; all when empty.
    pub source_ranges: Vec<IpNet>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity: Option<i32>,
    pub internally_local: bool,
    pub externally_local: bool,
    pub endpoints: Endpoints,
}

/// Endpoints of a Service port, in the order in which kube-proxy writes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    /// Those of the cluster policy.
    pub cluster: Vec<SocketAddr>,
    /// Those of the Local policy.
    pub local: Vec<SocketAddr>,
    /// Those of either.
    pub reachable: Vec<SocketAddr>,
    /// Those of either that are on this node.
    pub here: Vec<SocketAddr>,
    /// Whether there is one on any node.
    pub exist: bool,
}

/// What happens to packets that no endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no endpoint at all.
    Reject,
    /// The Local policy finds none on this node.
    Drop,
}

impl ServicePort {
    /// Whether there are other ways to the Service than its ClusterIP.
    fn is_externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.load_balancer_ips.is_empty() || !self.external_ips.is_empty()
    }

    /// Whether it takes the endpoints of the cluster policy: under an external Local policy, too, for
    /// packets from the node and its Pods.
    fn asks_for_cluster(&self) -> bool {
        !self.internally_local || self.is_externally_accessible()
    }

    fn asks_for_local(&self) -> bool {
        self.internally_local || (self.externally_local && self.is_externally_accessible())
    }

    fn refusal(&self, local: bool) -> Option<Refusal> {
        if !self.endpoints.exist {
            Some(Refusal::Reject)
        } else if local && self.endpoints.local.is_empty() {
            Some(Refusal::Drop)
        } else {
            None
        }
    }

    /// How packets to the ClusterIP are refused, if they are.
    pub(super) fn internal_refusal(&self) -> Option<Refusal> {
        self.refusal(self.internally_local)
    }

    /// How packets from outside are refused, if they are.
    pub(super) fn external_refusal(&self) -> Option<Refusal> {
        self.refusal(self.externally_local)
    }

    /// Whether it has a chain for the endpoints of the cluster policy.
    pub(super) fn uses_cluster_chain(&self) -> bool {
        self.asks_for_cluster() && !self.endpoints.cluster.is_empty()
    }

    /// Whether it has a chain for the endpoints of the Local policy.
    pub(super) fn uses_local_chain(&self) -> bool {
        self.asks_for_local() && !self.endpoints.local.is_empty()
    }

    /// Whether it has a chain for packets to its external addresses. It has one though a Local policy finds
    /// no endpoint on this node: packets from the node and its Pods go to the others.
    pub(super) fn uses_external_chain(&self) -> bool {
        self.endpoints.exist && self.is_externally_accessible()
    }

    /// Whether the sources of packets to its load balancer addresses are checked.
    pub(super) fn is_guarded(&self) -> bool {
        !self.load_balancer_ips.is_empty() && !self.source_ranges.is_empty()
    }

    /// Sources that are let through. Where the node is one of them, so are the load balancer addresses:
    /// these can be the node's own, and its packets to them then come from there.
    pub(super) fn admitted(&self, node: &NodeView) -> Vec<IpNet> {
        let own = IpFamily::of(self.cluster_ip).select(&node.ips).next();
        let mut sources = self.source_ranges.clone();
        if own.is_some_and(|ip| self.source_ranges.iter().any(|net| net.contains(&ip))) {
            sources.extend(self.load_balancer_ips.iter().map(|ip| IpNet::from(*ip)));
        }
        sources
    }
}

/// The Service ports that kube-proxy handles in a family.
pub(super) fn ports(cluster: &Cluster, node: &NodeView, family: IpFamily) -> Vec<ServicePort> {
    let slices = SlicesByService::of(cluster, family);
    let mut ports: Vec<_> = cluster
        .services
        .iter()
        .filter(|service| !is_of_others(&service.metadata))
        .filter_map(|service| Some((service, service.spec.as_ref()?)))
        .filter_map(|(service, spec)| {
            let cluster_ip = cluster_ips(service)
                .into_iter()
                .find(|ip| IpFamily::of(*ip) == family)?;
            Some((service, spec, cluster_ip))
        })
        .flat_map(|(service, spec, cluster_ip)| {
            let slices = slices.of_service(&service.metadata);
            spec.ports
                .iter()
                .flatten()
                .filter_map(move |port| service_port(service, spec, port, cluster_ip, slices, node))
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

fn is_of_others(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    LABELS_OF_OTHERS
        .iter()
        .any(|label| labels.is_some_and(|l| l.contains_key(*label)))
}

/// The ClusterIPs of a Service; none where it is headless or of type ExternalName.
pub(super) fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut ips = parse(spec.cluster_ips.iter().flatten());
    if ips.is_empty() {
        ips = parse(&spec.cluster_ip);
    }
    ips
}

fn parse<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn number(port: Option<i32>) -> Option<u16> {
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
}

fn service_port(
    service: &Service,
    spec: &ServiceSpec,
    port: &ApiPort,
    cluster_ip: IpAddr,
    slices: &[&EndpointSlice],
    node: &NodeView,
) -> Option<ServicePort> {
    let family = IpFamily::of(cluster_ip);
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref());
    let source_ranges = spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .filter_map(|range| range.trim().parse::<IpNet>().ok())
        .map(|net| net.trunc())
        .filter(|net| IpFamily::of(net.addr()) == family);
    let is_balanced_locally =
        spec.type_.as_deref() == Some("LoadBalancer") && is_local(&spec.external_traffic_policy);
    let mut service_port = ServicePort {
        name: ServicePortName {
            namespace: service.metadata.namespace.clone()?,
            service: service.metadata.name.clone()?,
            port: port.name.clone().unwrap_or_default(),
            protocol: Protocol::of(port.protocol.as_deref())?,
        },
        cluster_ip,
        port: number(Some(port.port))?,
        node_port: number(port.node_port),
        health_check_node_port: number(spec.health_check_node_port).filter(|_| is_balanced_locally),
        external_ips: family
            .select(&parse(spec.external_ips.iter().flatten()))
            .collect(),
        load_balancer_ips: family.select(&parse(ingress)).collect(),
        source_ranges: source_ranges.collect(),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            spec.session_affinity_config
                .as_ref()
                .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
                .unwrap_or(DEFAULT_AFFINITY_SECONDS)
        }),
        internally_local: is_local(&spec.internal_traffic_policy),
        externally_local: is_local(&spec.external_traffic_policy),
        endpoints: Endpoints::default(),
    };
    service_port.endpoints = categorize(&service_port, slices, node);
    Some(service_port)
}

/// EndpointSlices of one family by namespace and Service.
struct SlicesByService<'a>(BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>);

impl<'a> SlicesByService<'a> {
    fn of(cluster: &'a Cluster, family: IpFamily) -> Self {
        let address_type = match family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in &cluster.slices {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|l| l.get("kubernetes.io/service-name"));
            if let (Some(namespace), Some(service)) = (&slice.metadata.namespace, service)
                && slice.address_type == address_type
                && !is_of_others(&slice.metadata)
            {
                let key = (namespace.as_str(), service.as_str());
                by_service.entry(key).or_default().push(slice);
            }
        }
        Self(by_service)
    }

    fn of_service<'s>(&'s self, service: &'s ObjectMeta) -> &'s [&'a EndpointSlice] {
        let key = (
            service.namespace.as_deref().unwrap_or_default(),
            service.name.as_deref().unwrap_or_default(),
        );
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// Whether an endpoint is on its way out, but still takes traffic.
fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .is_some_and(|c| c.serving.unwrap_or(true) && c.terminating.unwrap_or(false))
}

fn categorize(port: &ServicePort, slices: &[&EndpointSlice], node: &NodeView) -> Endpoints {
    let all = endpoints(port, slices);
    let choose = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        let wanted = all.values().filter(|(_, endpoint)| wanted(endpoint));
        wanted.map(|(address, _)| *address).collect()
    };
    let or_else = |first: Vec<SocketAddr>, second: &dyn Fn(&Endpoint) -> bool| {
        if first.is_empty() { choose(second) } else { first }
    };
    let is_here = |e: &Endpoint| e.node_name.as_ref() == Some(&node.name);
    let ready: Vec<&Endpoint> = all.values().map(|(_, e)| *e).filter(|e| is_ready(e)).collect();
    let hints = Hints::of(&ready, node);

    let mut chosen = Endpoints::default();
    if port.asks_for_cluster() {
        chosen.cluster = or_else(choose(&|e| is_ready(e) && hints.allow(e, node)), &is_leaving);
        chosen.exist = !chosen.cluster.is_empty();
    }
    if port.asks_for_local() {
        chosen.local = or_else(choose(&|e| is_here(e) && is_ready(e)), &|e| {
            is_here(e) && is_leaving(e)
        });
        chosen.exist = all.values().any(|(_, e)| is_ready(e) || is_leaving(e));
    }
    let in_order = all.values().map(|(address, endpoint)| (*address, *endpoint));
    for (address, endpoint) in in_order {
        if chosen.cluster.contains(&address) || chosen.local.contains(&address) {
            chosen.reachable.push(address);
            if is_here(endpoint) {
                chosen.here.push(address);
            }
        }
    }
    chosen
}

/// The endpoints of a port, by the text that kube-proxy sorts them by.
fn endpoints<'a>(
    port: &ServicePort,
    slices: &[&'a EndpointSlice],
) -> BTreeMap<String, (SocketAddr, &'a Endpoint)> {
    let mut by_address: BTreeMap<String, (SocketAddr, &Endpoint)> = BTreeMap::new();
    for slice in slices {
        let of_port = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port.name.port
                && Protocol::of(p.protocol.as_deref()) == Some(port.name.protocol)
        });
        for number in of_port.filter_map(|p| number(p.port)) {
            for endpoint in slice.endpoints.iter().flatten() {
                // kube-proxy uses the first address only.
                let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
                let Some(address) = address.filter(|a| a.is_ipv4() == port.cluster_ip.is_ipv4()) else {
                    continue;
                };
                let address = SocketAddr::new(address, number);
                // An address can stand in two slices for a moment; the one that is ready counts.
                let known = by_address
                    .entry(address.to_string())
                    .or_insert((address, endpoint));
                if !is_ready(known.1) && is_ready(endpoint) {
                    known.1 = endpoint;
                }
            }
        }
    }
    by_address
}

/// How topology hints narrow the endpoints of the cluster policy.
enum Hints {
    /// To those meant for the node.
    Node,
    /// To those meant for the node's zone.
    Zone,
    /// Not at all.
    None,
}

impl Hints {
    fn of(ready: &[&Endpoint], node: &NodeView) -> Self {
        let every_and_here = |names: fn(&Endpoint) -> Vec<&str>, me: &str| {
            ready.iter().all(|e| !names(e).is_empty()) && ready.iter().any(|e| names(e).contains(&me))
        };
        let zone = node.zone.as_deref();
        if every_and_here(hinted_nodes, &node.name) {
            Self::Node
        } else if zone.is_some_and(|zone| every_and_here(hinted_zones, zone)) {
            Self::Zone
        } else {
            Self::None
        }
    }

    fn allow(&self, endpoint: &Endpoint, node: &NodeView) -> bool {
        match self {
            Self::Node => hinted_nodes(endpoint).contains(&node.name.as_str()),
            Self::Zone => node
                .zone
                .as_deref()
                .is_some_and(|zone| hinted_zones(endpoint).contains(&zone)),
            Self::None => true,
        }
    }
}

fn hinted_nodes(endpoint: &Endpoint) -> Vec<&str> {
    let hints = endpoint.hints.iter().filter_map(|h| h.for_nodes.as_ref());
    hints.flatten().map(|node| node.name.as_str()).collect()
}

fn hinted_zones(endpoint: &Endpoint) -> Vec<&str> {
    let hints = endpoint.hints.iter().filter_map(|h| h.for_zones.as_ref());
    hints.flatten().map(|zone| zone.name.as_str()).collect()
}
