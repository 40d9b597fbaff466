//! What a node has to hold for a Service, as kube-proxy chooses it.
//!
//! Source: kube-proxy's `CategorizeEndpoints`, `topologyModeFromHints` and the capture part of
//! `syncProxyRules` of the iptables and the nftables proxier.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::{HEADLESS_LABEL, IpFamily, PROXY_NAME_LABEL, Protocol};
use svcdiag_objects::{Endpoint, EndpointSlice, Object, Service, ServicePort};

/// The node whose rules are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vantage<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its zone, by its label topology.kubernetes.io/zone.
    pub zone: Option<&'a str>,
}

/// What a node has to hold for one port of a Service in one IP family.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedPort {
    /// Name of the Service port; empty where it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// IP family.
    pub family: IpFamily,
    /// Addresses and node ports under which the Service is reached.
    pub destinations: Vec<Destination>,
    /// Whether a client stays with its endpoint.
    pub affinity: bool,
    /// Endpoints that rules may lead to: those that serve, wherever they are. What is chosen from them
    /// depends on kube-proxy's version, so that one more than expected is no fault.
    pub serving: BTreeSet<SocketAddr>,
}

/// An address or node port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// What it is.
    pub purpose: Purpose,
    /// The address; None for a node port.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// What becomes of packets from the node itself.
    pub inside: Traffic,
    /// What becomes of packets from outside the cluster, where that is something else.
    pub outside: Option<Traffic>,
    /// The sources that are let in (loadBalancerSourceRanges); all when empty.
    pub source_ranges: Vec<IpNet>,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// spec.clusterIPs.
    ClusterIp,
    /// spec.externalIPs.
    ExternalIp,
    /// status.loadBalancer.ingress.
    LoadBalancerIp,
    /// spec.ports.nodePort.
    NodePort,
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// They go to one of these.
    To(BTreeSet<SocketAddr>),
    /// The sender is told that nobody is there.
    Reject,
    /// They vanish: by its Local policy the Service has no endpoint here.
    Drop,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}/{}", SocketAddr::new(address, self.port), self.protocol),
            None => write!(f, "node port {}/{}", self.port, self.protocol),
        }
    }
}

/// What a node has to hold for a Service; empty where kube-proxy has nothing to do with it.
#[must_use]
pub fn expected(service: &Service, slices: &[&EndpointSlice], vantage: Vantage<'_>) -> Vec<ExpectedPort> {
    if service.labels().contains_key(PROXY_NAME_LABEL) {
        return Vec::new();
    }
    destinations(service, slices, vantage)
}

/// Where the packets to a Service have to go on a node, whoever sees to it; empty where it has no address.
#[must_use]
pub fn destinations(service: &Service, slices: &[&EndpointSlice], vantage: Vantage<'_>) -> Vec<ExpectedPort> {
    if service.is_external_name() || service.is_headless() || service.labels().contains_key(HEADLESS_LABEL) {
        return Vec::new();
    }
    let cluster_ips = addresses(service.cluster_ips());
    IpFamily::ALL
        .iter()
        .filter_map(|&family| {
            let cluster_ip = cluster_ips.iter().copied().find(|a| IpFamily::of(*a) == family)?;
            Some((family, cluster_ip))
        })
        .flat_map(|(family, cluster_ip)| {
            service.spec.ports.iter().filter_map(move |port| {
                let endpoints = Endpoints::of(port, slices, family, vantage);
                expected_port(service, port, cluster_ip, &endpoints)
            })
        })
        .collect()
}

fn expected_port(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    endpoints: &Endpoints,
) -> Option<ExpectedPort> {
    let protocol = port.protocol.known()?;
    let family = IpFamily::of(cluster_ip);
    let number = u16::try_from(port.port).ok()?;
    let node_port = port
        .node_port
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0);
    let load_balancer = service
        .status
        .load_balancer
        .ingress
        .iter()
        .filter(|i| i.is_proxied());
    let load_balancer_ips = addresses(load_balancer.filter_map(|i| i.ip.as_deref()));
    let external_ips = addresses(service.spec.external_ips.iter().map(String::as_str));
    let from_outside = node_port.is_some() || !load_balancer_ips.is_empty() || !external_ips.is_empty();
    let internally_local = service.is_internally_local();
    let externally_local = service.spec.external_traffic_policy.as_deref() == Some("Local");

    // A Service that is reached from outside needs the cluster's endpoints even under Local policies.
    let uses_cluster = !internally_local || from_outside;
    let cluster = if uses_cluster {
        endpoints.cluster.clone()
    } else {
        BTreeSet::new()
    };
    let anywhere = if internally_local || (externally_local && from_outside) {
        !endpoints.serving.is_empty()
    } else {
        !cluster.is_empty()
    };
    let by_policy = |local: bool| match (anywhere, local) {
        (false, _) => Traffic::Reject,
        (true, false) => Traffic::To(cluster.clone()),
        (true, true) if endpoints.local.is_empty() => Traffic::Drop,
        (true, true) => Traffic::To(endpoints.local.clone()),
    };
    let source_ranges: Vec<IpNet> = service
        .spec
        .load_balancer_source_ranges
        .iter()
        .filter_map(|range| range.trim().parse().ok())
        .filter(|net: &IpNet| IpFamily::of(net.addr()) == family)
        .map(|net| net.trunc())
        .collect();
    let destination = |purpose, address, port| Destination {
        purpose,
        address,
        port,
        protocol,
        inside: by_policy(purpose == Purpose::ClusterIp && internally_local),
        outside: (purpose != Purpose::ClusterIp && externally_local).then(|| by_policy(true)),
        source_ranges: match purpose {
            Purpose::LoadBalancerIp => source_ranges.clone(),
            _ => Vec::new(),
        },
    };
    let of_family = |ips: Vec<IpAddr>| ips.into_iter().filter(move |ip| IpFamily::of(*ip) == family);
    let mut destinations = vec![destination(Purpose::ClusterIp, Some(cluster_ip), number)];
    destinations.extend(of_family(external_ips).map(|ip| destination(Purpose::ExternalIp, Some(ip), number)));
    destinations.extend(
        of_family(load_balancer_ips).map(|ip| destination(Purpose::LoadBalancerIp, Some(ip), number)),
    );
    destinations.extend(node_port.map(|port| destination(Purpose::NodePort, None, port)));
    Some(ExpectedPort {
        name: port.name().to_owned(),
        protocol,
        family,
        destinations,
        affinity: service.spec.session_affinity.as_deref() == Some("ClientIP"),
        serving: endpoints.serving.clone(),
    })
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The endpoints of one port in one IP family, sorted as kube-proxy does it.
struct Endpoints {
    /// Those that the cluster policy chooses for the node.
    cluster: BTreeSet<SocketAddr>,
    /// Those that the Local policy chooses for the node.
    local: BTreeSet<SocketAddr>,
    /// All that take traffic or still can.
    serving: BTreeSet<SocketAddr>,
}

impl Endpoints {
    fn of(port: &ServicePort, slices: &[&EndpointSlice], family: IpFamily, vantage: Vantage<'_>) -> Self {
        // An address can stand in two slices for a moment; the one that is ready counts.
        let mut by_address: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
        for slice in slices {
            for slice_port in &slice.ports {
                if slice_port.name() != port.name() || slice_port.protocol != port.protocol {
                    continue;
                }
                let Some(number) = slice_port
                    .port
                    .and_then(|p| u16::try_from(p).ok())
                    .filter(|p| *p > 0)
                else {
                    continue;
                };
                for endpoint in &slice.endpoints {
                    // kube-proxy uses the first address only.
                    let Some(address) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok())
                    else {
                        continue;
                    };
                    if IpFamily::of(address) != family {
                        continue;
                    }
                    let known = by_address
                        .entry(SocketAddr::new(address, number))
                        .or_insert(endpoint);
                    if !known.is_ready() && endpoint.is_ready() {
                        *known = endpoint;
                    }
                }
            }
        }
        let choose = |wanted: &dyn Fn(&Endpoint) -> bool| -> BTreeSet<SocketAddr> {
            by_address
                .iter()
                .filter(|(_, endpoint)| wanted(endpoint))
                .map(|(address, _)| *address)
                .collect()
        };
        let leaving = |e: &Endpoint| e.is_serving() && e.is_terminating();
        let is_here = |e: &Endpoint| e.node_name.as_deref() == Some(vantage.node);
        let or_else = |first: BTreeSet<SocketAddr>, second: BTreeSet<SocketAddr>| {
            if first.is_empty() { second } else { first }
        };

        let ready: Vec<&Endpoint> = by_address.values().copied().filter(|e| e.is_ready()).collect();
        let hints = Hints::of(&ready, vantage);
        let serving = choose(&|e| e.is_ready() || leaving(e));
        Self {
            cluster: or_else(
                choose(&|e| e.is_ready() && hints.allow(e, vantage)),
                choose(&leaving),
            ),
            local: or_else(
                choose(&|e| is_here(e) && e.is_ready()),
                choose(&|e| is_here(e) && leaving(e)),
            ),
            serving,
        }
    }
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
    fn of(ready: &[&Endpoint], vantage: Vantage<'_>) -> Self {
        let every_and_here = |names: fn(&Endpoint) -> Vec<&str>, me: &str| {
            !ready.is_empty()
                && ready.iter().all(|e| !names(e).is_empty())
                && ready.iter().any(|e| names(e).contains(&me))
        };
        if every_and_here(Endpoint::hinted_nodes, vantage.node) {
            Self::Node
        } else if vantage
            .zone
            .is_some_and(|zone| every_and_here(Endpoint::hinted_zones, zone))
        {
            Self::Zone
        } else {
            Self::None
        }
    }

    fn allow(&self, endpoint: &Endpoint, vantage: Vantage<'_>) -> bool {
        match self {
            Self::Node => endpoint.hinted_nodes().contains(&vantage.node),
            Self::Zone => vantage
                .zone
                .is_some_and(|zone| endpoint.hinted_zones().contains(&zone)),
            Self::None => true,
        }
    }
}
