//! What listens in a Pod that refused a dial.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::evidence::{Evidence, dials::Failed};
use svcdiag_api::{Answer, ListeningSocket, Reason};
use svcdiag_objects::{Open, Pod, Protocol};

/// Sockets of the Pod at an endpoint, as the agent of its node saw them; None where nobody looked.
pub(crate) fn sockets<'a>(evidence: &Evidence<'a>, failed: &Failed<'_>) -> Option<&'a [ListeningSocket]> {
    let ip = failed.endpoint?.ip();
    // Pods on their node's network share its addresses: which of them listens cannot be told.
    if failed.target?.pod.is_none_or(Pod::is_host_network) {
        return None;
    }
    evidence
        .reports
        .current
        .iter()
        .flat_map(|r| &r.facts.listeners)
        .filter(|l| l.ips.iter().any(|own| own.parse() == Ok(ip)))
        .min_by_key(|l| format!("{l:?}"))
        .map(|l| l.sockets.as_slice())
}

/// Why a Pod refuses, by its sockets.
pub(crate) fn why_refused(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Reason {
    let known =
        (failed.answer == Answer::Refused).then(|| Some((failed.endpoint?, sockets(evidence, failed)?)));
    match known.flatten() {
        Some((endpoint, sockets)) => by_sockets(sockets, endpoint, failed.dial.port.protocol),
        None => Reason::ConnectionRefused,
    }
}

fn by_sockets(sockets: &[ListeningSocket], endpoint: SocketAddr, protocol: Protocol) -> Reason {
    let on_port: Vec<IpAddr> = sockets
        .iter()
        .filter(|s| s.protocol == protocol && s.port == endpoint.port())
        .filter_map(|s| s.address.parse().ok())
        .collect();
    if on_port.is_empty() {
        return Reason::NotListening;
    }
    if on_port.iter().all(IpAddr::is_loopback) {
        return Reason::ListensOnLoopbackOnly;
    }
    let is_other_family = |ip: &IpAddr| ip.is_loopback() || ip.is_ipv4() != endpoint.is_ipv4();
    if on_port.iter().all(is_other_family) {
        return Reason::WrongFamilyListening;
    }
    // Somebody listens there, and the refusal came from elsewhere.
    Reason::ConnectionRefused
}

/// Whether the Pod has a socket on the port, of the other protocol only.
pub(crate) fn listens_with_other_protocol(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let (Some(endpoint), Some(sockets)) = (failed.endpoint, sockets(evidence, failed)) else {
        return false;
    };
    let (own, other) = match failed.dial.port.protocol {
        Protocol::Tcp => (Protocol::Tcp, Protocol::Udp),
        Protocol::Udp => (Protocol::Udp, Protocol::Tcp),
        Protocol::Sctp => return false,
    };
    let has = |protocol: Protocol| {
        sockets
            .iter()
            .any(|s| s.protocol == protocol && s.port == endpoint.port())
    };
    failed.answer == Answer::Refused && has(other) && !has(own)
}

/// The ports that Pods listen on and that others can reach, as number/protocol.
pub(crate) fn open_ports(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Vec<String> {
    let open: BTreeSet<(u16, &Open<Protocol>)> = failures
        .iter()
        .filter_map(|f| sockets(evidence, f))
        .flatten()
        .filter(|s| s.address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback()))
        .map(|s| (s.port, &s.protocol))
        .collect();
    open.iter()
        .map(|(port, protocol)| format!("{port}/{protocol}"))
        .collect()
}

/// The addresses on which Pods listen at the endpoints' port.
pub(crate) fn addresses(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Vec<String> {
    let bound: BTreeSet<&str> = failures
        .iter()
        .filter_map(|f| Some((f.endpoint?.port(), f.dial.port.protocol, sockets(evidence, f)?)))
        .flat_map(|(port, protocol, sockets)| {
            sockets
                .iter()
                .filter(move |s| s.port == port && s.protocol == protocol)
        })
        .map(|s| s.address.as_str())
        .collect();
    bound.into_iter().map(str::to_owned).collect()
}
