//! Who dialled what of the Service.

use std::net::SocketAddr;

use super::service::ready;
use crate::{
    api::{Answer, DialPath, PortProtocol},
    engine::{Facts, UNKNOWN_NODE},
    kube_proxy::Protocol,
    objects::{Object, Pod, ServicePort},
};

/// Who dialled what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub from: Option<String>,
    pub path: Path,
    pub port: PortProtocol,
    pub target: SocketAddr,
    pub same_node: Option<bool>,
}

/// The ways of dials, which have no order of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Path {
    Endpoint,
    Service,
    NodePort,
}

impl From<Path> for DialPath {
    fn from(path: Path) -> Self {
        match path {
            Path::Endpoint => Self::Endpoint,
            Path::Service => Self::Service,
            Path::NodePort => Self::NodePort,
        }
    }
}

/// What an address is to whoever dialled it; None if it is nothing of the Service.
pub(super) fn key(facts: &Facts, node: &str, from: Option<&Pod>, target: SocketAddr) -> Option<Key> {
    let service = facts.service.as_deref()?;
    let ports = || service.spec.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
    let has_number = |number: Option<i32>| number == Some(i32::from(target.port()));
    let addresses = service.cluster_ips();
    let is_service = addresses.iter().any(|ip| ip.parse() == Ok(target.ip()));
    let key = |path, port: &ServicePort, same_node| {
        Some(Key {
            from: from.map(|pod| format!("{}/{}", pod.namespace(), pod.name())),
            path,
            port: port.port_protocol()?,
            target,
            same_node,
        })
    };
    if is_service {
        return ports()
            .find(|p| has_number(Some(p.port)))
            .and_then(|p| key(Path::Service, p, None));
    }
    for slice in &facts.slices {
        for port in slice.ports.iter().filter(|p| has_number(p.port)) {
            let of_address = |ip: &String| ip.parse() == Ok(target.ip());
            let Some(endpoint) = slice
                .endpoints
                .iter()
                .find(|e| e.addresses.iter().any(of_address))
            else {
                continue;
            };
            let is_same = endpoint.node_name.as_deref() == Some(node);
            let same_node = (node != UNKNOWN_NODE).then_some(is_same);
            let of_service = ports().find(|p| p.name() == port.name())?;
            return key(Path::Endpoint, of_service, same_node);
        }
    }
    // A node port is dialled at one of many addresses, of which the objects may name none.
    let port = ports().find(|p| has_number(p.node_port))?;
    key(Path::NodePort, port, None).filter(|_| from.is_none())
}

/// Whether a Pod asked for an address of its own.
pub(super) fn is_own(from: Option<&Pod>, target: SocketAddr) -> bool {
    from.is_some_and(|pod| pod.ips().any(|ip| ip.parse() == Ok(target.ip())))
}

/// Whether an end says something of the Service: a node port may be dialled at any host, and a Pod that is
/// an endpoint may have met itself.
pub(super) fn proves(facts: &Facts, key: &Key, from: Option<&Pod>, answer: Answer) -> bool {
    let is_success = answer == Answer::Accepted;
    let is_own = |address: &String| from.is_some_and(|pod| pod.ips().any(|ip| ip == address));
    match key.path {
        // A Pod that answers itself shows nothing of the way to it.
        Path::Endpoint => !self::is_own(from, key.target) || answer == Answer::Refused,
        Path::NodePort => is_success,
        Path::Service if ready(facts).any(|e| e.addresses.iter().any(is_own)) => {
            is_success && ready(facts).any(|e| !e.addresses.iter().any(is_own))
        }
        Path::Service => true,
    }
}
