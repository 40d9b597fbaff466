//! Dials that are lost between nodes: what is known of the way, and what to look at there.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    dialling::{addresses, describe},
    evidence::{Evidence, dials::Failed, proxies, targets::Target},
    stages::endpoints_reachable::arrived,
    text::{self, quoted},
};
use svcdiag_api::{Tunnel, TunnelKind};
use svcdiag_objects::Object;

/// Networks of so many bits are taken for one link.
const LINK_BITS: (usize, usize) = (24, 64);

/// What is said of the loss, and what to do; by what the kernel dropped the packets for, where that is known.
pub(super) fn describe(
    evidence: &Evidence<'_>,
    failures: &[&Failed<'_>],
    dropped: Option<(String, String)>,
) -> (String, String) {
    let facts = evidence.facts;
    let endpoints = describe::endpoints(failures);
    let answers_at_home = |f: &&Failed<'_>| {
        f.endpoint
            .is_some_and(|e| evidence.is_reached_at_home(e, f.dial.port))
    };
    let mut message = if failures.iter().all(answers_at_home) {
        let elsewhere = match failures.iter().any(|f| is_reached_elsewhere(evidence, f)) {
            true => "not from every other node",
            false => "not from other nodes",
        };
        format!("Endpoints answer on their own node but {elsewhere}")
    } else {
        "Endpoints on other nodes than the client's do not answer, while those on its own node do".to_owned()
    };
    if let Some((cause, _)) = &dropped {
        message.push_str(&format!(": {}", text::uncapitalized(cause)));
    }
    message.push_str(&format!(". {endpoints}."));
    let are_of_host = failures.iter().all(is_of_host);
    let ends = addresses::ends(failures);
    let nodes: Vec<&str> = ends.iter().copied().collect();
    let is_dropped = dropped.is_some();
    let arrived = match is_dropped {
        true => None,
        false => arrived::describe(evidence, failures),
    };
    if let Some(arrived) = &arrived {
        message.push_str(&format!(" {}", arrived.message));
    }
    let is_on_its_node = arrived.as_ref().is_some_and(|arrived| arrived.is_on_its_node);
    let by_what_arrived = arrived.and_then(|arrived| arrived.remediation);
    // Addresses that two have lead packets astray between nodes, and say nothing of what is lost on one.
    let by_addresses = || {
        addresses::one_internal_ip(facts, &ends)
            .or_else(|| external_ips(evidence))
            .or_else(|| overlap(evidence, failures))
    };
    let of_way = || {
        by_what_arrived
            .clone()
            .unwrap_or_else(|| let_through(evidence, &nodes, failures))
    };
    let (known, remediation) = match dropped {
        Some((_, remediation)) => (String::new(), remediation),
        None if is_on_its_node => (String::new(), of_way()),
        None => by_addresses().unwrap_or_else(|| (String::new(), of_way())),
    };
    if !known.is_empty() {
        message.push_str(&format!(" {known}"));
    } else if let Some(tunnels) =
        tunnels(evidence, &ends).filter(|t| !t.is_empty() && !are_of_host && !is_dropped && !is_on_its_node)
    {
        let tunnels: Vec<String> = tunnels.iter().map(describe_tunnel).collect();
        message.push_str(&format!(" These nodes use {}.", text::list(&tunnels)));
    }
    (message, remediation)
}

/// Whether somebody on another node than its own has reached the endpoint of a failure.
fn is_reached_elsewhere(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let (Some(endpoint), Some(target)) = (failed.endpoint, failed.target) else {
        return false;
    };
    let (dials, port) = (&evidence.direct, failed.dial.port);
    // In a window one cannot tell which endpoint answered.
    !evidence.ends.is_in_a_window()
        && dials.counts.iter().any(|c| {
            target.node != Some(c.node) && evidence.ends.has_reached(dials, c, endpoint, target, port)
        })
}

fn is_of_host(failed: &&Failed<'_>) -> bool {
    failed.target.is_some_and(|t| t.is_host_network())
}

/// externalIPs that are addresses of Nodes: each node takes them for its own.
fn external_ips(evidence: &Evidence<'_>) -> Option<(String, String)> {
    let facts = evidence.facts;
    // In the other modes a node takes the packets to the Service's ports alone.
    if !matches!(
        proxies::mode(&evidence.reports).as_deref(),
        Some("ipvs" | "mixed") | None
    ) {
        return None;
    }
    let service = facts.service.as_deref()?;
    let of_nodes: Vec<String> = facts
        .cluster_nodes
        .iter()
        .flat_map(|node| node.internal_ips().into_iter().map(move |ip| (ip, node.name())))
        .filter(|(ip, _)| service.spec.external_ips.iter().any(|e| e.parse() == Ok(*ip)))
        .map(|(ip, node)| format!("{ip} of {node}"))
        .collect();
    (!of_nodes.is_empty()).then(|| {
        (
            format!(
                "The Service's externalIPs are addresses of Nodes ({}). With kube-proxy in ipvs mode, every node treats them as its own, so these Nodes may be unreachable.",
                text::list(&of_nodes)
            ),
            format!(
                "Remove the Nodes' addresses from spec.externalIPs: `kubectl -n {} edit service {}`. A node port does not need them.",
                quoted(&facts.namespace),
                quoted(&facts.spec.service_name)
            ),
        )
    })
}

/// A Pod whose address looks like one of the nodes' own network, while others' do not.
fn overlap(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<(String, String)> {
    let facts = evidence.facts;
    let nodes: Vec<(IpAddr, &str)> = facts
        .cluster_nodes
        .iter()
        .flat_map(|node| node.internal_ips().into_iter().map(move |ip| (ip, node.name())))
        .collect();
    let beside = |ip: IpAddr| {
        nodes
            .iter()
            .find(|(node, _)| *node != ip && is_one_link(*node, ip))
    };
    let of_pods = |t: &Target<'_>| !t.is_host_network();
    // Some network plugins give all Pods addresses of the nodes' network.
    let mut pods = evidence
        .ends
        .targets
        .iter()
        .filter(|(_, t)| of_pods(t))
        .map(|(e, _)| e.ip());
    if !pods.any(|ip| beside(ip).is_none()) {
        return None;
    }
    let failed = failures.iter().filter(|f| f.target.is_some_and(|t| of_pods(&t)));
    let (pod, (ip, node)) = failed
        .filter_map(|f| f.endpoint)
        .find_map(|e| Some((e.ip(), beside(e.ip())?)))?;
    Some((
        format!(
            "Pod address {pod} looks like an address of the nodes' own network (Node {node} has {ip}). If the Pod network contains that network, nodes look for the Pod on their own link."
        ),
        format!(
            "Check the route from a node to the Pod: `ip route get {pod}` on node {}. Give the Pods a network that does not overlap with any other network of the cluster.",
            quoted(failures.first().map_or("", |f| f.node))
        ),
    ))
}

fn is_one_link(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            a.to_bits() >> (32 - LINK_BITS.0) == b.to_bits() >> (32 - LINK_BITS.0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            a.to_bits() >> (128 - LINK_BITS.1) == b.to_bits() >> (128 - LINK_BITS.1)
        }
        _ => false,
    }
}

/// The tunnels of nodes, without their names' order; None where nobody looked.
fn tunnels<'a>(evidence: &Evidence<'a>, ends: &BTreeSet<&str>) -> Option<BTreeSet<&'a Tunnel>> {
    let looked = evidence.reports.current.iter().filter(|r| ends.contains(r.node));
    let found: Vec<&Vec<Tunnel>> = looked.filter_map(|r| r.facts.tunnels.as_ref()).collect();
    (!found.is_empty()).then(|| found.into_iter().flatten().collect())
}

/// `tunnel flannel.1 (VXLAN, UDP port 8472)`.
fn describe_tunnel(tunnel: &&Tunnel) -> String {
    let by = match tunnel.port {
        Some(port) => format!("UDP port {port}"),
        None => wire(tunnel.kind).to_owned(),
    };
    format!("tunnel {} ({}, {by})", tunnel.name, name(tunnel.kind))
}

pub(super) fn name(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Vxlan => "VXLAN",
        TunnelKind::Geneve => "Geneve",
        TunnelKind::WireGuard => "WireGuard",
        TunnelKind::Ipip => "IP in IP",
        TunnelKind::Gre => "GRE",
    }
}

/// What such a tunnel sends, where no port is known.
fn wire(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Vxlan => "UDP",
        TunnelKind::Geneve => "UDP port 6081",
        TunnelKind::WireGuard => "UDP, usually port 51820 or 51821",
        TunnelKind::Ipip => "IP protocol 4",
        TunnelKind::Gre => "IP protocol 47",
    }
}

/// What has to get through between the nodes, and how to see whether it does.
fn let_through(evidence: &Evidence<'_>, nodes: &[&str], failures: &[&Failed<'_>]) -> String {
    let ends: BTreeSet<&str> = nodes.iter().copied().collect();
    let ports: BTreeSet<String> = failures
        .iter()
        .filter_map(|f| Some(format!("{} port {}", f.dial.port.protocol, f.endpoint?.port())))
        .collect();
    let ports: Vec<String> = ports.into_iter().collect();
    let what = match tunnels(evidence, &ends) {
        // They have the addresses of their nodes, to which no tunnel leads.
        _ if failures.iter().all(is_of_host) => format!(
            "The endpoints use the host network, so the firewalls of their nodes (INPUT) and the cloud's security groups must let {} in from Pods and nodes",
            text::list(&ports)
        ),
        Some(tunnels) if tunnels.is_empty() => {
            "No tunnel is up on these nodes, so their routes, or the network between them, must lead to the Pods (with BGP: TCP port 179; in a cloud: its route table)".to_owned()
        }
        Some(tunnels) => {
            let wires: BTreeSet<String> = tunnels
                .iter()
                .map(|t| t.port.map_or_else(|| wire(t.kind).to_owned(), |p| format!("UDP port {p}")))
                .collect();
            let wires: Vec<String> = wires.into_iter().collect();
            format!("The nodes' firewalls (INPUT) and the cloud's security groups must let {} pass between the nodes", text::list(&wires))
        }
        None => "The nodes' firewalls (INPUT) and the cloud's security groups must let through what your network plugin uses between the nodes, one or more of these: \
                 UDP 8472 (VXLAN of flannel and Cilium), UDP 4789 (VXLAN of Calico), UDP 6081 (Geneve), UDP 51820 and 51821 (WireGuard of flannel and Calico), UDP 51871 (WireGuard of Cilium), IP protocol 4 (IP in IP) or, for routes, TCP 179 (BGP)".to_owned(),
    };
    let first = failures.first();
    let ip = first
        .and_then(|f| f.endpoint)
        .map(|e| e.ip().to_string())
        .unwrap_or_default();
    let from = quoted(first.map_or("", |f| f.node));
    let plugin_of = first
        .and_then(|f| f.target?.node)
        .unwrap_or(first.map_or("", |f| f.node));
    let to = quoted(plugin_of);
    let others: Vec<&str> = nodes.iter().copied().filter(|node| *node != plugin_of).collect();
    let likewise = match others.is_empty() {
        true => String::new(),
        false => format!(" Do the same for {}.", text::nodes(&others)),
    };
    format!(
        "Check the path between {}. {what}. `ip route get {ip}` on node {from} shows the route. Check the network plugin's Pods as well (in kube-system, kube-flannel, calico-system or similar): \
         `kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={to}`.{likewise}",
        text::nodes(nodes),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn addresses_of_one_link_share_their_beginning() {
        let is_one = |a: &str, b: &str| is_one_link(a.parse().unwrap(), b.parse().unwrap());
        assert!(is_one("192.168.4.13", "192.168.4.3"));
        assert!(!is_one("192.168.5.13", "192.168.4.3"));
        assert!(is_one("fd00::1:1", "fd00::2"));
        assert!(!is_one("fd00:0:0:1::1", "fd00::2"));
        assert!(!is_one("::1", "127.0.0.1"));
    }
}
