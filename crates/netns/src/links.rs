//! Links and addresses of a network namespace.
//!
//! netlink-packet-route decodes the attributes of a message, each on its own: one that it does not understand, such
//! as that of a newer kernel, is passed over and hides none of the others.

use std::{io, net::IpAddr};

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator, Parseable, ParseableParametrized};
use netlink_packet_route::{
    address::{AddressAttribute, AddressHeader},
    link::{
        InfoBridgePort, InfoData, InfoGeneve, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags,
        LinkHeader, LinkInfo,
    },
    route::{RouteAttribute, RouteHeader, RouteLwEnCapType},
};
use svcdiag_api::{Tunnel, TunnelKind};

use super::{
    neighbours::LinkAddress,
    netlink::{Family, Messages, Netlink, Request},
};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// Most tunnels that are reported; network plugins have one or two.
const MAX_TUNNELS: usize = 8;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The number of its other end, which may be in another namespace.
    pub peer: Option<u32>,
    /// The number of the bridge that it is a port of.
    pub bridge: Option<u32>,
    /// Whether the bridge sends packets back out of the port they came in by.
    pub hairpin_mode: Option<bool>,
    /// The largest packet that it takes, in bytes.
    pub mtu: Option<u32>,
    /// How it encapsulates packets, if it is a tunnel that is up.
    pub tunnel: Option<TunnelKind>,
    /// The address that it sends encapsulated packets from, if one was set (VXLAN).
    pub tunnel_from: Option<IpAddr>,
    /// The UDP port that it sends to as a tunnel, if it has one and the kernel reports it.
    pub tunnel_port: Option<u16>,
    /// Whether it is of a kind that passes packets on as they are. Of others, as tun, one cannot tell.
    pub is_plain: bool,
    /// Its link-layer address, if it has one as Ethernet has them.
    pub address: Option<LinkAddress>,
}

/// The links in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel refuses.
pub fn links() -> io::Result<Vec<Link>> {
    let messages = Netlink::open(Family::Route)?.dump(&Request::links())?;
    Ok(of_kind(&messages, NEW_LINK).filter_map(link).collect())
}

/// The same where a Pod may have made as many as it likes.
///
/// # Errors
/// When the kernel refuses, or there are too many.
pub fn links_of_pod() -> io::Result<Vec<Link>> {
    let messages = Netlink::open_in_pod(Family::Route)?.dump(&Request::links())?;
    Ok(of_kind(&messages, NEW_LINK).filter_map(link).collect())
}

/// The tunnels that are up in the network namespace of the calling thread: they carry Pods' packets to other nodes.
///
/// # Errors
/// When the kernel refuses.
pub fn tunnels() -> io::Result<Vec<Tunnel>> {
    let messages = Netlink::open(Family::Route)?.dump(&Request::links())?;
    let mut found: Vec<Tunnel> = of_kind(&messages, NEW_LINK).filter_map(tunnel).collect();
    found.sort();
    found.truncate(MAX_TUNNELS);
    Ok(found)
}

/// The addresses in the network namespace of the calling thread, which may be a Pod's.
///
/// # Errors
/// When the kernel refuses, or there are too many.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    Ok(addresses_of_links()?.into_iter().map(|(_, ip)| ip).collect())
}

/// The same, each with the number of its link.
///
/// # Errors
/// The same.
pub fn addresses_of_links() -> io::Result<Vec<(u32, IpAddr)>> {
    let messages = Netlink::open_in_pod(Family::Route)?.dump(&Request::addresses())?;
    Ok(of_kind(&messages, NEW_ADDRESS).filter_map(address).collect())
}

/// The number of the link by which packets to an address leave the network namespace of the calling thread.
///
/// # Errors
/// When the kernel refuses, or there is no route.
pub fn link_towards(ip: IpAddr) -> io::Result<Option<u32>> {
    let messages = Netlink::open(Family::Route)?.get(&Request::route_to(ip))?;
    let found = of_kind(&messages, NEW_ROUTE).find_map(outgoing);
    Ok(found)
}

fn of_kind(messages: &Messages, kind: u16) -> impl Iterator<Item = &[u8]> {
    let wanted = messages.iter().filter(move |(found, _)| *found == kind);
    wanted.map(|(_, body)| body.as_slice())
}

/// The first of a list that is of one kind.
macro_rules! first {
    ($list:expr, $pattern:pat => $value:expr) => {
        $list.iter().find_map(|one| match one {
            $pattern => Some($value),
            _ => None,
        })
    };
}

/// A link, from a message about it.
pub(crate) fn link(body: &[u8]) -> Option<Link> {
    let (header, attributes) = attributes(body)?;
    let controller = first!(attributes, LinkAttribute::Controller(index) => *index);
    let port = first!(info(&attributes), LinkInfo::PortData(InfoPortData::BridgePort(port)) => port);
    let is_up = header.flags.contains(LinkFlags::Up);
    Some(Link {
        index: header.index,
        name: name(&attributes)?,
        peer: first!(attributes, LinkAttribute::Link(index) => *index),
        bridge: port.and(controller),
        hairpin_mode: port.and_then(|port| first!(port, InfoBridgePort::HairpinMode(is_on) => *is_on)),
        mtu: first!(attributes, LinkAttribute::Mtu(mtu) => *mtu),
        tunnel: tunnel_kind(info(&attributes)).filter(|_| is_up),
        tunnel_from: tunnel_from(info(&attributes)),
        tunnel_port: tunnel_port(info(&attributes)),
        is_plain: is_plain(info(&attributes)),
        address: first!(attributes, LinkAttribute::Address(bytes) => bytes)
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .map(LinkAddress),
    })
}

fn tunnel_from(info: &[LinkInfo]) -> Option<IpAddr> {
    let Some(InfoData::Vxlan(data)) = first!(info, LinkInfo::Data(data) => data) else {
        return None;
    };
    let v4 = first!(data, InfoVxlan::Local(ip) => IpAddr::from(*ip));
    v4.or_else(|| first!(data, InfoVxlan::Local6(ip) => IpAddr::from(*ip)))
}

fn tunnel_port(info: &[LinkInfo]) -> Option<u16> {
    match first!(info, LinkInfo::Data(data) => data)? {
        InfoData::Vxlan(data) => first!(data, InfoVxlan::Port(port) => *port),
        InfoData::Geneve(data) => first!(data, InfoGeneve::Port(port) => *port),
        _ => None,
    }
}

/// A physical link has no kind.
fn is_plain(info: &[LinkInfo]) -> bool {
    first!(info, LinkInfo::Kind(kind) => kind).is_none_or(|kind| {
        matches!(
            kind,
            InfoKind::Veth
                | InfoKind::Bridge
                | InfoKind::Bond
                | InfoKind::Vlan
                | InfoKind::MacVlan
                | InfoKind::IpVlan
        )
    })
}

fn tunnel_kind(info: &[LinkInfo]) -> Option<TunnelKind> {
    match first!(info, LinkInfo::Kind(kind) => kind)? {
        InfoKind::Vxlan => Some(TunnelKind::Vxlan),
        InfoKind::Geneve => Some(TunnelKind::Geneve),
        InfoKind::Wireguard => Some(TunnelKind::WireGuard),
        InfoKind::IpIp => Some(TunnelKind::Ipip),
        InfoKind::GreTun | InfoKind::GreTap => Some(TunnelKind::Gre),
        _ => None,
    }
}

/// A link, if it is a tunnel and up.
pub(crate) fn tunnel(body: &[u8]) -> Option<Tunnel> {
    let (header, attributes) = attributes(body)?;
    header.flags.contains(LinkFlags::Up).then_some(())?;
    let info = info(&attributes);
    let kind = tunnel_kind(info)?;
    Some(Tunnel {
        name: name(&attributes)?,
        kind,
        port: tunnel_port(info),
    })
}

/// The address in a message about one, with the number of its link.
pub(crate) fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let header = AddressHeader::parse(body).ok()?;
    let attributes = understood(body.get(header.buffer_len()..)?, |a| {
        AddressAttribute::parse(a).ok()
    });
    // On a link between two ends IFA_ADDRESS is the other end's.
    let local = first!(attributes, AddressAttribute::Local(ip) => *ip);
    let address = local.or_else(|| first!(attributes, AddressAttribute::Address(ip) => *ip))?;
    Some((header.index, address))
}

/// The link in a message about a route.
pub(crate) fn outgoing(body: &[u8]) -> Option<u32> {
    let header = RouteHeader::parse(body).ok()?;
    let of = (header.address_family, header.kind, RouteLwEnCapType::None);
    let attributes = understood(body.get(header.buffer_len()..)?, |a| {
        RouteAttribute::parse_with_param(a, of).ok()
    });
    first!(attributes, RouteAttribute::Oif(index) => *index)
}

fn attributes(body: &[u8]) -> Option<(LinkHeader, Vec<LinkAttribute>)> {
    let header = LinkHeader::parse(body).ok()?;
    let attributes = understood(body.get(header.buffer_len()..)?, |a| {
        LinkAttribute::parse_with_param(a, header.interface_family).ok()
    });
    Some((header, attributes))
}

fn understood<T>(attributes: &[u8], parse: impl Fn(&NlaBuffer<&[u8]>) -> Option<T>) -> Vec<T> {
    let whole = NlasIterator::new(attributes).map_while(Result::ok);
    whole.filter_map(|attribute| parse(&attribute)).collect()
}

fn name(attributes: &[LinkAttribute]) -> Option<String> {
    first!(attributes, LinkAttribute::IfName(name) => name.clone())
}

/// What is known of a link for its kind, and for the kind of port that it is.
fn info(attributes: &[LinkAttribute]) -> &[LinkInfo] {
    first!(attributes, LinkAttribute::LinkInfo(info) => info.as_slice()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    // The kernel's numbers, include/uapi/linux/if_link.h and if_addr.h.
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINK: u16 = 5;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    const IFLA_BRPORT_MODE: u16 = 4;
    const IFLA_VXLAN_PORT: u16 = 15;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;

    /// The message of link 3, which is up.
    fn up(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut header = vec![0; 16];
        header[4] = 3;
        header[8] = 1;
        [header, attributes_of(attributes)].concat()
    }

    #[test]
    fn a_tunnel_is_known_by_its_kind_and_port() {
        let data = attributes_of(&[(IFLA_VXLAN_PORT, &8472_u16.to_be_bytes())]);
        let info = attributes_of(&[(IFLA_INFO_KIND, b"vxlan\0"), (IFLA_INFO_DATA, &data)]);
        let mut body = up(&[(IFLA_IFNAME, b"flannel.1\0"), (IFLA_LINKINFO, &info)]);
        let expected = Tunnel {
            name: "flannel.1".to_owned(),
            kind: TunnelKind::Vxlan,
            port: Some(8472),
        };
        assert_eq!(tunnel(&body), Some(expected));
        assert_eq!(link(&body).and_then(|l| l.tunnel), Some(TunnelKind::Vxlan));
        body[8] = 0;
        assert_eq!(tunnel(&body), None, "it is down");
        assert_eq!(link(&body).and_then(|l| l.tunnel), None, "it is down");
        let bridge = attributes_of(&[(IFLA_INFO_KIND, b"bridge\0")]);
        assert_eq!(
            tunnel(&up(&[(IFLA_IFNAME, b"cni0\0"), (IFLA_LINKINFO, &bridge)])),
            None
        );
    }

    #[test]
    fn a_port_of_a_bridge_is_known_by_what_the_bridge_says_of_it() {
        let port = attributes_of(&[(IFLA_BRPORT_MODE, &[1])]);
        let info = attributes_of(&[
            (IFLA_INFO_KIND, b"veth\0"),
            (IFLA_INFO_SLAVE_KIND, b"bridge\0"),
            (IFLA_INFO_SLAVE_DATA, &port),
        ]);
        let body = up(&[
            (IFLA_IFNAME, b"veth1\0"),
            (IFLA_LINK, &2_u32.to_ne_bytes()),
            (IFLA_MTU, &1450_u32.to_ne_bytes()),
            (IFLA_MASTER, &7_u32.to_ne_bytes()),
            (IFLA_ADDRESS, &[2, 0, 0, 0, 0, 3]),
            (IFLA_LINKINFO, &info),
        ]);
        let expected = Link {
            index: 3,
            name: "veth1".to_owned(),
            peer: Some(2),
            bridge: Some(7),
            hairpin_mode: Some(true),
            mtu: Some(1450),
            tunnel: None,
            tunnel_from: None,
            tunnel_port: None,
            is_plain: true,
            address: Some(LinkAddress([2, 0, 0, 0, 0, 3])),
        };
        assert_eq!(link(&body), Some(expected));
        let of_tun = attributes_of(&[(IFLA_INFO_KIND, b"tun\0")]);
        let tun = up(&[(IFLA_IFNAME, b"tailscale0\0"), (IFLA_LINKINFO, &of_tun)]);
        assert_eq!(link(&tun).map(|link| link.is_plain), Some(false));
        let of_bond = up(&[(IFLA_IFNAME, b"eth0\0"), (IFLA_MASTER, &7_u32.to_ne_bytes())]);
        assert_eq!(link(&of_bond).and_then(|l| l.bridge), None);
    }

    #[test]
    fn the_address_is_that_of_the_near_end() {
        let (near, far) = (Ipv4Addr::new(10, 244, 0, 1), Ipv4Addr::new(10, 244, 0, 2));
        let header = [[0; 4], 3_u32.to_ne_bytes()].concat();
        let message = |list: &[(u16, &[u8])]| [header.clone(), attributes_of(list)].concat();
        let both = message(&[(IFA_ADDRESS, &far.octets()), (IFA_LOCAL, &near.octets())]);
        assert_eq!(address(&both), Some((3, near.into())));
        let v6 = message(&[(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]);
        assert_eq!(address(&v6), Some((3, Ipv6Addr::LOCALHOST.into())));
        assert_eq!(address(&message(&[(IFA_ADDRESS, &[1, 2])])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = (link(&bytes), tunnel(&bytes), address(&bytes), outgoing(&bytes));
        }

        #[test]
        fn any_attributes_are_survived(
            header in prop::collection::vec(any::<u8>(), 16),
            name in "[a-z0-9]{1,15}",
            others in prop::collection::vec((0_u16..72, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        ) {
            let mut list: Vec<(u16, &[u8])> = vec![(IFLA_IFNAME, name.as_bytes())];
            list.extend(others.iter().map(|(kind, value)| (*kind, value.as_slice())));
            let body = [header, attributes_of(&list)].concat();
            prop_assert_eq!(link(&body).map(|l| l.name), Some(name));
            let _ = (tunnel(&body), address(&body), outgoing(&body));
        }

        #[test]
        fn any_kind_of_link_and_port_is_survived(
            kind in "(vxlan|geneve|bridge|bond|vlan|macvlan|tun|vrf|gre|ipip|sit|veth|can|hsr|macsec|xfrm|[a-z]{1,8})",
            port in "(bridge|bond|vrf|team|[a-z]{1,8})",
            data in prop::collection::vec((0_u16..48, prop::collection::vec(any::<u8>(), 0..24)), 0..12),
        ) {
            let data: Vec<(u16, &[u8])> = data.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
            let data = attributes_of(&data);
            let info = attributes_of(&[
                (IFLA_INFO_KIND, kind.as_bytes()), (IFLA_INFO_DATA, &data), (3, &data),
                (IFLA_INFO_SLAVE_KIND, port.as_bytes()), (IFLA_INFO_SLAVE_DATA, &data),
            ]);
            let body = up(&[(IFLA_IFNAME, b"x\0"), (IFLA_LINKINFO, &info)]);
            let _ = (link(&body), tunnel(&body));
        }
    }
}
