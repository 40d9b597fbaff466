//! Which addresses of endpoints may be dialled from a node's own network.
//!
//! A node reaches more than a Pod does: its own loopback, cloud metadata, other nodes' kubelets. Whoever may
//! write an EndpointSlice could have a node dial all that. So an address is approved only if the API says that
//! it is that of a running Pod of the namespace, and if it is none that a Pod cannot have. The API server's own
//! endpoints are no Pods' addresses: they are approved where it keeps them itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::IpAddr,
};

use crate::Facts;
use svcdiag_kube_proxy::{is_host, is_translated, tunnel_ends};
use svcdiag_objects::{Endpoint, EndpointSlice, Object, Pod};

/// Addresses that are taken by something else than Pods.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Of the nodes that have any of the addresses in question, by name.
    nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Of Services.
    services: BTreeSet<IpAddr>,
}

impl Taken {
    fn of(facts: &Facts) -> Self {
        let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
        let in_question = endpoints
            .flat_map(|e| &e.addresses)
            .filter_map(|ip| ip.parse().ok());
        let in_question: BTreeSet<IpAddr> = in_question.flat_map(forms).collect();
        let is_in_question = |ip: &str| ip.parse().is_ok_and(|ip: IpAddr| in_question.contains(&ip));
        let nodes = facts.cluster_nodes.iter();
        let nodes = nodes.filter(|n| n.status.addresses.iter().any(|a| is_in_question(&a.address)));
        let own = facts.service.iter().flat_map(|s| s.cluster_ips());
        let dns = facts.cluster_dns.iter().flat_map(|dns| dns.service.cluster_ips());
        let others = facts.service_addresses.iter().map(String::as_str);
        Self {
            nodes: nodes.map(|n| (n.name().to_owned(), n.ips())).collect(),
            services: own
                .chain(dns)
                .chain(others)
                .filter_map(|ip| ip.parse().ok())
                .collect(),
        }
    }

    /// Whether one host may have an address, and no Service has it, nor what it leads to over IPv4.
    fn leaves_to_a_host(&self, ip: IpAddr) -> bool {
        forms(ip).all(|ip| is_host(ip) && !is_translators(ip) && !self.services.contains(&ip))
    }

    /// Whether a Pod on a node may have an address. One that shares its node's network has that node's.
    fn leaves(&self, ip: IpAddr, node: Option<&str>, is_host_network: bool) -> bool {
        let own_nodes = node.and_then(|n| self.nodes.get(n)).filter(|_| is_host_network);
        let is_free = |ip: IpAddr| {
            let is_of = |ips: &Vec<IpAddr>| ips.contains(&ip);
            !self.nodes.values().any(is_of) || own_nodes.is_some_and(is_of)
        };
        self.leaves_to_a_host(ip) && forms(ip).all(is_free)
    }
}

/// An address, and those that packets to it come to over IPv4.
fn forms(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let embedded = match ip {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(v6) => tunnel_ends(v6),
    };
    iter::once(ip).chain(embedded.into_iter().map(IpAddr::V4))
}

fn is_translators(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if is_translated(v6))
}

/// Names the controller that keeps an EndpointSlice. The API server writes its own without it.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Whether the Service is the one that the API server makes for itself.
fn is_api_server(facts: &Facts) -> bool {
    (facts.namespace.as_str(), facts.spec.service_name.as_str()) == ("default", "kubernetes")
}

/// Whether a node may dial the Service and its endpoints: all that take traffic are what they say. Through the
/// Service a dial may come to any of them.
pub(crate) fn may_be_dialled_from_nodes(facts: &Facts) -> bool {
    let taken = Taken::of(facts);
    if is_api_server(facts) {
        // Every node has to reach the API server anyway, but it alone, not what else somebody has added to it.
        return facts.slices.iter().all(|s| is_api_servers(s, &taken));
    }
    let pods: BTreeMap<&str, &Pod> = facts
        .pods
        .iter()
        .filter(|p| p.status.phase.as_deref() == Some("Running"))
        .filter_map(|p| Some((p.metadata.uid.as_deref()?, p.as_ref())))
        .collect();
    facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter(|e| e.is_ready() || e.is_serving())
        .all(|e| {
            let pod = e.pod_uid().and_then(|uid| pods.get(uid));
            pod.is_some_and(|pod| is_what_it_says(e, pod, &taken))
        })
}

/// Whether Pods that another Namespace lends must not dial: it lends them so that the borrower's own Pods are tried
/// from there. With any other endpoint they would dial for the borrower what he may not reach himself.
pub(crate) fn foreign_clients_are_kept_away(facts: &Facts) -> bool {
    facts.client_namespace.as_ref().is_some_and(|c| c.granted) && !may_be_dialled_from_nodes(facts)
}

/// Whether the API server keeps a slice of its Service, and each endpoint may be one of its hosts, which may be
/// nodes.
fn is_api_servers(slice: &EndpointSlice, taken: &Taken) -> bool {
    let is_kept_by_it = slice.name() == "kubernetes"
        && slice.metadata.owner_references.iter().flatten().next().is_none()
        && !slice.labels().contains_key(MANAGED_BY_LABEL);
    let mut addresses = slice.endpoints.iter().flat_map(|e| &e.addresses);
    is_kept_by_it && addresses.all(|a| a.parse().is_ok_and(|ip| taken.leaves_to_a_host(ip)))
}

fn is_what_it_says(endpoint: &Endpoint, pod: &Pod, taken: &Taken) -> bool {
    let own: Vec<IpAddr> = pod.ips().filter_map(|ip| ip.parse().ok()).collect();
    let node = pod.spec.node_name.as_deref();
    endpoint.addresses.iter().all(|address| {
        let ip = address.parse::<IpAddr>();
        ip.is_ok_and(|ip| own.contains(&ip) && taken.leaves(ip, node, pod.is_host_network()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Pod on node n1 may have for an address.
    #[test]
    fn a_pod_has_no_address_that_is_taken_by_something_else() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let taken = Taken {
            nodes: [
                ("n1", ["192.168.0.1", "fd00::1"]),
                ("n2", ["192.168.0.2", "fd00::2"]),
            ]
            .map(|(node, ips)| (node.to_owned(), ips.map(ip).to_vec()))
            .into(),
            services: ["10.96.0.1", "fd00:96::1"].map(ip).into(),
        };
        for (address, of_a_pod, on_the_hosts_network) in [
            ("10.244.1.5", true, true),
            ("fd00:244::5", true, true),
            ("203.0.113.7", true, true),
            // Some clouds give Pods addresses of the class that is called experimental.
            ("240.10.0.9", true, true),
            ("192.168.0.1", false, true),
            ("fd00::1", false, true),
            ("192.168.0.2", false, false),
            ("fd00::2", false, false),
            ("10.96.0.1", false, false),
            ("fd00:96::1", false, false),
            ("127.0.0.1", false, false),
            ("127.8.8.8", false, false),
            ("::1", false, false),
            ("169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
            ("ff02::1", false, false),
            ("255.255.255.255", false, false),
            // The same in another form.
            ("::ffff:127.0.0.1", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("::ffff:10.244.1.5", false, false),
            ("::192.168.0.1", false, false),
            ("::10.244.1.5", false, false),
            // Of translators (NAT64), which reach all of IPv4.
            ("64:ff9b::192.168.0.1", false, false),
            ("64:ff9b::169.254.169.254", false, false),
            ("64:ff9b::10.244.1.5", false, false),
            ("64:ff9b:1:c0a8:0:1::", false, false),
            ("64:ff9b:1::192.168.0.1", false, false),
            ("64:ff9b:2::5", true, true),
            // 6to4: 127.0.0.1, 169.254.169.254, nodes n1 and n2, Service 10.96.0.1, and a router of its own.
            ("2002:7f00:1::1", false, false),
            ("2002:a9fe:a9fe::1", false, false),
            ("2002:c0a8:1::1", false, true),
            ("2002:c0a8:2::1", false, false),
            ("2002:a60:1::1", false, false),
            ("2002:cb00:7107::1", true, true),
            // Teredo: node n2 and Service 10.96.0.1 as its client, node n2 as its server, and neither of them.
            ("2001:0:cb00:7107::3f57:fffd", false, false),
            ("2001:0:cb00:7107::f59f:fffe", false, false),
            ("2001:0:c0a8:2::34ff:8ef8", false, false),
            ("2001:0:cb00:7107::34ff:8ef8", true, true),
            ("2001:db8::3f57:fffd", true, true),
        ] {
            assert_eq!(
                taken.leaves(ip(address), Some("n1"), false),
                of_a_pod,
                "{address}"
            );
            assert_eq!(
                taken.leaves(ip(address), Some("n1"), true),
                on_the_hosts_network,
                "{address} on the host's network"
            );
        }
        assert!(!taken.leaves(ip("192.168.0.1"), None, true), "of no node");
    }
}
