//! Addresses that a host can have.

use std::net::IpAddr;

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
