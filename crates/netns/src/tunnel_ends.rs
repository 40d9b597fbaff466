//! Which node a VXLAN link sends the packets for an address to.
//!
//! As ip-route(8), ip-neighbour(8) and bridge(8) show it: the route has the link and the next hop, the neighbour table the
//! next hop's link-layer address, and the link's forwarding database the node behind that address. Links that are told so
//! by a program with each packet ("external", as Cilium's) have no such database.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use svcdiag_api::TunnelKind;

use super::{
    links::{self, Link},
    netlink::{Attributes, Family, Messages, Netlink, Request},
};

/// The tables of a node among thousands are below a mebibyte.
const MAX_BYTES: usize = 8 * 1024 * 1024;
const LASTS: Duration = Duration::from_secs(2);

// linux/rtnetlink.h and linux/neighbour.h.
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
/// Of struct rtmsg, and of struct ndmsg.
const HEADER: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PORT: u16 = 6;

/// Whom a link sends to that knows nobody in particular.
const ANYBODY: [u8; 6] = [0; 6];

/// The ends of a tunnel, and the UDP port that packets go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelEnds {
    /// The node that it sends from, if one was set.
    pub from: Option<IpAddr>,
    /// The other node.
    pub to: IpAddr,
    /// The other node's port.
    pub port: u16,
}

/// The tunnels from the network namespace of the calling thread that packets to these addresses take. Addresses that are
/// reached without one, or by one whose other end cannot be told, are left out.
///
/// # Errors
/// When the kernel refuses, or its tables are too large.
pub fn towards(ips: &BTreeSet<IpAddr>) -> io::Result<BTreeMap<IpAddr, TunnelEnds>> {
    let netlink = Netlink::open_within(Family::Route, MAX_BYTES, LASTS)?;
    let links = links::links()?;
    let mut by_tunnel = Vec::new();
    for ip in ips {
        // No route is none by a tunnel.
        let route = netlink.get(&Request::route_to(*ip)).ok();
        let hop = route.and_then(|route| Hop::of(&route, *ip));
        let link = hop.and_then(|hop| links.iter().find(|link| link.index == hop.link));
        let vxlan = link.filter(|link| link.tunnel == Some(TunnelKind::Vxlan));
        if let Some((hop, link)) = hop.zip(vxlan) {
            by_tunnel.push((*ip, hop, link));
        }
    }
    if by_tunnel.is_empty() {
        return Ok(BTreeMap::new());
    }
    let neighbours = netlink.dump(&Request::neighbours())?;
    let database = netlink.dump(&Request::forwarding_database())?;
    let ends = by_tunnel
        .into_iter()
        .filter_map(|(ip, hop, link)| Some((ip, ends(hop, link, &neighbours, &database)?)));
    Ok(ends.collect())
}

/// The next stop of packets on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    link: u32,
    ip: IpAddr,
}

impl Hop {
    fn of(route: &Messages, destination: IpAddr) -> Option<Self> {
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

/// The ends for what a link sends to a next hop, unless there are several.
fn ends(hop: Hop, link: &Link, neighbours: &Messages, database: &Messages) -> Option<TunnelEnds> {
    let of_link = |messages: &Messages| -> Vec<Vec<u8>> {
        let of_link = messages
            .iter()
            .filter(|(kind, body)| *kind == NEW_NEIGHBOUR && link_of(body) == Some(link.index));
        of_link.map(|(_, body)| body.clone()).collect()
    };
    let attribute = |body: &[u8], kind| Attributes::behind(body, HEADER).get(kind).map(<[u8]>::to_vec);
    let neighbours = of_link(neighbours);
    let neighbour = neighbours
        .iter()
        .find(|body| attribute(body, NDA_DST).as_deref().and_then(ip) == Some(hop.ip));
    let hardware = neighbour.and_then(|body| attribute(body, NDA_LLADDR));
    let database = of_link(database);
    let behind = |hardware: &[u8]| -> BTreeSet<(IpAddr, Option<u16>)> {
        let entries = database
            .iter()
            .filter(|body| attribute(body, NDA_LLADDR).as_deref() == Some(hardware));
        let ends = entries.filter_map(|body| {
            let port = attribute(body, NDA_PORT).and_then(|port| port.try_into().ok());
            Some((ip(&attribute(body, NDA_DST)?)?, port.map(u16::from_be_bytes)))
        });
        ends.collect()
    };
    // The kernel as well takes the entry for anybody only where there is none for the address (vxlan_xmit).
    let known = hardware.map(|hardware| behind(&hardware)).unwrap_or_default();
    let mut known = match known.is_empty() {
        true => behind(&ANYBODY),
        false => known,
    }
    .into_iter();
    let ((to, port), None) = (known.next()?, known.next()) else {
        return None;
    };
    Some(TunnelEnds {
        from: link.tunnel_from,
        to,
        port: port.or(link.tunnel_port)?,
    })
}

/// The number of the link in a message about a neighbour.
fn link_of(body: &[u8]) -> Option<u32> {
    let index = body.get(4..8)?.try_into().ok()?;
    Some(u32::from_ne_bytes(index))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    const LINK: u32 = 7;
    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 8, 2];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 8, 3];

    fn flannel() -> Link {
        Link {
            index: LINK,
            name: "flannel.1".to_owned(),
            peer: None,
            bridge: None,
            hairpin_mode: None,
            mtu: None,
            tunnel: Some(TunnelKind::Vxlan),
            tunnel_from: None,
            tunnel_port: Some(8472),
            is_plain: false,
        }
    }

    fn entry(link: u32, attributes: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
        let mut header = vec![0; HEADER];
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        (NEW_NEIGHBOUR, [header, attributes_of(attributes)].concat())
    }

    fn neighbour(ip: [u8; 4], hardware: &[u8]) -> (u16, Vec<u8>) {
        entry(LINK, &[(NDA_DST, &ip), (NDA_LLADDR, hardware)])
    }

    fn hop() -> Hop {
        let link = LINK.to_ne_bytes();
        let attributes: [(u16, &[u8]); 2] = [(RTA_OIF, &link), (RTA_GATEWAY, &[10, 244, 2, 0])];
        let route = vec![(NEW_ROUTE, [vec![0; HEADER], attributes_of(&attributes)].concat())];
        Hop::of(&route, "10.244.2.6".parse().unwrap()).unwrap()
    }

    fn found(neighbours: &Messages, database: &Messages) -> Option<(String, u16)> {
        let ends = ends(hop(), &flannel(), neighbours, database)?;
        Some((ends.to.to_string(), ends.port))
    }

    #[test]
    fn the_next_hops_hardware_address_has_the_node() {
        let neighbours = vec![
            neighbour([10, 244, 3, 0], &OTHER),
            neighbour([10, 244, 2, 0], &HARDWARE),
        ];
        let database = vec![
            neighbour([172, 18, 0, 4], &OTHER),
            // Of another link.
            entry(8, &[(NDA_DST, &[172, 18, 0, 9]), (NDA_LLADDR, &HARDWARE)]),
            neighbour([172, 18, 0, 3], &HARDWARE),
        ];
        assert_eq!(
            found(&neighbours, &database),
            Some(("172.18.0.3".to_owned(), 8472))
        );
        let to_port = entry(
            LINK,
            &[
                (NDA_DST, &[172, 18, 0, 3]),
                (NDA_LLADDR, &HARDWARE),
                (NDA_PORT, &4789_u16.to_be_bytes()),
            ],
        );
        assert_eq!(
            found(&neighbours, &vec![to_port]),
            Some(("172.18.0.3".to_owned(), 4789))
        );
    }

    #[test]
    fn where_nobody_is_known_it_is_the_node_for_anybody_if_that_is_one() {
        let one = vec![neighbour([172, 18, 0, 3], &ANYBODY)];
        let two = [one.clone(), vec![neighbour([172, 18, 0, 4], &ANYBODY)]].concat();
        assert_eq!(found(&Vec::new(), &one), Some(("172.18.0.3".to_owned(), 8472)));
        assert_eq!(found(&Vec::new(), &two), None);
        assert_eq!(found(&Vec::new(), &Vec::new()), None);
    }

    #[test]
    fn without_a_gateway_the_next_hop_is_the_address_itself() {
        let link = LINK.to_ne_bytes();
        let route = vec![(
            NEW_ROUTE,
            [vec![0; HEADER], attributes_of(&[(RTA_OIF, &link)])].concat(),
        )];
        let ip = "10.244.2.6".parse().unwrap();
        assert_eq!(Hop::of(&route, ip), Some(Hop { link: LINK, ip }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let route = vec![(NEW_ROUTE, bytes.clone())];
            let _ = Hop::of(&route, "10.244.2.6".parse().unwrap());
            let messages = vec![(NEW_NEIGHBOUR, bytes)];
            let _ = found(&messages, &messages);
        }
    }
}
