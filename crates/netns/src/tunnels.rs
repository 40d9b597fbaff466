//! Links of a network namespace that take Pods' packets to other nodes.
//!
//! Source: the kernel's include/uapi/linux/if_link.h.

use std::io;

use super::netlink::{Attributes, Netlink, Protocol, Request};
use svcdiag_api::{Tunnel, TunnelKind};

const GET_LINK: u16 = 18;
const NEW_LINK: u16 = 16;
/// struct ifinfomsg: family, padding, type, index, flags, change.
const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_GENEVE_PORT: u16 = 5;

/// Most tunnels that are told; network plugins have one or two.
const MAX: usize = 8;

/// The tunnels that are up in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn read() -> io::Result<Vec<Tunnel>> {
    let netlink = Netlink::open(Protocol::Route)?;
    let links = netlink.dump(&Request::with_header(GET_LINK, &[0; HEADER]))?;
    let mut found: Vec<Tunnel> = links
        .iter()
        .filter(|(kind, _)| *kind == NEW_LINK)
        .filter_map(|(_, body)| tunnel(body))
        .collect();
    found.sort();
    found.truncate(MAX);
    Ok(found)
}

/// A link, if it is a tunnel and up.
pub(super) fn tunnel(body: &[u8]) -> Option<Tunnel> {
    let flags = u32::from_ne_bytes(body.get(8..12)?.try_into().ok()?);
    if flags & IFF_UP == 0 {
        return None;
    }
    let attributes = Attributes::behind(body, HEADER);
    let info = attributes.nested(IFLA_LINKINFO)?;
    let (kind, port) = match info.text(IFLA_INFO_KIND)? {
        "vxlan" => (TunnelKind::Vxlan, Some(IFLA_VXLAN_PORT)),
        "geneve" => (TunnelKind::Geneve, Some(IFLA_GENEVE_PORT)),
        "wireguard" => (TunnelKind::WireGuard, None),
        "ipip" => (TunnelKind::Ipip, None),
        "gre" | "gretap" => (TunnelKind::Gre, None),
        _ => return None,
    };
    let data = info.nested(IFLA_INFO_DATA);
    let port = port.zip(data).and_then(|(port, data)| data.get(port));
    Some(Tunnel {
        name: attributes.text(IFLA_IFNAME)?.to_owned(),
        kind,
        port: port.and_then(|bytes| Some(u16::from_be_bytes(bytes.try_into().ok()?))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    /// The message of a link that is up.
    fn up(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut header = vec![0; HEADER];
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
        body[8] = 0;
        assert_eq!(tunnel(&body), None, "it is down");
        let bridge = attributes_of(&[(IFLA_INFO_KIND, b"bridge\0")]);
        assert_eq!(
            tunnel(&up(&[(IFLA_IFNAME, b"cni0\0"), (IFLA_LINKINFO, &bridge)])),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = tunnel(&bytes);
        }
    }
}
