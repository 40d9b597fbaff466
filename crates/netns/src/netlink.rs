//! Netlink: requests to the kernel and its answers, message by message.
//!
//! A message is a header of sixteen bytes, a header of the family, and [`Attributes`]. See netlink(7) and the
//! kernel's Documentation/userspace-api/netlink. netlink-packet-core knows the bytes; what is here are the socket, and
//! how much and for how long is read from it.

mod attributes;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use netlink_packet_core::{
    Emitable, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_packet_route::{
    AddressFamily as AddressFamilyOfRoute, RouteNetlinkMessage,
    address::AddressMessage,
    link::LinkMessage,
    neighbour::NeighbourMessage,
    route::{RouteAttribute, RouteMessage},
};
use nix::sys::{
    socket::{
        self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
    },
    time::TimeVal,
};
use parking_lot::Mutex;

pub use self::attributes::{Attributes, attributes_of, nested};

/// How long the kernel may take for an answer; it answers at once unless the node is in deep trouble.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel fills at most this much of a buffer in a dump (NLMSG_GOODSIZE is 8 KiB; it offers more
/// to those who take more).
const BUFFER: usize = 64 * 1024;

/// A dump that changed while it was read is read again so often.
const MAX_INTERRUPTIONS: usize = 5;

/// A netlink socket. It belongs to the network namespace it was made in.
#[derive(Debug)]
pub struct Netlink {
    /// With room for a datagram. Locked from a question to the end of its answer: whoever reads takes the
    /// answers of all.
    socket: Mutex<(OwnedFd, Vec<u8>)>,
    sequence: std::sync::atomic::AtomicU32,
    limit: Option<Limit>,
}

/// What all answers on a socket may come to.
#[derive(Debug)]
struct Limit {
    bytes: std::sync::atomic::AtomicUsize,
    until: Instant,
}

/// What a Pod may have in its network namespace that is read: a node in a Pod has a MiB of rules, a sidecar a few KiB.
const MAX_OF_A_POD: usize = 4 * 1024 * 1024;

/// So long the kernel may be asked about a Pod's namespace over one socket.
const POD_LASTS: Duration = Duration::from_secs(2);

impl Limit {
    fn spend(&self, bytes: usize) -> io::Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let spent = self
            .bytes
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        if spent.is_err() {
            let why = "there is more in the network namespace than is read";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if Instant::now() > self.until {
            let why = "it takes too long to read the network namespace";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(())
    }
}

/// A family of netlink.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A question to the kernel.
#[derive(Clone, Debug)]
pub struct Request {
    message_type: u16,
    body: Vec<u8>,
}

/// The kernel's answer: its messages, without their headers, by type.
pub type Messages = Vec<(u16, Vec<u8>)>;

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            Some(protocol),
        )?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let timeout = TimeVal::new(i64::try_from(TIMEOUT.as_secs()).unwrap_or(1), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self {
            socket: Mutex::new((socket, vec![0; BUFFER])),
            sequence: std::sync::atomic::AtomicU32::new(1),
            limit: None,
        })
    }

    /// The same in the namespace of a Pod, which may have filled it: all answers together are bounded in length
    /// and time. Whoever goes beyond gets errors from then on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_in_pod(family: Family) -> io::Result<Self> {
        Self::open_within(family, MAX_OF_A_POD, POD_LASTS)
    }

    /// The same for another length and time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_within(family: Family, bytes: usize, lasts: Duration) -> io::Result<Self> {
        let limit = Limit {
            bytes: bytes.into(),
            until: Instant::now() + lasts,
        };
        Ok(Self {
            limit: Some(limit),
            ..Self::open(family)?
        })
    }

    /// Asks for one thing, which comes in one message.
    ///
    /// # Errors
    /// What the kernel says, for example NotFound.
    pub fn get(&self, request: &Request) -> io::Result<Messages> {
        self.ask(request, 0, &|_| true).map(|(messages, _)| messages)
    }

    /// Asks for all things of a kind.
    ///
    /// # Errors
    /// What the kernel says; Interrupted when they changed again and again while being read.
    pub fn dump(&self, request: &Request) -> io::Result<Messages> {
        self.dump_where(request, |_| true)
    }

    /// The same of those that are wanted; the others are not kept in memory.
    ///
    /// # Errors
    /// The same.
    pub fn dump_where(&self, request: &Request, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<Messages> {
        for _ in 0..MAX_INTERRUPTIONS {
            let (messages, is_whole) = self.ask(request, NLM_F_DUMP, &is_wanted)?;
            if is_whole {
                return Ok(messages);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "it changed while it was read, several times",
        ))
    }

    fn ask(
        &self,
        request: &Request,
        flags: u16,
        is_wanted: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<(Messages, bool)> {
        let sequence = self.sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let message = request.encode(NLM_F_REQUEST | flags, sequence)?;
        let mut locked = self.socket.lock();
        let (socket, buffer) = &mut *locked;
        let descriptor = socket.as_raw_fd();
        socket::send(descriptor, &message, MsgFlags::empty())?;
        let mut messages = Vec::new();
        let mut is_whole = true;
        loop {
            let length = socket::recv(descriptor, buffer, MsgFlags::MSG_TRUNC)?;
            if let Some(limit) = &self.limit {
                limit.spend(length)?;
            }
            let Some(datagram) = buffer.get(..length) else {
                return Err(malformed("an answer longer than the kernel may send"));
            };
            for answer in answers(datagram) {
                let answer = answer?;
                if answer.sequence_number() != sequence {
                    continue;
                }
                is_whole &= answer.flags() & NLM_F_DUMP_INTR == 0;
                match answer.message_type() {
                    NLMSG_DONE => return Ok((messages, is_whole)),
                    NLMSG_ERROR => {
                        return match error_code(answer.payload())? {
                            0 => Ok((messages, is_whole)),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    other if is_wanted(answer.payload()) => {
                        messages.push((other, answer.payload().to_vec()));
                    }
                    _ => {}
                }
            }
            if flags & NLM_F_DUMP == 0 && !messages.is_empty() {
                return Ok((messages, is_whole));
            }
        }
    }
}

impl Request {
    /// A question of the netfilter subsystem, for an address family (NFPROTO_*).
    #[must_use]
    pub fn netfilter(subsystem: u8, message: u8, family: u8) -> Self {
        Self {
            message_type: u16::from_be_bytes([subsystem, message]),
            // struct nfgenmsg: family, version 0, resource 0.
            body: vec![family, 0, 0, 0],
        }
    }

    /// A request for links.
    #[must_use]
    pub fn links() -> Self {
        Self::route(&RouteNetlinkMessage::GetLink(LinkMessage::default()))
    }

    /// A request for addresses.
    #[must_use]
    pub fn addresses() -> Self {
        Self::route(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))
    }

    /// A request for the route to an address.
    #[must_use]
    pub fn route_to(ip: IpAddr) -> Self {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match ip {
            IpAddr::V4(_) => (AddressFamilyOfRoute::Inet, 32),
            IpAddr::V6(_) => (AddressFamilyOfRoute::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(ip.into()));
        Self::route(&RouteNetlinkMessage::GetRoute(message))
    }

    /// A request for neighbours, of both IP families.
    #[must_use]
    pub fn neighbours() -> Self {
        Self::route(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))
    }

    /// A request for the forwarding databases of all links.
    #[must_use]
    pub fn forwarding_database() -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamilyOfRoute::Bridge;
        Self::route(&RouteNetlinkMessage::GetNeighbour(message))
    }

    fn route(message: &RouteNetlinkMessage) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Self {
            message_type: message.message_type(),
            body,
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.body.extend(attributes_of(&[(kind, value)]));
        self
    }

    /// Adds an attribute that is a C string.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.name(kind, value.as_bytes())
    }

    /// The same of bytes that are no text.
    #[must_use]
    pub fn name(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind, &[value, &[0]].concat())
    }

    /// Adds an attribute that holds attributes.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &[u8]) -> Self {
        self.attribute(nested(kind), inner)
    }

    fn encode(&self, flags: u16, sequence: u32) -> io::Result<Vec<u8>> {
        let header = NetlinkHeader::default().buffer_len();
        let mut message = vec![0; header + self.body.len()];
        let length = u32::try_from(message.len()).map_err(|_| malformed("a request too long"))?;
        let mut buffer = NetlinkBuffer::new(&mut message);
        buffer.set_length(length);
        buffer.set_message_type(self.message_type);
        buffer.set_flags(flags);
        buffer.set_sequence_number(sequence);
        buffer.payload_mut().copy_from_slice(&self.body);
        Ok(message)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The errno of an NLMSG_ERROR; 0 is an acknowledgement.
pub(crate) fn error_code(payload: &[u8]) -> io::Result<i32> {
    let message = ErrorBuffer::new_checked(payload).map_err(|_| malformed("an error without its number"))?;
    Ok(message.code().map_or(0, |code| code.get().saturating_neg()))
}

/// The messages in a datagram.
pub(crate) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let answer = NetlinkBuffer::new_checked(datagram);
        // Behind what makes no sense nothing is read.
        let length = answer
            .as_ref()
            .ok()
            .and_then(|a| usize::try_from(a.length()).ok());
        datagram = length
            .and_then(|length| datagram.get(length.next_multiple_of(4)..))
            .unwrap_or_default();
        Some(answer.map_err(|_| malformed("a message that is cut off")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_request_is_one_whole_message(
            message_type: u16, flags: u16, sequence: u32, value in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let request = Request { message_type, body: vec![0; 4] }.attribute(1, &value);
            let message = request.encode(flags, sequence).unwrap();
            let all: Vec<_> = answers(&message).map(Result::unwrap).collect();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!(
                (all[0].message_type(), all[0].flags(), all[0].sequence_number()),
                (message_type, flags, sequence)
            );
            prop_assert_eq!(Attributes::behind(all[0].payload(), 4).get(1), Some(value.as_slice()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            for answer in answers(&bytes).flatten() {
                let _ = error_code(answer.payload());
            }
        }

        #[test]
        fn messages_of_any_length_come_to_an_end(
            lengths in prop::collection::vec((0_u32..64, any::<[u8; 12]>()), 0..32),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|(length, rest)| [&length.to_ne_bytes()[..], rest].concat()).collect();
            prop_assert!(answers(&bytes).count() <= bytes.len() / 16 + 1);
        }
    }
}
