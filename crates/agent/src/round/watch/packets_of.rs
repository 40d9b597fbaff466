//! The packets of one dial among all that were seen: by which interface most came in, or went out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use svcdiag_drops::{Leg, Sighting};
use svcdiag_kube_proxy::Protocol;

/// What was seen, and the dial.
pub(super) struct PacketsOf<'a> {
    pub(super) seen: &'a [Sighting],
    pub(super) protocol: Protocol,
    pub(super) client: IpAddr,
    pub(super) endpoint: SocketAddr,
}

/// An interface, if its name is known, and how many packets passed it.
pub(super) type Most<'a> = Option<(Option<&'a str>, u64)>;

impl<'a> PacketsOf<'a> {
    /// Of all interfaces of some network namespaces by which packets came in, or went out, the one with the most.
    pub(super) fn most(&self, leg: Leg, is_sent: bool, is_there: impl Fn(u64) -> bool) -> Most<'a> {
        let mut by: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for packet in self.seen.iter().filter(|packet| self.is_its(packet)) {
            let is_that_way = packet.leg == leg && packet.is_sent == is_sent;
            if is_that_way && packet.namespace.is_some_and(|of| is_there(of.into())) {
                let name = packet.interface.as_ref().map(|interface| interface.name.as_str());
                let count = by.entry(name).or_default();
                *count = count.saturating_add(packet.count);
            }
        }
        by.into_iter().max_by_key(|(_, count)| *count)
    }

    fn is_its(&self, packet: &Sighting) -> bool {
        let (from, to) = match packet.leg {
            Leg::Answer => (packet.tuple.destination.ip(), packet.tuple.source),
            _ => (packet.tuple.source.ip(), packet.tuple.destination),
        };
        packet.tuple.protocol == self.protocol && (from, to) == (self.client, self.endpoint)
    }
}

pub(super) fn count(of: Most<'_>) -> u32 {
    number(of.map_or(0, |(_, count)| count))
}

pub(super) fn name(of: Most<'_>) -> Option<String> {
    of.and_then(|(name, _)| name).map(str::to_owned)
}

/// What does not fit is as much as fits.
pub(super) fn number(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
