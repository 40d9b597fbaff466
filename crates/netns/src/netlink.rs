//! Netlink: questions to the kernel and its answers, message by message.
//!
//! A message is a header of sixteen bytes, a header of the family, and attributes; an attribute is a
//! length, a type and a value, filled up to four bytes. See netlink(7) and the kernel's
//! Documentation/userspace-api/netlink.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::{
    socket::{
        self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
    },
    time::TimeVal,
};
use parking_lot::Mutex;

/// Length of struct nlmsghdr.
const HEADER: usize = 16;

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Set in the type of an attribute that holds attributes.
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

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
            let why = "there is more than is read of a Pod's network namespace";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if Instant::now() > self.until {
            let why = "it takes too long to read a Pod's network namespace";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(())
    }
}

/// A family of netlink.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
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
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
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
    pub fn open_in_pod(protocol: Protocol) -> io::Result<Self> {
        let limit = Limit {
            bytes: MAX_OF_A_POD.into(),
            until: Instant::now() + POD_LASTS,
        };
        Ok(Self {
            limit: Some(limit),
            ..Self::open(protocol)?
        })
    }

    /// Asks for one thing, which comes in one message.
    ///
    /// # Errors
    /// What the kernel says, for example NotFound.
    pub fn get(&self, request: &Request) -> io::Result<Messages> {
        self.ask(request, 0).map(|(messages, _)| messages)
    }

    /// Asks for all things of a kind.
    ///
    /// # Errors
    /// What the kernel says; Interrupted when they changed again and again while being read.
    pub fn dump(&self, request: &Request) -> io::Result<Messages> {
        for _ in 0..MAX_INTERRUPTIONS {
            let (messages, is_whole) = self.ask(request, NLM_F_DUMP)?;
            if is_whole {
                return Ok(messages);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "it changed while it was read, several times",
        ))
    }

    fn ask(&self, request: &Request, flags: u16) -> io::Result<(Messages, bool)> {
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
                if answer.sequence != sequence {
                    continue;
                }
                is_whole &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.message_type {
                    NLMSG_DONE => return Ok((messages, is_whole)),
                    NLMSG_ERROR => {
                        return match answer.error_code()? {
                            0 => Ok((messages, is_whole)),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    other => messages.push((other, answer.body.to_vec())),
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

    /// A question with the fixed header of its kind.
    #[must_use]
    pub fn with_header(message_type: u16, header: &[u8]) -> Self {
        Self {
            message_type,
            body: header.to_vec(),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.body, kind, value);
        self
    }

    /// Adds an attribute that is a C string.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds attributes.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &[u8]) -> Self {
        self.attribute(kind | NLA_F_NESTED, inner)
    }

    fn encode(&self, flags: u16, sequence: u32) -> io::Result<Vec<u8>> {
        let length = u32::try_from(HEADER + self.body.len()).map_err(|_| malformed("a question too long"))?;
        let mut message = Vec::with_capacity(HEADER + self.body.len());
        message.extend(length.to_ne_bytes());
        message.extend(self.message_type.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(&self.body);
        Ok(message)
    }
}

/// Attributes to put into another one.
#[must_use]
pub fn attributes_of(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in list {
        push_attribute(&mut bytes, *kind, value);
    }
    bytes
}

/// The type of an attribute that holds attributes.
#[must_use]
pub fn nested(kind: u16) -> u16 {
    kind | NLA_F_NESTED
}

fn push_attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // No attribute that is sent comes near 64 KiB: names have at most 256 bytes.
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A message in an answer.
pub(super) struct Answer<'a> {
    message_type: u16,
    flags: u16,
    sequence: u32,
    /// What is behind its header.
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// The errno of an NLMSG_ERROR; 0 is an acknowledgement.
    pub(super) fn error_code(&self) -> io::Result<i32> {
        let code = self
            .body
            .first_chunk::<4>()
            .ok_or_else(|| malformed("an error without its number"))?;
        Ok(i32::from_ne_bytes(*code).saturating_neg())
    }
}

/// The messages in a datagram.
pub(super) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<Answer<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let answer = (|| {
            let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
            let answer = Answer {
                message_type: u16_at(datagram, 4)?,
                flags: u16_at(datagram, 6)?,
                sequence: u32_at(datagram, 8)?,
                body: datagram.get(HEADER..length)?,
            };
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(answer)
        })();
        if answer.is_none() {
            datagram = &[];
        }
        Some(answer.ok_or_else(|| malformed("a message that is cut off")))
    })
}

/// A number in the byte order of the machine.
#[must_use]
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A number in the byte order of the machine.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// Attributes as they stand in a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes behind a fixed header.
    #[must_use]
    pub fn behind(body: &'a [u8], header: usize) -> Self {
        Self(body.get(header..).unwrap_or_default())
    }

    /// Type and value of each. What is cut off at the end is left out.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16_at(rest, 0)?);
            let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    /// The value of the first attribute of a type.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes in an attribute.
    #[must_use]
    pub fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    /// A C string.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        std::str::from_utf8(bytes.get(..end)?).ok()
    }

    /// A number in network byte order, as netfilter writes them.
    #[must_use]
    pub fn be_u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A number in network byte order.
    #[must_use]
    pub fn be_u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A byte.
    #[must_use]
    pub fn byte(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn ask_everything(attributes: Attributes<'_>, depth: usize) {
        for kind in 0..8 {
            let _ = (attributes.get(kind), attributes.text(kind), attributes.byte(kind));
            let _ = (attributes.be_u16(kind), attributes.be_u32(kind));
            if let Some(inner) = attributes.nested(kind).filter(|_| depth > 0) {
                ask_everything(inner, depth - 1);
            }
        }
    }

    proptest! {
        #[test]
        fn every_attribute_is_read(
            list in prop::collection::vec((0..=NLA_TYPE_MASK, prop::collection::vec(any::<u8>(), 0..64)), 0..16),
        ) {
            let written: Vec<(u16, &[u8])> = list.iter().map(|(k, v)| (*k, v.as_slice())).collect();
            let bytes = attributes_of(&written);
            prop_assert_eq!(Attributes(&bytes).iter().collect::<Vec<_>>(), written);
        }

        #[test]
        fn every_question_is_one_whole_message(
            kind: u16, flags: u16, sequence: u32, value in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let request = Request::with_header(kind, &[0; 4]).attribute(1, &value);
            let message = request.encode(flags, sequence).unwrap();
            let all: Vec<Answer<'_>> = answers(&message).map(Result::unwrap).collect();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!((all[0].message_type, all[0].flags, all[0].sequence), (kind, flags, sequence));
            prop_assert_eq!(Attributes::behind(all[0].body, 4).get(1), Some(value.as_slice()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            ask_everything(Attributes(&bytes), 3);
            for answer in answers(&bytes).flatten() {
                let _ = answer.error_code();
                ask_everything(Attributes::behind(answer.body, 4), 1);
            }
        }

        #[test]
        fn messages_of_any_length_come_to_an_end(
            lengths in prop::collection::vec((0_u32..64, any::<[u8; 12]>()), 0..32),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|(length, rest)| [&length.to_ne_bytes()[..], rest].concat()).collect();
            prop_assert!(answers(&bytes).count() <= bytes.len() / HEADER + 1);
        }
    }
}
