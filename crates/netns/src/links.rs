//! Links of a network namespace: which are ports of a bridge, and whether packets may go back out of
//! the port they came in by.
//!
//! Source: the kernel's include/uapi/linux/if_link.h.

use std::io;

use super::netlink::{Attributes, Netlink, Protocol, Request};

const GET_LINK: u16 = 18;
const NEW_LINK: u16 = 16;
/// struct ifinfomsg: family, padding, type, index, flags, change.
const HEADER: usize = 16;
const AF_BRIDGE: u8 = 7;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
/// hairpin_mode of a port.
const IFLA_BRPORT_MODE: u16 = 4;

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
}

/// The links in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn links() -> io::Result<Vec<Link>> {
    read(&Netlink::open(Protocol::Route)?)
}

/// The same where a Pod may have made as many as it likes.
///
/// # Errors
/// When the kernel does not tell, or there are too many.
pub fn links_of_pod() -> io::Result<Vec<Link>> {
    read(&Netlink::open_in_pod(Protocol::Route)?)
}

fn read(netlink: &Netlink) -> io::Result<Vec<Link>> {
    let dump = |family: u8| {
        let mut header = [0; HEADER];
        if let Some(first) = header.first_mut() {
            *first = family;
        }
        netlink.dump(&Request::with_header(GET_LINK, &header))
    };
    let mut links: Vec<Link> = dump(0)?
        .iter()
        .filter(|(kind, _)| *kind == NEW_LINK)
        .filter_map(|(_, body)| link(body))
        .collect();
    // Only a question of the bridge's family is answered with what the bridge knows of its ports.
    for port in dump(AF_BRIDGE)?.iter().filter_map(|(_, body)| link(body)) {
        if let Some(known) = links.iter_mut().find(|l| l.index == port.index) {
            known.bridge = port.bridge;
            known.hairpin_mode = port.hairpin_mode;
        }
    }
    Ok(links)
}

/// A link, from a message about it.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let attributes = Attributes::behind(body, HEADER);
    let number = |kind| {
        let bytes = attributes.get(kind)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let port = attributes.nested(IFLA_PROTINFO);
    Some(Link {
        index: u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?),
        name: attributes.text(IFLA_IFNAME)?.to_owned(),
        peer: number(IFLA_LINK),
        bridge: port.and_then(|_| number(IFLA_MASTER)),
        hairpin_mode: port.and_then(|p| p.byte(IFLA_BRPORT_MODE)).map(|mode| mode != 0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = link(&bytes);
        }

        #[test]
        fn any_attributes_are_survived(
            header in prop::collection::vec(any::<u8>(), HEADER),
            name in "[a-z0-9]{1,15}",
            others in prop::collection::vec((0_u16..64, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        ) {
            let mut list: Vec<(u16, &[u8])> = vec![(IFLA_IFNAME, name.as_bytes())];
            list.extend(others.iter().map(|(kind, value)| (*kind, value.as_slice())));
            let body = [header, attributes_of(&list)].concat();
            prop_assert_eq!(link(&body).map(|l| l.name), Some(name));
        }
    }
}
