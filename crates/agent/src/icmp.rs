//! ICMP messages about what a socket has sent: the kernel keeps them in the socket's error queue.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space,
    sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage},
};

/// Entries that are read of one queue: what else is in it says the same.
const MAX_ENTRIES: usize = 16;

/// Where the kernel has an entry of the queue from (linux/errqueue.h).
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Who sent it; the unspecified address if the kernel does not say.
    pub sender: IpAddr,
    /// What it says.
    pub kind: Kind,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody takes packets for that port.
    PortUnreachable,
    /// Packets are administratively prohibited.
    Prohibited,
    /// The packet is larger than the MTU of the next link, which may be 0 where an old router does not say it.
    TooLarge(u32),
    /// Anything else.
    Other,
}

impl Kind {
    /// ICMP for IPv4: type 3, and its codes.
    fn of_v4(kind: u8, code: u8, info: u32) -> Self {
        match (kind, code) {
            (3, 3) => Self::PortUnreachable,
            (3, 4) => Self::TooLarge(info),
            // Communication with the network, with the host, and at all.
            (3, 9 | 10 | 13) => Self::Prohibited,
            _ => Self::Other,
        }
    }

    /// ICMPv6: types 1 and 2.
    fn of_v6(kind: u8, code: u8, info: u32) -> Self {
        match (kind, code) {
            (1, 4) => Self::PortUnreachable,
            // Prohibited, failed a policy, and rejected by a route.
            (1, 1 | 5 | 6) => Self::Prohibited,
            (2, _) => Self::TooLarge(info),
            _ => Self::Other,
        }
    }
}

/// The first message in the error queue of a socket, which leaves the queue. A reset leaves none.
pub(crate) fn next(socket: BorrowedFd<'_>) -> Option<Message> {
    for _ in 0..MAX_ENTRIES {
        let mut space = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let entry = socket::recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut [],
            Some(&mut space),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        )
        .ok()?;
        if let Some(message) = entry.cmsgs().ok()?.find_map(|control| message(&control)) {
            return Some(message);
        }
    }
    None
}

fn message(control: &ControlMessageOwned) -> Option<Message> {
    match control {
        ControlMessageOwned::Ipv4RecvErr(error, sender) if error.ee_origin == ORIGIN_ICMP => Some(Message {
            sender: sender.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |s| {
                IpAddr::V4(Ipv4Addr::from(u32::from_be(s.sin_addr.s_addr)))
            }),
            kind: Kind::of_v4(error.ee_type, error.ee_code, error.ee_info),
        }),
        ControlMessageOwned::Ipv6RecvErr(error, sender) if error.ee_origin == ORIGIN_ICMP6 => Some(Message {
            sender: sender.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |s| {
                IpAddr::V6(Ipv6Addr::from(s.sin6_addr.s6_addr))
            }),
            kind: Kind::of_v6(error.ee_type, error.ee_code, error.ee_info),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_type_and_code() {
        assert_eq!(Kind::of_v4(3, 3, 0), Kind::PortUnreachable);
        assert_eq!(Kind::of_v4(3, 4, 1400), Kind::TooLarge(1400));
        assert_eq!(Kind::of_v4(3, 13, 0), Kind::Prohibited);
        assert_eq!(Kind::of_v4(3, 1, 0), Kind::Other);
        assert_eq!(Kind::of_v4(11, 3, 0), Kind::Other);
        assert_eq!(Kind::of_v6(1, 4, 0), Kind::PortUnreachable);
        assert_eq!(Kind::of_v6(2, 0, 1280), Kind::TooLarge(1280));
        assert_eq!(Kind::of_v6(1, 1, 0), Kind::Prohibited);
        assert_eq!(Kind::of_v6(3, 4, 0), Kind::Other);
    }
}
