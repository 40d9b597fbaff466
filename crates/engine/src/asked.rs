//! What an agent knows of a Service: what its NodeProbe says, in the form in which kube-proxy has it.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use svcdiag_api::{NodeProbeSpec, ProbeService, ProbeSubset, SliceVersion};
use svcdiag_kube_proxy::{PROXY_NAME_LABEL, is_host};
use svcdiag_objects::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, Hint, Ingress,
    LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
};

/// What is asked about, and of whom.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The Service.
    pub service: Service,
    /// Its endpoints.
    pub slices: Vec<EndpointSlice>,
    /// The EndpointSlices of the API that these were made of.
    pub versions: Vec<SliceVersion>,
    /// Whether not all of the Service is known.
    pub is_cut: bool,
    /// When the Service or its endpoints last changed.
    pub changed: Option<Timestamp>,
    /// Addresses of cluster DNS, and of its ready endpoints.
    pub dns: ClusterDns,
    /// The node's addresses in the cluster.
    pub node_ips: Vec<IpAddr>,
    /// Other nodes whose node ports are dialled.
    pub other_nodes: Vec<OtherNode>,
    /// The node's zone.
    pub zone: Option<String>,
}

/// Another node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Its addresses in the cluster.
    pub ips: Vec<IpAddr>,
}

/// Where cluster DNS answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterDns {
    /// Its Service's addresses.
    pub addresses: Vec<SocketAddr>,
    /// Its ready endpoints.
    pub endpoints: Vec<SocketAddr>,
}

impl Subject {
    /// What a NodeProbe says. Addresses that no other host can have are left out, whoever wrote them.
    #[must_use]
    pub fn of(spec: &NodeProbeSpec) -> Self {
        let dns = spec.cluster_dns.clone().unwrap_or_default();
        let zone = spec.node.zone.clone();
        let slice = |subset: &ProbeSubset| slice(subset, &spec.node_name, zone.as_deref());
        Self {
            service: service(&spec.service),
            slices: spec.subsets.iter().map(slice).collect(),
            versions: spec.slices.clone(),
            is_cut: spec.service.is_cut,
            changed: spec.service.changed_time.as_ref().map(|t| t.0),
            dns: ClusterDns {
                addresses: parsed(&dns.addresses).map(|ip| SocketAddr::new(ip, 53)).collect(),
                endpoints: parsed(&dns.endpoints)
                    .filter(|e: &SocketAddr| is_host(e.ip()))
                    .collect(),
            },
            node_ips: parsed(&spec.node.ips).collect(),
            other_nodes: spec
                .other_nodes
                .iter()
                .map(|other| OtherNode {
                    name: other.name.clone(),
                    ips: parsed(&other.ips).filter(|ip| is_host(*ip)).collect(),
                })
                .collect(),
            zone,
        }
    }
}

fn parsed<T: std::str::FromStr>(texts: &[String]) -> impl Iterator<Item = T> {
    texts.iter().filter_map(|text| text.parse().ok())
}

fn service(asked: &ProbeService) -> Service {
    let mut service = Service::default();
    if asked.without_rules {
        let label = (PROXY_NAME_LABEL.to_owned(), String::new());
        service.metadata.labels = Some([label].into());
    }
    let ingress = |ip: &String| Ingress {
        ip: Some(ip.clone()),
        ..Ingress::default()
    };
    let is_alias = asked.external_name.is_some();
    service.spec = ServiceSpec {
        type_: is_alias.then(|| "ExternalName".to_owned()),
        external_name: asked.external_name.clone(),
        cluster_ip: asked.cluster_ips.first().cloned(),
        cluster_ips: asked.cluster_ips.clone(),
        ip_families: asked.ip_families.clone(),
        external_ips: asked.external_ips.clone(),
        load_balancer_source_ranges: asked.load_balancer_source_ranges.clone(),
        internal_traffic_policy: asked.internal_traffic_policy.clone(),
        external_traffic_policy: asked.external_traffic_policy.clone(),
        session_affinity: asked.session_affinity.clone(),
        ports: asked
            .ports
            .iter()
            .map(|p| ServicePort {
                name: Some(p.name.clone()),
                protocol: p.protocol.clone(),
                port: p.port,
                target_port: None,
                node_port: p.node_port,
            })
            .collect(),
        ..ServiceSpec::default()
    };
    service.status = ServiceStatus {
        load_balancer: LoadBalancerStatus {
            ingress: asked.load_balancer_ips.iter().map(ingress).collect(),
        },
    };
    service
}

/// Other nodes and zones than the own ones have no names here.
fn slice(subset: &ProbeSubset, node: &str, zone: Option<&str>) -> EndpointSlice {
    let name = |is_mine: bool, me: &str| if is_mine { me.to_owned() } else { String::new() };
    let hint = |is_for_me: Option<bool>, me: &str| -> Vec<Hint> {
        let hints = is_for_me.into_iter().map(|mine| Hint { name: name(mine, me) });
        hints.collect()
    };
    let hints = EndpointHints {
        for_nodes: hint(subset.for_node, node),
        for_zones: hint(subset.for_zone, zone.unwrap_or_default()),
    };
    let endpoint = |address: &String| Endpoint {
        addresses: vec![address.clone()],
        conditions: EndpointConditions {
            ready: Some(!subset.terminating),
            serving: Some(true),
            terminating: Some(subset.terminating),
        },
        node_name: subset.local.map(|local| name(local, node)),
        hints: Some(hints.clone()),
        ..Endpoint::default()
    };
    let is_dialled = |address: &&String| address.parse().is_ok_and(is_host);
    EndpointSlice {
        endpoints: subset.addresses.iter().filter(is_dialled).map(endpoint).collect(),
        ports: subset
            .ports
            .iter()
            .map(|p| EndpointPort {
                name: Some(p.name.clone()),
                port: Some(i32::from(p.port)),
                protocol: p.protocol.clone(),
            })
            .collect(),
        ..EndpointSlice::default()
    }
}
