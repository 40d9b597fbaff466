//! Addresses that something else has, too.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{
    pods::shared_addresses,
    stages::definition_valid::{hints::MAX_OF_A_KIND, subject::Subject},
    text,
};
use svcdiag_objects::{Node, Object, Pod};

pub(super) fn of(subject: &Subject<'_>) -> Vec<String> {
    let mut hints = shared_by_pods(subject);
    let others = &subject.facts.saved_objects.same_addresses;
    hints.extend(others.iter().take(MAX_OF_A_KIND).map(|(ip, pod)| {
        format!("{ip} is also the address of Pod {pod}: the network plugin seems to have assigned it twice, and packets may reach only one of them")
    }));
    hints.extend(pod_among_nodes(subject));
    hints.extend(external_ips_of_nodes(subject));
    hints.extend(chained(subject));
    hints
}

/// Two Pods have one address.
fn shared_by_pods(subject: &Subject<'_>) -> Vec<String> {
    let own: BTreeSet<IpAddr> = subject
        .pods
        .iter()
        .flat_map(|p| p.ips())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let shared = shared_addresses::shared(subject.facts);
    let shared = shared.into_iter().filter(|(ip, _)| own.contains(ip));
    shared
        .take(MAX_OF_A_KIND)
        .map(|(ip, pods)| shared_addresses::describe(ip, &pods))
        .collect()
}

/// A Pod has an address outside of the range of its node and beside the addresses of Nodes. Where clouds put Pods and
/// nodes into one network on purpose, nodes have no ranges.
fn pod_among_nodes(subject: &Subject<'_>) -> Option<String> {
    let nodes = &subject.facts.cluster_nodes;
    let node_of = |pod: &Pod| subject.facts.cluster_node(pod.spec.node_name.as_deref()?);
    subject.pods.iter().filter(|p| !p.is_host_network()).find_map(|pod| {
        let ranges = node_of(pod)?.pod_ranges();
        let address: IpAddr = pod.ips().find_map(|ip| ip.parse().ok().filter(IpAddr::is_ipv4))?;
        let ranges: Vec<IpNet> = ranges.into_iter().filter(|r| r.addr().is_ipv4()).collect();
        if ranges.is_empty() || ranges.iter().any(|r| r.contains(&address)) {
            return None;
        }
        // Ranges of this size are given to nodes, or routed to them, as a whole.
        let around = IpNet::new(address, 24).ok()?.trunc();
        let beside: BTreeSet<IpAddr> = nodes
            .iter()
            .flat_map(|n| Node::internal_ips(n))
            .filter(|ip| around.contains(ip))
            .collect();
        let beside: Vec<String> = beside.iter().map(IpAddr::to_string).collect();
        let range = ranges.first()?;
        (!beside.is_empty()).then(|| {
            format!(
                "Pod {} has address {address}, which is in the network of the Nodes ({}) and outside the Pod range {range} of its node: the two networks seem to overlap, and packets for one can go to the other",
                pod.name(),
                text::list(&beside)
            )
        })
    })
}

/// externalIPs that are addresses of Nodes: all nodes take packets to them for the Service's.
fn external_ips_of_nodes(subject: &Subject<'_>) -> Option<String> {
    let external: BTreeSet<&str> = subject
        .service
        .spec
        .external_ips
        .iter()
        .map(String::as_str)
        .collect();
    if external.is_empty() {
        return None;
    }
    let mut found: BTreeSet<String> = BTreeSet::new();
    for node in &subject.facts.cluster_nodes {
        let of_node = node
            .status
            .addresses
            .iter()
            .filter(|a| external.contains(a.address.as_str()));
        found.extend(of_node.map(|a| format!("{} of node {}", a.address, node.name())));
    }
    let found: Vec<String> = found.into_iter().collect();
    (!found.is_empty()).then(|| {
        format!(
            "externalIPs contains addresses of Nodes ({}): every other node treats packets to them as the Service's (in ipvs mode on all ports), so it may no longer reach these nodes",
            text::list(&found)
        )
    })
}

/// An endpoint is the address of a Service: nodes translate an address once, so that nobody gets further than that.
fn chained(subject: &Subject<'_>) -> Vec<String> {
    let facts = subject.facts;
    let mut chained: Vec<_> = facts.chained_services.iter().collect();
    chained.sort_unstable();
    chained
        .into_iter()
        .take(MAX_OF_A_KIND)
        .map(|c| {
            let service = if c.namespace == facts.namespace {
                format!("Service {}", c.name)
            } else {
                format!("Service {}/{}", c.namespace, c.name)
            };
            format!(
                "endpoint {} is the cluster IP of {service}, and kube-proxy does not translate an address twice: use an ExternalName, or that Service's own endpoints",
                c.address
            )
        })
        .collect()
}
