//! NodeLocal DNSCache: a cache on the node, which Pods ask instead of cluster DNS.

use std::net::IpAddr;

use crate::{Facts, text::quoted};
use svcdiag_objects::{Object, Pod};

/// Whether an address is that of a cache on the node: NodeLocal DNSCache listens at 169.254.20.10 or near it.
/// At 169.254.169.0/24 clouds have their own servers.
pub(super) fn is_cache(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() && v4.octets()[2] != 169,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The Pod of NodeLocal DNSCache on a node.
pub(super) fn cache_of<'a>(facts: &'a Facts, node: &str) -> Option<&'a Pod> {
    let caches = facts.cluster_dns.iter().flat_map(|dns| &dns.caches);
    let on_node = caches.map(AsRef::as_ref).filter(|pod: &&Pod| {
        pod.spec.node_name.as_deref() == Some(node) && !pod.is_terminating() && !pod.has_ended()
    });
    on_node.min_by_key(|pod| (pod.name(), pod.metadata.uid.as_deref()))
}

/// What to look at where a node's cache does not answer.
pub(super) fn see_cache(facts: &Facts, node: &str) -> String {
    match cache_of(facts, node) {
        Some(pod) => format!(
            "Check the cache's Pod: `kubectl -n {ns} describe pod {pod}`, and its log: `kubectl -n {ns} logs {pod}`.",
            ns = quoted(pod.namespace()),
            pod = quoted(pod.name())
        ),
        None => format!(
            "Check the Pod of the node's DNS cache (NodeLocal DNSCache): `kubectl get pods --all-namespaces -l k8s-app=node-local-dns --field-selector spec.nodeName={} -o wide`.",
            quoted(node)
        ),
    }
}
