//! Dials: whether an address answers, from a network namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{self, SockType, SockaddrStorage, setsockopt, sockopt},
};
use tokio::{
    io::Interest,
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::icmp;
use svcdiag_api::Answer;
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::{Netns, tcp_info};

/// A finished dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// How it ended.
    pub answer: Answer,
    /// The source that the kernel chose.
    pub source: Option<SocketAddr>,
    /// Who refused it, if an ICMP message says so.
    pub offender: Option<Offender>,
    /// Whether the connection was made, but not with the first packet that asked for it.
    pub needed_another_packet: bool,
    /// What the client puts behind the fixed headers of IP and TCP in its largest packets, where a connection was made.
    pub largest_segment: Option<u32>,
}

/// Who sent the ICMP message that ended a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// The sender.
    pub ip: IpAddr,
    /// Whether the message says that packets are administratively prohibited.
    pub prohibits: bool,
}

/// TCP retransmits its first packet after a second (RFC 6298). What conntrack shows just before that is about the
/// first one; a retransmitted packet may go to another endpoint.
pub const BEFORE_RETRANSMISSION: Duration = Duration::from_millis(800);

/// Over UDP a refusal comes at once or not at all; this is how long to wait for it.
const UDP_PATIENCE: Duration = Duration::from_millis(300);

/// After six refusals in a row the kernel refuses datagrams of one sender once a second (net.ipv4.icmp_ratelimit,
/// and inet_peer_xrlim_allow in net/ipv4/inetpeer.c): after this time a second datagram is worth sending.
const UDP_AGAIN: Duration = Duration::from_millis(1100);

/// A socket that tokio drives.
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    fn of(protocol: Protocol, socket: OwnedFd) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Udp => Self::Udp(UdpSocket::from_std(socket.into())?),
            Protocol::Tcp | Protocol::Sctp => Self::Tcp(TcpStream::from_std(socket.into())?),
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// A dial in progress, made in a network namespace.
pub struct Dial {
    socket: Socket,
    protocol: Protocol,
    source: Option<SocketAddr>,
    /// The immediate result of connect, if any.
    at_once: Option<io::Error>,
}

impl Dial {
    /// Starts a dial from a namespace. With TCP, the first packet has been sent when this returns, so conntrack can be
    /// queried for it.
    ///
    /// # Errors
    /// When no socket could be made: then nothing was dialled.
    pub async fn start(netns: &Netns, protocol: Protocol, target: SocketAddr) -> io::Result<Self> {
        let (socket, at_once) = begin(netns, protocol, target).await?;
        let source = socket::getsockname::<SockaddrStorage>(socket.as_raw_fd())
            .ok()
            .and_then(|address| socket_address(&address));
        Ok(Self {
            socket: Socket::of(protocol, socket)?,
            protocol,
            source,
            at_once,
        })
    }

    /// The source that the kernel chose.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// Whether the answer arrives within a time; if not, the dial is still in progress.
    pub async fn settles_within(&self, time: Duration) -> bool {
        match &self.socket {
            Socket::Tcp(socket) if self.at_once.is_none() => timeout(time, socket.writable()).await.is_ok(),
            _ => true,
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// When the kernel returns an error that is not an answer: then the dial proves nothing.
    pub async fn finish(mut self, patience: Duration) -> io::Result<Dialled> {
        let at_once = self.at_once.take();
        let outcome = match at_once {
            Some(error) => Err(error),
            None => match &self.socket {
                Socket::Tcp(socket) => connected(socket, patience).await,
                Socket::Udp(socket) => not_refused(socket, patience).await,
            },
        };
        let needed_another_packet = outcome.is_ok()
            && matches!(&self.socket, Socket::Tcp(socket) if tcp_info::retransmitted(socket).is_ok_and(|n| n > 0));
        let largest_segment = match &self.socket {
            Socket::Tcp(socket) if outcome.is_ok() => tcp_info::largest_segment(socket).ok(),
            _ => None,
        };
        let (answer, offender) = match outcome {
            Ok(()) => (Answer::Accepted, None),
            Err(error) => {
                let offender = offender(self.socket.as_fd());
                (answer(&error, offender.is_some(), self.protocol)?, offender)
            }
        };
        Ok(Dialled {
            answer,
            source: self.source,
            offender,
            needed_another_packet,
            largest_segment,
        })
    }
}

async fn connected(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    let Ok(ready) = timeout(patience, socket.writable()).await else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    ready?;
    socket.take_error()?.map_or(Ok(()), Err)
}

/// Sends empty datagrams; a second one only if the first may have been refused silently and there is enough
/// time.
async fn not_refused(socket: &UdpSocket, patience: Duration) -> io::Result<()> {
    if is_silent(socket, patience.min(UDP_PATIENCE)).await? && patience >= UDP_AGAIN + UDP_PATIENCE {
        tokio::time::sleep(UDP_AGAIN - UDP_PATIENCE).await;
        is_silent(socket, UDP_PATIENCE).await?;
    }
    Ok(())
}

/// Whether an empty datagram gets no reaction. A refusal shows as an error only, an answer as something to read.
async fn is_silent(socket: &UdpSocket, patience: Duration) -> io::Result<bool> {
    socket.send(&[]).await?;
    let Ok(ready) = timeout(patience, socket.ready(Interest::READABLE | Interest::ERROR)).await else {
        return Ok(true);
    };
    ready?;
    socket.take_error()?.map_or(Ok(false), Err)
}

/// Makes a socket in a namespace and connects it. ICMP messages about what it sends come to its error queue.
pub(crate) async fn begin(
    netns: &Netns,
    protocol: Protocol,
    target: SocketAddr,
) -> io::Result<(OwnedFd, Option<io::Error>)> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "SCTP is not dialled"));
        }
    };
    let socket = netns.socket(target, kind).await?;
    // The error queue distinguishes a rejecting rule from a refusing Pod.
    if target.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok((socket, None)),
        Err(error) => Ok((socket, Some(error.into()))),
    }
}

/// The address from which the kernel would send to a target. Nothing is sent.
///
/// # Errors
/// When there is no route.
pub async fn source_towards(netns: &Netns, target: SocketAddr) -> io::Result<IpAddr> {
    let (socket, at_once) = begin(netns, Protocol::Udp, target).await?;
    if let Some(error) = at_once {
        return Err(error);
    }
    let address = socket::getsockname::<SockaddrStorage>(socket.as_raw_fd())?;
    let source = socket_address(&address).map(|source| source.ip());
    source.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::from((v6.ip(), v6.port())))
}

/// The sender of the ICMP message in the error queue, if there is one.
fn offender(socket: BorrowedFd<'_>) -> Option<Offender> {
    icmp::next(socket).map(|message| Offender {
        ip: message.sender,
        prohibits: message.kind == icmp::Kind::Prohibited,
    })
}

/// What an error says about the other end. Over TCP, a refusal by an ICMP message instead of a reset comes from a
/// rule; over UDP, a closed port also sends an ICMP message.
fn answer(error: &io::Error, by_message: bool, protocol: Protocol) -> io::Result<Answer> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) if by_message && protocol == Protocol::Tcp => Ok(Answer::Rejected),
        Some(Errno::ECONNREFUSED | Errno::ECONNRESET) => Ok(Answer::Refused),
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => Ok(Answer::Unreachable),
        Some(Errno::ETIMEDOUT) => Ok(Answer::TimedOut),
        None if error.kind() == io::ErrorKind::TimedOut => Ok(Answer::TimedOut),
        // A prohibition by a router or a rule of the node's own output.
        Some(Errno::EACCES | Errno::EPERM) => Ok(Answer::Rejected),
        _ => Err(io::Error::new(error.kind(), error.to_string())),
    }
}
