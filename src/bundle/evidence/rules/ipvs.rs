//! The virtual servers of a node, in ipvs mode.

use std::net::SocketAddr;

use super::{Asked, Compared, backends::Backends};
use crate::{
    formats::rules::{ipset::IpSets, ipvsadm::Listing},
    kube_proxy::{Backend, ExpectedPort, Gap, ProxyMode, Purpose, ReadError, Ruleset},
};

/// The virtual servers, if they are kube-proxy's. Where nothing tells the mode, those of others may be somebody else's.
pub(super) fn listing<'a>(
    saved: &'a Backends,
    mode: Option<&ProxyMode>,
    asked: &Asked<'_>,
) -> Option<&'a Listing> {
    let listing = saved.servers.as_ref()?;
    let is_its = mode.map_or_else(|| lists(listing, asked), |mode| *mode == ProxyMode::Ipvs);
    is_its.then_some(listing)
}

/// Whether there is a virtual server for the Service.
pub(super) fn lists(listing: &Listing, asked: &Asked<'_>) -> bool {
    asked.ports.iter().any(|port| lists_port(listing, port))
}

/// Compares the virtual servers; `others` are rules that may take the same packets.
pub(super) fn compare(
    saved: &Backends,
    listing: &Listing,
    asked: &Asked<'_>,
    others: &[(Backend, &dyn Ruleset)],
) -> Result<Compared, ReadError> {
    if saved.are_servers_chosen {
        return Err(ReadError {
            what: "the virtual servers".to_owned(),
            why: "the list is filtered; save the whole output of `ipvsadm -ln`".to_owned(),
        });
    }
    // What is not in a part of the list may be on the node.
    let known: Vec<&ExpectedPort> = asked
        .ports
        .iter()
        .filter(|p| listing.is_whole || lists_port(listing, p))
        .collect();
    let gaps: Vec<Gap> = known
        .iter()
        .flat_map(|port| listing.servers.audit(port))
        .collect();
    let other = others.iter().find(|(_, rules)| asked.is_held_by(*rules));
    let compared = match u32::try_from(known.len()).unwrap_or(u32::MAX) {
        0 => Compared::default(),
        count => Compared::of(Backend::Ipvs, count, gaps).in_conflict_with(other.map(|(other, _)| *other)),
    };
    Ok(Compared {
        hairpin_set: saved.sets.as_ref().and_then(|sets| hairpins(sets, asked)),
        ..compared
    })
}

/// Whether packets to itself are masqueraded for every endpoint of the node: kube-proxy puts only those into the set.
fn hairpins(sets: &IpSets, asked: &Asked<'_>) -> Option<bool> {
    let mut endpoints = asked
        .ports
        .iter()
        .flat_map(|p| p.serving.iter().map(move |e| (p.protocol, *e)))
        .filter(|(_, endpoint)| asked.is_local(endpoint.ip()));
    endpoints.try_fold(true, |all, (protocol, endpoint)| {
        Some(all && sets.holds_hairpin(protocol, endpoint)?)
    })
}

/// Whether there is a virtual server for a cluster IP of a port.
fn lists_port(listing: &Listing, port: &ExpectedPort) -> bool {
    let mut own = port
        .destinations
        .iter()
        .filter(|d| d.purpose == Purpose::ClusterIp);
    own.any(|d| {
        let address = d.address.map(|ip| SocketAddr::new(ip, d.port));
        address.is_some_and(|address| listing.servers.at(d.protocol, address).is_some())
    })
}
