//! Traffic that faults are made of: a table of tracked connections that is full, and datagrams that go on.
//!
//! Both go on while a process runs, so that nothing keeps a namespace when a cluster was killed.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Connections that end make room, which has to be filled before somebody else does.
const TOP_UP_EVERY: Duration = Duration::from_millis(10);
const SEND_EVERY: Duration = Duration::from_millis(500);
/// Entries in one message to the kernel, which takes 64 KiB.
const BATCH: u64 = 256;
/// Others may end as quickly as ours are put in, but not for long.
const MOST_IN_VAIN: u32 = 10_000;
/// Nobody's addresses (RFC 2544).
const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FIRST_DESTINATION: u32 = 0xc613_0000;
const LIFETIME_SECONDS: u32 = 3600;
/// Ports of each destination address.
const PORTS: u64 = 60_000;

/// Fills the namespace's table of tracked connections to so many percent; goes on while a process runs, if
/// one is named.
///
/// # Errors
/// When the kernel takes no entries.
pub(super) fn fill(percent: u64, process: Option<u32>) -> io::Result<()> {
    let wanted = number("nf_conntrack_max")? * percent / 100;
    let netlink = Netlink::open()?;
    // What another process has put in is not tried again: it would take longer than the room lasts.
    let mut next = u64::from(std::process::id() % 8192) << 18;
    loop {
        let mut in_vain = 0;
        loop {
            let count = number("nf_conntrack_count")?;
            if count >= wanted {
                break;
            }
            let some = (wanted - count).min(BATCH);
            netlink.insert(next..next + some)?;
            next += some;
            in_vain = if number("nf_conntrack_count")? > count {
                0
            } else {
                in_vain + 1
            };
            if in_vain > MOST_IN_VAIN {
                return Err(io::Error::other("the kernel takes no tracked connections"));
            }
        }
        if !process.is_some_and(runs) {
            return Ok(());
        }
        std::thread::sleep(TOP_UP_EVERY);
    }
}

/// Forgets all tracked connections of the namespace.
///
/// # Errors
/// When the kernel does not.
pub(super) fn flush() -> io::Result<()> {
    Netlink::open()?.flush()
}

/// Sends datagrams from one port to a target, while a process runs.
///
/// # Errors
/// When there is no socket to be had.
pub(super) fn datagrams(target: SocketAddr, process: u32) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    while runs(process) {
        // Nobody may be there, which is the point.
        let _ = socket.send_to(b"hello", target);
        std::thread::sleep(SEND_EVERY);
    }
    Ok(())
}

fn runs(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

fn number(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// A socket to the kernel's table of tracked connections (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
struct Netlink(OwnedFd);

impl Netlink {
    const REQUEST: u16 = 0x1;
    const ACKNOWLEDGE: u16 = 0x4;
    const CREATE: u16 = 0x400;
    const NEW: u16 = 0x100;
    const DELETE: u16 = 0x102;

    fn open() -> io::Result<Self> {
        let kind = SockType::Raw;
        let protocol = SockProtocol::NetlinkNetFilter;
        Ok(Self(socket(
            AddressFamily::Netlink,
            kind,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?))
    }

    fn insert(&self, numbers: std::ops::Range<u64>) -> io::Result<()> {
        let mut messages = Vec::new();
        for number in numbers {
            message(
                &mut messages,
                Self::NEW,
                Self::REQUEST | Self::CREATE,
                &entry(number),
            );
        }
        self.send(&messages)?;
        // What is refused is tried again with the next numbers: the table may have become full meanwhile.
        let mut answers = [0; 8192];
        while recv(self.0.as_raw_fd(), &mut answers, MsgFlags::MSG_DONTWAIT).is_ok() {}
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut request = Vec::new();
        message(&mut request, Self::DELETE, Self::REQUEST | Self::ACKNOWLEDGE, &[]);
        self.send(&request)?;
        let mut answer = [0; 8192];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // An acknowledgement is an error of number 0, which stands after the header.
        match answer.get(16..20).filter(|_| length >= 20) {
            Some([0, 0, 0, 0]) => Ok(()),
            _ => Err(io::Error::other("the kernel did not forget its connections")),
        }
    }

    fn send(&self, messages: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), messages, MsgFlags::empty())?;
        Ok(())
    }
}

/// A message of nfnetlink about IPv4.
fn message(all: &mut Vec<u8>, kind: u16, flags: u16, attributes: &[u8]) {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    all.extend(length.to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(flags.to_ne_bytes());
    all.extend([0; 8]);
    all.extend([2, 0, 0, 0]);
    all.extend(attributes);
}

/// A UDP connection that was answered: the kernel gives up others first when it needs room.
fn entry(number: u64) -> Vec<u8> {
    const SEEN_REPLY_ASSURED_CONFIRMED: u32 = 2 | 4 | 8;
    let destination = FIRST_DESTINATION.wrapping_add(u32::try_from(number / PORTS).unwrap_or(0));
    let port = u16::try_from(1 + number % PORTS).unwrap_or(1);
    let (source, destination) = (SOURCE.octets(), destination.to_be_bytes());
    let mut all = Vec::new();
    all.extend(nested(1, &tuple(source, 9, destination, port)));
    all.extend(nested(2, &tuple(destination, port, source, 9)));
    all.extend(attribute(7, &LIFETIME_SECONDS.to_be_bytes()));
    all.extend(attribute(3, &SEEN_REPLY_ASSURED_CONFIRMED.to_be_bytes()));
    all
}

fn tuple(source: [u8; 4], source_port: u16, destination: [u8; 4], destination_port: u16) -> Vec<u8> {
    const UDP: u8 = 17;
    let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
    let protocol = [
        attribute(1, &[UDP]),
        attribute(2, &source_port.to_be_bytes()),
        attribute(3, &destination_port.to_be_bytes()),
    ]
    .concat();
    [nested(1, &addresses), nested(2, &protocol)].concat()
}

fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
    attribute(kind | 0x8000, content)
}

/// Length, kind and content, filled up to a multiple of four bytes.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    let mut all = Vec::with_capacity(content.len() + 8);
    all.extend(length.to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(content);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}
