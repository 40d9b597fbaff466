//! What the kernel tells of a TCP connection.

use std::{io, os::fd::AsFd};

use crate::sockopt;

/// Where struct tcp_info (linux/tcp.h) has the options that both ends use, the largest segment to send, and the number
/// of all retransmitted packets. The fields before it have not changed since Linux 2.6, and the kernel writes no more
/// than it is asked for.
const OPTIONS: usize = 5;
const SND_MSS: usize = 16;
const TOTAL_RETRANS: usize = 100;

/// Of the options: both ends send timestamps, which take twelve bytes of each packet and are no part of a segment.
const TIMESTAMPS: u8 = 1;
const TIMESTAMPS_TAKE: u32 = 12;

const NUMBER: usize = size_of::<u32>();

/// Struct tcp_info, as far as it is read.
type Info = [u8; TOTAL_RETRANS + NUMBER];

/// Packets that a TCP socket has sent again, those that ask for the connection among them.
///
/// # Errors
/// What the kernel says, for example that it is no TCP socket.
pub fn retransmitted(socket: impl AsFd) -> io::Result<u32> {
    Ok(number(&read(socket)?, TOTAL_RETRANS))
}

/// What a connected TCP socket puts behind the fixed headers of IP and TCP (20 bytes) in its largest packets: by the MTU
/// of its own path as far as the kernel knows it, and by what the other end asks for.
///
/// # Errors
/// The same.
pub fn largest_segment(socket: impl AsFd) -> io::Result<u32> {
    let info = read(socket)?;
    let timestamps = match info[OPTIONS] & TIMESTAMPS {
        0 => 0,
        _ => TIMESTAMPS_TAKE,
    };
    Ok(number(&info, SND_MSS).saturating_add(timestamps))
}

fn read(socket: impl AsFd) -> io::Result<Info> {
    let mut info = [0; TOTAL_RETRANS + NUMBER];
    sockopt::read(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info)
}

fn number(info: &Info, at: usize) -> u32 {
    let mut number = [0; NUMBER];
    number.copy_from_slice(&info[at..at + NUMBER]);
    u32::from_ne_bytes(number)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn over_loopback_nothing_is_sent_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(retransmitted(&dialled).unwrap(), 0);
        assert!(retransmitted(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }

    #[test]
    fn a_segment_is_as_long_as_the_mtu_leaves_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The loopback's MTU is 65536 unless somebody has changed it, and no packet has more than 65535 bytes.
        let segment = largest_segment(&dialled).unwrap();
        assert!((32_000..=65_496).contains(&segment), "{segment}");
    }
}
