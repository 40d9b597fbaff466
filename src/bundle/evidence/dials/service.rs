//! What of the Service an address is, and who of its endpoints a Pod is.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    engine::Facts,
    objects::{Endpoint, Object, Pod, Protocol, ServicePort},
};

/// Whether the Service has an address, but no such port.
pub(super) fn is_unlisted(facts: &Facts, target: SocketAddr) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let is_it = |ip: &&str| ip.parse() == Ok(target.ip());
    let has_port = |p: &ServicePort| p.port == i32::from(target.port());
    service.cluster_ips().iter().any(|ip| is_it(&&**ip)) && !service.spec.ports.iter().any(has_port)
}

/// Whether a Service port, or the endpoints behind it, is known to be one of HTTP: by its name, or by a probe.
pub(super) fn speaks_http(facts: &Facts, target: SocketAddr) -> bool {
    let number = i32::from(target.port());
    let service = facts.service.iter().flat_map(|s| &s.spec.ports);
    let named = |name: &str| name == "http" || name.starts_with("http-");
    let mut of_service = service.filter(|p| p.port == number).map(ServicePort::name);
    let slices = facts.slices.iter().flat_map(|s| &s.ports);
    let mut of_slices = slices.filter(|p| p.port == Some(number)).map(|p| p.name());
    of_service.any(named) || of_slices.any(named)
}

/// The Service port of UDP, and of no other protocol, that an address belongs to; and whether it is that of
/// an endpoint.
pub(super) fn of_udp(facts: &Facts, target: SocketAddr) -> Option<(u16, bool)> {
    let service = facts.service.as_deref()?;
    let number = i32::from(target.port());
    let ports = || service.spec.ports.iter();
    let only_udp = |p: &&ServicePort| {
        p.protocol == Protocol::Udp && !ports().any(|o| o.port == p.port && o.protocol == Protocol::Tcp)
    };
    let port = |p: &ServicePort| u16::try_from(p.port).ok();
    if service
        .cluster_ips()
        .iter()
        .any(|ip| ip.parse() == Ok(target.ip()))
    {
        let found = ports().filter(only_udp).find(|p| p.port == number)?;
        return Some((port(found)?, false));
    }
    let of_address = |ip: &String| ip.parse() == Ok(target.ip());
    let slice = facts.slices.iter().find(|s| {
        s.endpoints.iter().any(|e| e.addresses.iter().any(of_address))
            && s.ports
                .iter()
                .any(|p| p.port == Some(number) && p.protocol == Protocol::Udp)
    })?;
    let name = slice.ports.iter().find(|p| p.port == Some(number))?.name();
    let found = ports().filter(only_udp).find(|p| p.name() == name)?;
    Some((port(found)?, true))
}

/// The ready endpoints.
pub(super) fn ready(facts: &Facts) -> impl Iterator<Item = &Endpoint> {
    let all = facts.slices.iter().flat_map(|s| &s.endpoints);
    all.filter(|e| e.is_ready())
}

/// Whether a Pod is an endpoint among others.
pub(super) fn is_endpoint(facts: &Facts, pod: &Pod) -> bool {
    let is_own = |address: &String| pod.ips().any(|ip| ip == address);
    !pod.is_host_network() && ready(facts).any(|e| e.addresses.iter().any(is_own))
}

/// Whether a Pod has an address of its own, and meets nobody but itself through the Service.
pub(super) fn is_only_endpoint(facts: &Facts, pod: &Pod) -> bool {
    let is_own = |e: &Endpoint| e.addresses.iter().all(|a| pod.ips().any(|ip| ip == a));
    !pod.is_host_network() && ready(facts).next().is_some() && ready(facts).all(is_own)
}

/// Whether all endpoints are Pods of a node with addresses of their own, as its other Pods.
pub(super) fn are_all_on(facts: &Facts, node: &str) -> bool {
    let of_host = |e: &Endpoint| {
        let mut pods = facts.pods.iter();
        pods.any(|p| p.is_host_network() && e.pod_uid().is_some() && p.metadata.uid.as_deref() == e.pod_uid())
    };
    let is_here = |e: &Endpoint| e.node_name.as_deref() == Some(node) && !of_host(e);
    ready(facts).next().is_some() && ready(facts).all(is_here)
}

/// Whether who dialled is a Pod that uses the network of its node.
pub(super) fn is_of_host(facts: &Facts, from: &str) -> bool {
    let is_it = |p: &&Arc<Pod>| format!("{}/{}", p.namespace(), p.name()) == from;
    facts.pods.iter().find(is_it).is_some_and(|p| p.is_host_network())
}
