//! Addresses that a host can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is that of one host that others reach: no multicast or broadcast, none of this host
/// alone or of its link alone. IPv4 addresses in IPv6 form are refused as well: no Pod has one.
#[must_use]
pub fn is_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let is_of_this_network = v4.octets()[0] == 0;
            !(is_of_this_network
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let is_mapped = v6.to_ipv4_mapped().is_some();
            !(is_mapped
                || v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast())
        }
    }
}

/// Whether a translator answers for an IPv6 address, and no host has it: IPv4-mapped and IPv4-compatible ones, and
/// the two prefixes of NAT64 (64:ff9b::/96, and 64:ff9b:1::/48, in which operators choose the IPv4 address's place).
#[must_use]
pub fn is_translated(ip: Ipv6Addr) -> bool {
    matches!(
        ip.segments(),
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..]
    )
}

/// Where packets to an IPv6 address come out over IPv4: the router of a 6to4 address, the server and the client of a
/// Teredo address (whose bits are turned over).
#[must_use]
pub fn tunnel_ends(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x2002, high, low, ..] => vec![v4(high, low)],
        [0x2001, 0, high, low, .., a, b] => vec![v4(high, low), v4(!a, !b)],
        _ => Vec::new(),
    }
}
