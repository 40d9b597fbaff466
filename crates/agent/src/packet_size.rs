//! Packets of a given size, and whether they arrive: datagrams to a port that is most likely closed, which whoever gets them
//! answers with an ICMP message.
//!
//! The kernel sets the options of a datagram as it does those of TCP: it may not be fragmented on its way, unless the
//! network namespace turns that off for all (net.ipv4.ip_no_pmtu_disc). So what becomes of a datagram is what becomes of
//! a TCP packet of the same size.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use nix::errno::Errno;
use tokio::{io::Interest, net::UdpSocket, time::timeout};

use crate::{
    dial::begin,
    icmp::{self, Kind},
};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::{Netns, path_mtu};

/// Where traceroute begins: nobody is expected to listen there.
const CLOSED_PORT: u16 = 33434;

/// Between two datagrams that are sent for one answer: a burst of losses is often shorter.
const BETWEEN_COPIES: Duration = Duration::from_millis(20);

/// Fixed headers: of IPv4 and IPv6, of UDP, and of TCP.
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;
const TCP: u32 = 20;

/// Packets to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Size of the IP packet, in bytes.
    pub size: u16,
    /// How many to send; one answer is enough.
    pub copies: u8,
    /// How long to wait for an answer.
    pub patience: Duration,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has answered.
    Arrived,
    /// Somebody says that they are too large, and perhaps what the MTU is.
    TooLarge(Option<u16>),
    /// Somebody else turned them away.
    TurnedAway,
    /// Nobody said anything.
    Silent,
}

/// Size of the IP packets that TCP sends with its largest segments.
#[must_use]
pub fn of_tcp(segment: u32, target: IpAddr) -> u32 {
    segment.saturating_add(TCP + ip_header(target))
}

fn ip_header(target: IpAddr) -> u32 {
    if target.is_ipv4() { IPV4 } else { IPV6 }
}

/// The MTU of the path from a network namespace to an address, as far as the kernel knows it. Nothing is sent.
///
/// # Errors
/// When there is no socket, or no route.
pub async fn known_mtu(netns: &Netns, target: IpAddr) -> io::Result<u32> {
    let socket = connected(netns, target).await?;
    path_mtu::of(&socket, target.is_ipv4())
}

/// Sends packets from a network namespace, and waits for an answer. Each call uses another source port, so that several
/// calls try several of the paths between which routers choose by ports.
///
/// # Errors
/// When there is no socket: then nothing was sent.
pub async fn send(netns: &Netns, target: IpAddr, packets: Packets) -> io::Result<Fate> {
    let socket = match connected(netns, target).await {
        Err(error) if is_unroutable(&error) => return Ok(Fate::TurnedAway),
        socket => socket?,
    };
    let header = ip_header(target) + UDP;
    let payload = u32::from(packets.size).saturating_sub(header);
    let payload = vec![0; usize::try_from(payload).unwrap_or_default()];
    for number in 0..packets.copies {
        if number > 0 && is_heard(&socket, BETWEEN_COPIES).await? {
            break;
        }
        match socket.send(&payload).await {
            Ok(_) => {}
            Err(error) if errno(&error) == Some(Errno::EMSGSIZE) => {
                let mtu = path_mtu::of(&socket, target.is_ipv4()).ok();
                return Ok(Fate::TooLarge(mtu.and_then(told)));
            }
            // An answer to the one before it.
            Err(_) => return Ok(fate(&socket, target)),
        }
    }
    match is_heard(&socket, packets.patience).await? {
        true => Ok(fate(&socket, target)),
        false => Ok(Fate::Silent),
    }
}

async fn connected(netns: &Netns, target: IpAddr) -> io::Result<UdpSocket> {
    let (socket, at_once) = begin(netns, Protocol::Udp, SocketAddr::new(target, CLOSED_PORT)).await?;
    match at_once {
        Some(error) => Err(error),
        None => UdpSocket::from_std(socket.into()),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

fn is_unroutable(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EPERM)
    )
}

/// Whether there is an answer, or a message, within a time.
async fn is_heard(socket: &UdpSocket, within: Duration) -> io::Result<bool> {
    let ready = socket.ready(Interest::READABLE | Interest::ERROR);
    match timeout(within, ready).await {
        Err(_) => Ok(false),
        Ok(ready) => ready.map(|_| true),
    }
}

/// What was heard. A datagram can only come from the receiver, as the socket is connected.
fn fate(socket: &UdpSocket, target: IpAddr) -> Fate {
    while let Some(message) = icmp::next(socket.as_fd()) {
        match message.kind {
            Kind::TooLarge(mtu) => return Fate::TooLarge(told(mtu)),
            // Whatever it says, the packet has come to it.
            _ if message.sender == target => return Fate::Arrived,
            _ => {}
        }
    }
    match socket.try_recv(&mut [0]) {
        Ok(_) => Fate::Arrived,
        Err(_) => Fate::TurnedAway,
    }
}

/// The MTU of a message; old routers say 0.
fn told(mtu: u32) -> Option<u16> {
    u16::try_from(mtu).ok().filter(|mtu| *mtu > 0)
}
