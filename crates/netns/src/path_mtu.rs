//! The largest packets that the kernel sends on a path.

use std::{io, os::fd::AsFd};

use crate::sockopt;

/// The MTU of the path of a connected socket, as far as the kernel knows it: that of the link or of the route, or what an
/// ICMP message has said. Nothing is sent.
///
/// # Errors
/// What the kernel says, for example that the socket is not connected.
pub fn of(socket: impl AsFd, is_ipv4: bool) -> io::Result<u32> {
    let (level, option) = match is_ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_MTU),
        false => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu = [0; size_of::<u32>()];
    sockopt::read(socket, level, option, &mut mtu)?;
    Ok(u32::from_ne_bytes(mtu))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_mtu_is_that_of_the_loopback() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(of(&socket, true).is_err(), "it is not connected");
        socket.connect("127.0.0.1:9").unwrap();
        let mtu = of(&socket, true).unwrap();
        assert!((1280..=65_536).contains(&mtu), "{mtu}");
    }
}
