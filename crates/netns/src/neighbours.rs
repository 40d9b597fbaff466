//! Which link-layer address packets for an IP address are sent to.
//!
//! As ip-route(8) and ip-neighbour(8) show it: the route has the link and the next hop, the neighbour table the next hop's
//! link-layer address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    time::Duration,
};

use super::netlink::{Attributes, Family, Messages, Netlink, Request};

/// The tables of a node among thousands are below a mebibyte.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;
pub(crate) const LASTS: Duration = Duration::from_secs(2);

// linux/rtnetlink.h and linux/neighbour.h.
const NEW_ROUTE: u16 = 24;
pub(crate) const NEW_NEIGHBOUR: u16 = 28;
/// Of struct rtmsg, and of struct ndmsg.
const HEADER: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
pub(crate) const NDA_DST: u16 = 1;
pub(crate) const NDA_LLADDR: u16 = 2;
/// Packets are sent to such an entry: NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT.
const IS_USED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// A link-layer address (MAC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress(pub [u8; 6]);

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Where packets from the network namespace of the calling thread, which may be a Pod's, are sent to for each of these
/// addresses. Those that are reached through a gateway are left out, and those that nothing is known of.
///
/// # Errors
/// When the kernel refuses, or its table is too large.
pub fn of(ips: &BTreeSet<IpAddr>) -> io::Result<BTreeMap<IpAddr, LinkAddress>> {
    let netlink = Netlink::open_within(Family::Route, MAX_BYTES, LASTS)?;
    let neighbours = netlink.dump(&Request::neighbours())?;
    let found = ips.iter().filter_map(|ip| {
        let route = netlink.get(&Request::route_to(*ip)).ok()?;
        let hop = Hop::of(&route, *ip).filter(|hop| hop.ip == *ip)?;
        let address = link_address(hop, &neighbours)?.try_into().ok()?;
        Some((*ip, LinkAddress(address)))
    });
    Ok(found.collect())
}

/// The next stop of packets on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub link: u32,
    pub ip: IpAddr,
}

impl Hop {
    pub(crate) fn of(route: &Messages, destination: IpAddr) -> Option<Self> {
        let (_, body) = route.iter().find(|(kind, _)| *kind == NEW_ROUTE)?;
        let attributes = Attributes::behind(body, HEADER);
        let link = attributes.get(RTA_OIF)?.try_into().ok()?;
        let ip = match attributes.get(RTA_GATEWAY) {
            Some(gateway) => ip(gateway)?,
            None => destination,
        };
        Some(Self {
            link: u32::from_ne_bytes(link),
            ip,
        })
    }
}

/// The link-layer address that packets are sent to on their way to a next hop.
pub(crate) fn link_address(hop: Hop, neighbours: &Messages) -> Option<&[u8]> {
    let mut entries = of_link(neighbours, hop.link);
    let entry = entries.find(|entry| entry.get(NDA_DST).and_then(ip) == Some(hop.ip))?;
    entry.get(NDA_LLADDR)
}

/// The entries of a link, in the neighbour table or in a forwarding database, that packets are sent to.
pub(crate) fn of_link(table: &Messages, link: u32) -> impl Iterator<Item = Attributes<'_>> {
    let bodies = table.iter().filter(|(kind, _)| *kind == NEW_NEIGHBOUR);
    bodies
        .map(|(_, body)| body)
        .filter(move |body| {
            let of = body.get(4..8).and_then(|bytes| bytes.try_into().ok());
            let state = body.get(8..10).and_then(|bytes| bytes.try_into().ok());
            of.map(u32::from_ne_bytes) == Some(link)
                && state.is_some_and(|state| u16::from_ne_bytes(state) & IS_USED != 0)
        })
        .map(|body| Attributes::behind(body, HEADER))
}

/// The address in an attribute.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    const LINK: u32 = 7;
    const REACHABLE: u16 = 0x02;
    const FAILED: u16 = 0x20;

    /// An entry of a table that is in use.
    pub(crate) fn entry(link: u32, attributes: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
        in_state(link, REACHABLE, attributes)
    }

    fn in_state(link: u32, state: u16, attributes: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
        let mut header = vec![0; HEADER];
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&state.to_ne_bytes());
        (NEW_NEIGHBOUR, [header, attributes_of(attributes)].concat())
    }

    fn hop(attributes: &[(u16, &[u8])]) -> Option<Hop> {
        let route = vec![(NEW_ROUTE, [vec![0; HEADER], attributes_of(attributes)].concat())];
        Hop::of(&route, "10.244.2.6".parse().unwrap())
    }

    #[test]
    fn the_next_hop_is_the_gateway_or_else_the_address_itself() {
        let link = LINK.to_ne_bytes();
        let to = |ip: &str| {
            Some(Hop {
                link: LINK,
                ip: ip.parse().unwrap(),
            })
        };
        assert_eq!(
            hop(&[(RTA_OIF, &link), (RTA_GATEWAY, &[10, 244, 2, 0])]),
            to("10.244.2.0")
        );
        assert_eq!(hop(&[(RTA_OIF, &link)]), to("10.244.2.6"));
    }

    #[test]
    fn packets_go_to_the_entry_of_the_link_and_to_none_that_has_failed() {
        let ip = [10, 244, 2, 6];
        let (old, new) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let hop = hop(&[(RTA_OIF, &LINK.to_ne_bytes())]).unwrap();
        let failed = in_state(LINK, FAILED, &[(NDA_DST, &ip), (NDA_LLADDR, &old)]);
        let of_another = entry(8, &[(NDA_DST, &ip), (NDA_LLADDR, &old)]);
        let used = entry(LINK, &[(NDA_DST, &ip), (NDA_LLADDR, &new)]);
        let table = vec![failed.clone(), of_another.clone(), used];
        assert_eq!(link_address(hop, &table), Some(&new[..]));
        assert_eq!(link_address(hop, &vec![failed, of_another]), None);
    }

    #[test]
    fn an_address_reads_as_usual() {
        assert_eq!(
            LinkAddress([10, 88, 1, 0, 15, 255]).to_string(),
            "0a:58:01:00:0f:ff"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let ip = "10.244.2.6".parse().unwrap();
            let _ = Hop::of(&vec![(NEW_ROUTE, bytes.clone())], ip);
            let _ = link_address(Hop { link: 0, ip }, &vec![(NEW_NEIGHBOUR, bytes)]);
        }
    }
}
