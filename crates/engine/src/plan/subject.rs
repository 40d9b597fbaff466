//! What an agent has to know of the Service, of its endpoints, of cluster DNS and of its own node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::Facts;
use svcdiag_api::{
    MAX_ADDRESSES, MAX_DNS_ENDPOINTS, MAX_OF_A_SERVICE, ProbeDns, ProbeEndpointPort, ProbeNode, ProbeService,
    ProbeServicePort, ProbeSubset, SliceVersion,
};
use svcdiag_kube_proxy::{HEADLESS_LABEL, PROXY_NAME_LABEL};
use svcdiag_objects::{Endpoint, EndpointSlice, Node, Object, Open, Pod, Protocol, Service};

/// Most slices and subsets that a NodeProbe lists.
const MAX_SLICES: usize = 100;

/// While cluster DNS is being rolled out, what was asked of its Pods stays: it is the same for all diagnoses,
/// and each change would have all NodeProbes written. One that is gone is not blamed.
const DNS_SETTLES_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// The Service without its endpoints.
pub(crate) fn service(facts: &Facts, service: &Service) -> ProbeService {
    let spec = &service.spec;
    let cut = |list: &[String]| -> Vec<String> { list.iter().take(MAX_OF_A_SERVICE).cloned().collect() };
    let balancers = service.status.load_balancer.ingress.iter();
    let balancers = balancers.filter(|i| i.is_proxied()).filter_map(|i| i.ip.clone());
    let load_balancer_ips: Vec<String> = balancers.collect();
    let cluster_ips = if service.is_headless() {
        vec!["None".to_owned()]
    } else {
        service.cluster_ips().into_iter().map(str::to_owned).collect()
    };
    let lists = [
        spec.ports.len(),
        spec.external_ips.len(),
        load_balancer_ips.len(),
        spec.load_balancer_source_ranges.len(),
    ];
    let labels = service.labels();
    let slices = facts.slices.iter().filter_map(|s| s.changed_at());
    ProbeService {
        cluster_ips,
        ip_families: spec.ip_families.iter().take(2).cloned().collect(),
        ports: spec.ports.iter().take(MAX_OF_A_SERVICE).map(port).collect(),
        external_ips: cut(&spec.external_ips),
        load_balancer_ips: cut(&load_balancer_ips),
        load_balancer_source_ranges: cut(&spec.load_balancer_source_ranges),
        internal_traffic_policy: spec.internal_traffic_policy.clone(),
        external_traffic_policy: spec.external_traffic_policy.clone(),
        session_affinity: spec.session_affinity.clone(),
        external_name: service.external_name().map(str::to_owned),
        without_rules: service.is_external_name()
            || labels.contains_key(PROXY_NAME_LABEL)
            || labels.contains_key(HEADLESS_LABEL),
        is_cut: lists.iter().any(|n| *n > MAX_OF_A_SERVICE),
        changed_time: slices.chain(service.changed_at()).max().map(Time),
    }
}

fn port(port: &svcdiag_objects::ServicePort) -> ProbeServicePort {
    ProbeServicePort {
        name: port.name().to_owned(),
        protocol: port.protocol.clone(),
        port: port.port,
        node_port: port.node_port,
    }
}

/// The endpoints that take traffic or still can, as they are for one node; and whether some were left out.
pub(crate) fn subsets(
    facts: &Facts,
    service: &Service,
    node: &str,
    zone: Option<&str>,
) -> (Vec<ProbeSubset>, bool) {
    let mut all: BTreeMap<ProbeSubset, BTreeSet<&str>> = BTreeMap::new();
    for slice in &facts.slices {
        let ports = ports(service, slice);
        if ports.is_empty() {
            continue;
        }
        for endpoint in &slice.endpoints {
            let terminating = !endpoint.is_ready();
            if terminating && !(endpoint.is_serving() && endpoint.is_terminating()) {
                continue;
            }
            // kube-proxy uses the first address only.
            let Some(address) = endpoint.addresses.first() else {
                continue;
            };
            let in_common = ProbeSubset {
                ports: ports.clone(),
                local: endpoint.node_name.as_ref().map(|of| of == node),
                terminating,
                for_node: hint(&endpoint.hinted_nodes(), Some(node)),
                for_zone: hint(&endpoint.hinted_zones(), zone),
                addresses: Vec::new(),
            };
            all.entry(in_common).or_default().insert(address);
        }
    }
    let mut room = MAX_ADDRESSES;
    let mut is_cut = all.len() > MAX_OF_A_SERVICE;
    let subsets = all
        .into_iter()
        .take(MAX_OF_A_SERVICE)
        .map(|(in_common, addresses)| {
            is_cut |= addresses.len() > room;
            let addresses: Vec<String> = addresses.into_iter().take(room).map(str::to_owned).collect();
            room -= addresses.len();
            ProbeSubset {
                addresses,
                ..in_common
            }
        });
    let subsets: Vec<ProbeSubset> = subsets.filter(|s| !s.addresses.is_empty()).collect();
    (subsets, is_cut)
}

/// Whether hints mean an endpoint for somebody; None without hints.
fn hint(names: &[&str], me: Option<&str>) -> Option<bool> {
    (!names.is_empty()).then(|| me.is_some_and(|me| names.contains(&me)))
}

/// The ports of a slice that are the Service's.
fn ports(service: &Service, slice: &EndpointSlice) -> Vec<ProbeEndpointPort> {
    let mut ports: Vec<ProbeEndpointPort> = slice
        .ports
        .iter()
        .filter(|p| {
            let is_same =
                |port: &svcdiag_objects::ServicePort| port.name() == p.name() && port.protocol == p.protocol;
            service.spec.ports.iter().any(is_same)
        })
        .filter_map(|p| {
            Some(ProbeEndpointPort {
                name: p.name().to_owned(),
                protocol: p.protocol.clone(),
                port: u16::try_from(p.port?).ok().filter(|port| *port > 0)?,
            })
        })
        .collect();
    ports.sort();
    ports.truncate(MAX_OF_A_SERVICE);
    ports
}

/// The slices and their versions, by name.
pub(crate) fn slices(facts: &Facts) -> Vec<SliceVersion> {
    let version = |slice: &EndpointSlice| SliceVersion {
        name: slice.name().to_owned(),
        resource_version: slice.metadata.resource_version.clone().unwrap_or_default(),
    };
    let mut all: Vec<SliceVersion> = facts.slices.iter().map(|s| version(s)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.truncate(MAX_SLICES);
    all
}

/// The node by what the cluster says of it.
pub(crate) fn node(node: Option<&Node>) -> ProbeNode {
    ProbeNode {
        ips: node.map_or_else(Vec::new, |n| {
            n.internal_ips().iter().take(4).map(ToString::to_string).collect()
        }),
        zone: node.and_then(Node::zone).map(str::to_owned),
    }
}

/// Cluster DNS over UDP; its Pods only for nodes with clients, who ask them.
pub(crate) fn dns(facts: &Facts, before: Option<&ProbeDns>, has_clients: bool) -> Option<ProbeDns> {
    let dns = facts.cluster_dns.as_ref()?;
    let is_dns = |p: &&svcdiag_objects::ServicePort| p.protocol == Protocol::Udp && p.port == 53;
    let port = dns.service.spec.ports.iter().find(is_dns)?;
    let ips = dns.service.cluster_ips();
    let addresses: Vec<String> = ips.into_iter().take(4).map(str::to_owned).collect();
    let pods = dns.pods.iter().filter(|p| p.is_ready() && !p.is_terminating());
    let endpoint = |pod: &Pod| {
        let ip: std::net::IpAddr = pod.ips().next()?.parse().ok()?;
        let number =
            u16::try_from(pod.resolve_port(&port.target_port(), &Open::Known(Protocol::Udp))?).ok()?;
        Some(std::net::SocketAddr::new(ip, number).to_string())
    };
    let all: BTreeSet<String> = pods.filter(|_| has_clients).filter_map(|p| endpoint(p)).collect();
    let endpoints: Vec<String> = all.into_iter().take(MAX_DNS_ENDPOINTS).collect();
    let kept = before.filter(|b| has_clients && !b.endpoints.is_empty() && is_changing(facts, &dns.pods));
    Some(ProbeDns {
        addresses,
        endpoints: kept.map_or(endpoints, |b| b.endpoints.clone()),
    })
}

fn is_changing(facts: &Facts, pods: &[std::sync::Arc<Pod>]) -> bool {
    let changed = pods.iter().filter_map(|p| p.changed_at()).max();
    changed.is_some_and(|at| {
        let since = facts.now.duration_since(at);
        since < DNS_SETTLES_WITHIN && since > -DNS_SETTLES_WITHIN
    })
}

/// What distinguishes an endpoint from what it was, for the revision.
pub(crate) fn state(slice: &EndpointSlice, endpoint: &Endpoint) -> String {
    format!(
        "{:?} {:?} {} {}",
        endpoint.addresses,
        slice.ports,
        endpoint.is_ready(),
        endpoint.is_serving()
    )
}
