//! Connections that the kernel tracks: which endpoint answered, and what leads nowhere.
//!
//! Source: the kernel's include/uapi/linux/netfilter/nfnetlink_conntrack.h.

mod statistics;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use crate::netlink::{Attributes, Family, Netlink, Request, attributes_of, nested};
use svcdiag_formats::connection::Connection;
use svcdiag_kube_proxy::{IpFamily, Protocol};

pub(crate) use statistics::of_cpu;
pub use statistics::{Dropped, Statistics};

/// NFNL_SUBSYS_CTNETLINK.
const SUBSYSTEM: u8 = 1;
const GET: u8 = 1;
/// Length of struct nfgenmsg.
const HEADER: usize = 4;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TIMEOUT: u16 = 7;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// The connections tracked in a network namespace.
#[derive(Debug)]
pub struct Conntrack(Netlink);

impl Conntrack {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        Netlink::open(Family::Netfilter).map(Self)
    }

    /// The connection from a source to a destination, if it is tracked.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn find(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> io::Result<Option<Connection>> {
        let request = request(IpFamily::of(source.ip()))
            .nested(TUPLE_ORIGINAL, &tuple(protocol, Some(source), destination));
        match self.0.get(&request) {
            Ok(messages) => Ok(messages.iter().find_map(|(_, body)| connection(body))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The connections to a destination, from wherever. The kernel picks them out.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn towards(&self, protocol: Protocol, destination: SocketAddr) -> io::Result<Vec<Connection>> {
        /// CTA_FILTER_ORIG_FLAGS, and the flags of destination address, protocol and destination port.
        const ORIGINAL_FLAGS: u16 = 1;
        const FLAGS: u32 = (1 << 1) | (1 << 3) | (1 << 5);
        let filter = attributes_of(&[(ORIGINAL_FLAGS, &FLAGS.to_ne_bytes())]);
        let request = request(IpFamily::of(destination.ip()))
            .nested(TUPLE_ORIGINAL, &tuple(protocol, None, destination))
            .nested(FILTER, &filter);
        let messages = self.0.dump(&request)?;
        Ok(messages
            .iter()
            .filter_map(|(_, body)| connection(body))
            // Kernels before 5.8 do not know the filter.
            .filter(|c| c.destination == destination)
            .collect())
    }
}

fn request(family: IpFamily) -> Request {
    let family = match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    };
    Request::netfilter(SUBSYSTEM, GET, family)
}

fn tuple(protocol: Protocol, source: Option<SocketAddr>, destination: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (source_kind, destination_kind) = match destination.ip() {
        IpAddr::V4(_) => (1, 2),
        IpAddr::V6(_) => (3, 4),
    };
    let source_ip = source.map(|s| octets(s.ip()));
    let destination_ip = octets(destination.ip());
    let mut ip: Vec<(u16, &[u8])> = Vec::new();
    ip.extend(source_ip.as_deref().map(|bytes| (source_kind, bytes)));
    ip.push((destination_kind, &destination_ip));
    let number = [protocol.number()];
    let source_port = source.map(|s| s.port().to_be_bytes());
    let destination_port = destination.port().to_be_bytes();
    let mut proto: Vec<(u16, &[u8])> = vec![(PROTO_NUMBER, &number)];
    proto.extend(
        source_port
            .as_ref()
            .map(|bytes| (PROTO_SOURCE_PORT, bytes.as_slice())),
    );
    proto.push((PROTO_DESTINATION_PORT, &destination_port));
    attributes_of(&[
        (nested(TUPLE_IP), &attributes_of(&ip)),
        (nested(TUPLE_PROTO), &attributes_of(&proto)),
    ])
}

/// The connection in a message about one.
pub(crate) fn connection(body: &[u8]) -> Option<Connection> {
    let attributes = Attributes::behind(body, HEADER);
    let (source, destination) = ends(attributes.nested(TUPLE_ORIGINAL)?)?;
    let (answers, answers_to) = ends(attributes.nested(TUPLE_REPLY)?)?;
    Some(Connection {
        source,
        destination,
        answers,
        answers_to,
        seconds_left: attributes.be_u32(TIMEOUT).unwrap_or_default(),
    })
}

/// Source and destination of a tuple.
fn ends(tuple: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, proto) = (tuple.nested(TUPLE_IP)?, tuple.nested(TUPLE_PROTO)?);
    let address = |v4: u16, v6: u16| match ip.get(v4) {
        Some(bytes) => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        None => Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(v6)?).ok()?)),
    };
    let port = |kind| proto.be_u16(kind).unwrap_or_default();
    Some((
        SocketAddr::new(address(1, 3)?, port(PROTO_SOURCE_PORT)),
        SocketAddr::new(address(2, 4)?, port(PROTO_DESTINATION_PORT)),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_address(v6: bool) -> BoxedStrategy<SocketAddr> {
        if v6 {
            any::<([u8; 16], u16)>().prop_map(SocketAddr::from).boxed()
        } else {
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from).boxed()
        }
    }

    fn ends_of_a_connection() -> impl Strategy<Value = [SocketAddr; 4]> {
        any::<bool>().prop_flat_map(|v6| std::array::from_fn(|_| any_address(v6)))
    }

    fn message([source, destination, answers, answers_to]: [SocketAddr; 4], timeout: u32) -> Vec<u8> {
        let original = tuple(Protocol::Udp, Some(source), destination);
        let reply = tuple(Protocol::Udp, Some(answers), answers_to);
        let attributes = attributes_of(&[
            (nested(TUPLE_ORIGINAL), &original),
            (nested(TUPLE_REPLY), &reply),
            (TIMEOUT, &timeout.to_be_bytes()),
        ]);
        [vec![0; HEADER], attributes].concat()
    }

    proptest! {
        #[test]
        fn every_connection_is_read(ends in ends_of_a_connection(), seconds_left: u32) {
            let [source, destination, answers, answers_to] = ends;
            let expected = Connection { source, destination, answers, answers_to, seconds_left };
            prop_assert_eq!(connection(&message(ends, seconds_left)), Some(expected));
        }

        #[test]
        fn damaged_messages_are_survived(
            ends in ends_of_a_connection(),
            damage in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
            length in 0_usize..220,
        ) {
            let mut message = message(ends, 0);
            for (at, value) in damage {
                if let Some(byte) = message.get_mut(at) {
                    *byte = value;
                }
            }
            message.truncate(length);
            let _ = connection(&message);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = connection(&bytes);
        }
    }
}
