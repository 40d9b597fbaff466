//! Sockets that listen in a network namespace, from /proc/PID/net.
//!
//! Source: the kernel's Documentation/networking/proc_net_tcp.rst.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::procfs;
use svcdiag_kube_proxy::Protocol;

/// State TCP_LISTEN, and the state of a UDP socket that is not connected.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// The files that list them.
const FILES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, LISTEN),
    ("tcp6", Protocol::Tcp, LISTEN),
    ("udp", Protocol::Udp, UNCONNECTED),
    ("udp6", Protocol::Udp, UNCONNECTED),
];

/// A socket that takes connections or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where; the unspecified address stands for every one.
    pub address: SocketAddr,
}

/// So many are kept, in the order in which the kernel has them; what is told of them is less.
const MAX_LISTENERS: usize = 4096;

/// The listeners in the network namespace of a process.
///
/// # Errors
/// When the process has gone, or has more sockets than are read: then it is not known which listen.
pub fn listeners(pid: i32) -> io::Result<Vec<Listener>> {
    let mut all = Vec::new();
    for (file, protocol, state) in FILES {
        let read = procfs::lines(pid, &format!("net/{file}"), |line| {
            if all.len() < MAX_LISTENERS
                && let Some(address) = listener(line, state)
            {
                all.push(Listener { protocol, address });
            }
        });
        unless_without_ipv6(file, read)?;
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// A socket that takes what comes for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnPort {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) inode: u64,
    /// Who made it.
    pub(crate) uid: u32,
}

/// The sockets in the network namespace of the calling thread that listen on one of some ports, at all addresses or at
/// one of these.
pub(crate) fn on_ports(ports: &BTreeSet<(Protocol, u16)>, ips: &[IpAddr]) -> io::Result<Vec<OnPort>> {
    let mut found = Vec::new();
    for (file, protocol, state) in FILES {
        let read = procfs::lines_here(&format!("net/{file}"), |line| {
            let wanted = listener(line, state).filter(|address| {
                ports.contains(&(protocol, address.port())) && takes_for(address.ip(), ips)
            });
            if let Some((address, (inode, uid))) = wanted.zip(owner(line))
                && found.len() < MAX_LISTENERS
            {
                found.push(OnPort {
                    protocol,
                    port: address.port(),
                    inode,
                    uid,
                });
            }
        });
        unless_without_ipv6(file, read)?;
    }
    Ok(found)
}

/// Whether a socket with a local address takes what comes for one of some addresses.
fn takes_for(local: IpAddr, ips: &[IpAddr]) -> bool {
    let local = local.to_canonical();
    local.is_unspecified() || ips.iter().any(|ip| ip.to_canonical() == local)
}

/// Without IPv6 there are no files for it.
fn unless_without_ipv6(file: &str, read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.ends_with('6') => Ok(()),
        read => read,
    }
}

/// `... uid timeout inode`: the inode of a line, and the user.
fn owner(line: &str) -> Option<(u64, u32)> {
    let mut fields = line.split_whitespace().skip(7);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some((inode, uid))
}

/// How many connections wait to be accepted in the network namespace of a process, by TCP port: of several sockets of a port
/// the most. Ports where none waits are left out.
///
/// # Errors
/// When the process has gone, or has more sockets than are read.
pub fn accept_queues(pid: i32) -> io::Result<BTreeMap<u16, u32>> {
    let mut waiting = BTreeMap::new();
    for file in ["tcp", "tcp6"] {
        let read = procfs::lines(pid, &format!("net/{file}"), |line| {
            let found = listener(line, LISTEN).zip(queued(line));
            if let Some((address, number @ 1..)) = found
                && waiting.len() < MAX_LISTENERS
            {
                let most = waiting.entry(address.port()).or_default();
                *most = number.max(*most);
            }
        });
        unless_without_ipv6(file, read)?;
    }
    Ok(waiting)
}

/// `sl local_address rem_address st tx_queue:rx_queue ...`: the latter, which of a listener are connections.
fn queued(line: &str) -> Option<u32> {
    let (_, queued) = line.split_whitespace().nth(4)?.split_once(':')?;
    u32::from_str_radix(queued, 16).ok()
}

/// `sl local_address rem_address st ...`: the local address of a line in the given state.
#[must_use]
pub fn listener(line: &str, state: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    fields.next()?;
    (fields.next()? == state).then_some(())?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(hexadecimal(address)?, port))
}

/// An address as 32-bit words in the byte order of the machine.
fn hexadecimal(text: &str) -> Option<IpAddr> {
    (text.len().is_multiple_of(8) && text.is_ascii()).then_some(())?;
    let mut bytes = Vec::with_capacity(16);
    for start in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   0: 0100007F:24A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0";
        assert_eq!(listener(line, LISTEN), Some("127.0.0.1:9376".parse().unwrap()));
        assert_eq!(listener(line, UNCONNECTED), None);
        assert_eq!(
            owner(&line.replace(" 0        0 1 1 ", " 101        0 4711 1 ")),
            Some((4711, 101))
        );
        assert_eq!(queued(line), Some(0));
        assert_eq!(queued("0: 0:0 0:0 0A 00000000:0000001F 00:0"), Some(31));
        let v6 =
            "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0";
        assert_eq!(listener(v6, LISTEN), Some("[::]:80".parse().unwrap()));
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(listener(head, LISTEN), None);
    }

    proptest! {
        #[test]
        fn every_address_is_read(address: (Ipv4Addr, u16), v6: (Ipv6Addr, u16)) {
            let words = |bytes: &[u8]| -> String {
                bytes.chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()))).collect()
            };
            let line = |ip: &[u8], port: u16| format!("   0: {}:{port:04X} 00000000:0000 0A 0:0", words(ip));
            prop_assert_eq!(listener(&line(&address.0.octets(), address.1), LISTEN), Some(SocketAddr::from(address)));
            prop_assert_eq!(listener(&line(&v6.0.octets(), v6.1), LISTEN), Some(SocketAddr::from(v6)));
        }

        #[test]
        fn any_line_is_survived(line in ".{0,200}") {
            let _ = (listener(&line, LISTEN), owner(&line));
        }
    }
}
