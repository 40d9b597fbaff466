//! Which slices a Service should have. Pure.
//!
//! As Kubernetes does it: for each IP family of the Service, Pods are grouped by the port numbers
//! that the Service's target ports mean for them, and each group is cut into slices of at most 100
//! endpoints. A Pod without the named port is in a group without ports. A Service without any
//! endpoint keeps one empty slice for each family.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::Selector;

use super::{naming, pods};

/// The label that ties a slice to its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What Kubernetes' own controller writes into it.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The default of --max-endpoints-per-slice.
const MAX_ENDPOINTS: usize = 100;

/// The wanted content of one slice.
pub(super) struct Layout {
    family: String,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// The writes that turn the present slices into the wanted ones.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<EndpointSlice>,
}

/// The selector as a request takes it; `None` for Services that get no slices from us.
pub(super) fn selector(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some(labels.clone().into_iter().collect::<Selector>().to_string())
}

/// The slices that the Service should have.
pub(super) fn of(service: &Service, pods: &[Pod], nodes: &[Node]) -> Vec<Layout> {
    let Some(spec) = service.spec.as_ref() else {
        return Vec::new();
    };
    let zones: BTreeMap<String, String> = nodes
        .iter()
        .filter_map(|node| {
            Some((
                node.name_any(),
                node.labels().get("topology.kubernetes.io/zone")?.clone(),
            ))
        })
        .collect();
    let mut layouts = Vec::new();
    for family in families(spec) {
        let mut groups: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pods::has_ended(pod)) {
            if let Some(endpoint) = endpoint(service, spec, pod, &family, &zones) {
                let ports = ports(spec, pod);
                let group = groups.entry(key(&ports)).or_insert_with(|| (ports, Vec::new()));
                group.1.push(endpoint);
            }
        }
        if groups.is_empty() {
            layouts.push(Layout {
                family,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
            continue;
        }
        for (ports, mut endpoints) in groups.into_values() {
            endpoints.sort_by(|a, b| target(a).cmp(&target(b)));
            layouts.extend(endpoints.chunks(MAX_ENDPOINTS).map(|chunk| Layout {
                family: family.clone(),
                ports: ports.clone(),
                endpoints: chunk.to_vec(),
            }));
        }
    }
    layouts
}

fn families(spec: &ServiceSpec) -> Vec<String> {
    match spec.ip_families.as_ref().filter(|families| !families.is_empty()) {
        Some(families) => families.clone(),
        None if spec.cluster_ip.as_ref().is_some_and(|ip| ip.contains(':')) => vec!["IPv6".to_owned()],
        None => vec!["IPv4".to_owned()],
    }
}

fn target(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}

fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    family: &str,
    zones: &BTreeMap<String, String>,
) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let address = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| &ip.ip)
        .find(|ip| ip.contains(':') == (family == "IPv6"))?;
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let always = spec.publish_not_ready_addresses == Some(true);
    let pod_spec = pod.spec.as_ref()?;
    let node_name = pod_spec.node_name.clone();
    let named = pod_spec.subdomain.as_ref() == service.metadata.name.as_ref();
    let zone = node_name.as_ref().and_then(|name| zones.get(name).cloned());
    Some(Endpoint {
        hints: hints(
            spec.traffic_distribution.as_deref(),
            zone.as_ref(),
            node_name.as_ref(),
        ),
        addresses: vec![address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(always || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod_spec.hostname.clone().filter(|_| named),
        zone,
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// Whom an endpoint is meant for first; PreferClose is the older name of PreferSameZone.
fn hints(distribution: Option<&str>, zone: Option<&String>, node: Option<&String>) -> Option<EndpointHints> {
    let near = matches!(
        distribution,
        Some("PreferClose" | "PreferSameZone" | "PreferSameNode")
    );
    let zones = zone.filter(|_| near)?;
    let nodes = node.filter(|_| distribution == Some("PreferSameNode"));
    Some(EndpointHints {
        for_zones: Some(vec![ForZone { name: zones.clone() }]),
        for_nodes: nodes.map(|name| vec![ForNode { name: name.clone() }]),
    })
}

/// The Service's ports as this Pod understands them; those it does not have are left out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let understood = spec.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number(port, pod)?),
            protocol: Some(protocol(port.protocol.as_ref())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    understood.collect()
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let wanted = protocol(port.protocol.as_ref());
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|candidate| {
            candidate.name.as_ref() == Some(name) && protocol(candidate.protocol.as_ref()) == wanted
        })
        .map(|found| found.container_port)
}

fn protocol(given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| "TCP".to_owned())
}

/// Ports as text, for grouping and comparing.
fn key(ports: &[EndpointPort]) -> String {
    let mut parts: Vec<String> = ports
        .iter()
        .map(|port| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!(
                "{}/{:?}/{}/{}",
                text(&port.name),
                port.port,
                text(&port.protocol),
                text(&port.app_protocol)
            )
        })
        .collect();
    parts.sort();
    parts.join(",")
}

/// Pairs each wanted slice with a present one of the same family and ports, if there is one.
pub(super) fn compare(service: &Service, mut present: Vec<EndpointSlice>, wanted: Vec<Layout>) -> Changes {
    present.sort_by_key(ResourceExt::name_any);
    let labels = labels(service);
    let mut changes = Changes::default();
    for layout in wanted {
        let ports = key(&layout.ports);
        let fitting = present.iter().position(|slice| {
            slice.address_type == layout.family && key(slice.ports.as_deref().unwrap_or_default()) == ports
        });
        match fitting.map(|index| present.remove(index)) {
            Some(mut slice) => {
                let same = slice.endpoints.as_deref().unwrap_or_default() == layout.endpoints
                    && slice.metadata.labels.as_ref() == Some(&labels);
                if !same {
                    slice.endpoints = Some(layout.endpoints);
                    slice.metadata.labels = Some(labels.clone());
                    changes.update.push(slice);
                }
            }
            None => changes.create.push(slice(service, layout, &labels)),
        }
    }
    changes.delete = present;
    changes
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn slice(service: &Service, layout: Layout, labels: &BTreeMap<String, String>) -> EndpointSlice {
    let prefix = format!("{}-", service.name_any());
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}{}", naming::random_suffix())),
            generate_name: Some(prefix),
            namespace: service.namespace(),
            labels: Some(labels.clone()),
            owner_references: pods::owner_reference(service),
            ..ObjectMeta::default()
        },
        address_type: layout.family,
        endpoints: Some(layout.endpoints),
        ports: Some(layout.ports),
    }
}
