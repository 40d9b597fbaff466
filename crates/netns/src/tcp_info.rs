//! What the kernel tells of a TCP connection.

use std::{io, os::fd::AsFd};

use crate::sockopt;

/// Where struct tcp_info (linux/tcp.h) has the number of all retransmitted packets. The fields before it have not changed
/// since Linux 2.6, and the kernel writes no more than it is asked for.
const TOTAL_RETRANS: usize = 100;

/// Packets that a TCP socket has sent again, those that ask for the connection among them.
///
/// # Errors
/// What the kernel says, for example that it is no TCP socket.
pub fn retransmitted(socket: impl AsFd) -> io::Result<u32> {
    const NUMBER: usize = size_of::<u32>();
    let mut info = [0; TOTAL_RETRANS + NUMBER];
    sockopt::read(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let mut number = [0; NUMBER];
    number.copy_from_slice(&info[TOTAL_RETRANS..]);
    Ok(u32::from_ne_bytes(number))
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
}
