//! Which node a VXLAN link sends the packets for an address to.
//!
//! As bridge(8) shows it: the link's forwarding database has the node behind the link-layer address of the next hop. Links
//! that are told so by a program with each packet ("external", as Cilium's) have no such database.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use svcdiag_api::TunnelKind;

use super::{
    links::{self, Link},
    neighbours::{self, Hop, LASTS, MAX_BYTES, NDA_DST, NDA_LLADDR, ip},
    netlink::{Attributes, Family, Messages, Netlink, Request},
};

// linux/neighbour.h.
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

/// The ends for what a link sends to a next hop, unless there are several.
fn ends(hop: Hop, link: &Link, neighbours: &Messages, database: &Messages) -> Option<TunnelEnds> {
    let hardware = neighbours::link_address(hop, neighbours);
    let database: Vec<Attributes<'_>> = neighbours::of_link(database, link.index).collect();
    let behind = |hardware: &[u8]| -> BTreeSet<(IpAddr, Option<u16>)> {
        let entries = database.iter().filter(|of| of.get(NDA_LLADDR) == Some(hardware));
        let ends = entries.filter_map(|of| {
            let port = of.get(NDA_PORT).and_then(|port| port.try_into().ok());
            Some((ip(of.get(NDA_DST)?)?, port.map(u16::from_be_bytes)))
        });
        ends.collect()
    };
    // The kernel as well takes the entry for anybody only where there is none for the address (vxlan_xmit).
    let known = hardware.map(behind).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::neighbours::{NEW_NEIGHBOUR, tests::entry};

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
            address: None,
        }
    }

    fn neighbour(ip: [u8; 4], hardware: &[u8]) -> (u16, Vec<u8>) {
        entry(LINK, &[(NDA_DST, &ip), (NDA_LLADDR, hardware)])
    }

    fn hop() -> Hop {
        Hop {
            link: LINK,
            ip: "10.244.2.0".parse().unwrap(),
        }
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

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let messages = vec![(NEW_NEIGHBOUR, bytes)];
            let _ = found(&messages, &messages);
        }
    }
}
