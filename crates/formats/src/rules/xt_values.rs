//! The values of options as `iptables-save` writes them: networks, ports, protocols, destinations.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Wrong;
use svcdiag_kube_proxy::{IpFamily, Protocol};

/// The first address and port of `A[-B][:P[-Q][/R]]`, as the kernel holds them.
pub(super) fn first_destination(text: &str) -> Option<SocketAddr> {
    let (addresses, ports) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, ports) = text.split_once(']')?;
            (address, ports.strip_prefix(':'))
        }
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (text, None),
        },
    };
    let address = addresses.split('-').next()?.parse().ok()?;
    let port = match ports {
        Some(ports) => ports.split(['-', '/']).next()?.parse().ok()?,
        None => 0,
    };
    Some(SocketAddr::new(address, port))
}

/// `A`, `A/LENGTH` or `A/MASK`; None for a mask that is no prefix.
pub(super) fn network(text: &str, family: IpFamily) -> Result<Option<IpNet>, Wrong> {
    let wrong = || Wrong::word(text, "an address or network of the table's family");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if IpFamily::of(address) != family {
        return Err(wrong());
    }
    let Some(prefix) = prefix else {
        return Ok(Some(address.into()));
    };
    if let Ok(length) = prefix.parse() {
        return IpNet::new(address, length).map(Some).map_err(|_| wrong());
    }
    let mask: IpAddr = prefix.parse().map_err(|_| wrong())?;
    Ok(IpNet::with_netmask(address, mask).ok())
}

/// `PORT` or `FIRST:LAST`, either of which may be left out.
pub(super) fn ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, Wrong> {
    let number = |text: &str, open: u16| {
        if text.is_empty() { Ok(open) } else { text.parse() }
    };
    let range = match text.split_once(':') {
        Some((first, last)) => number(first, 0).and_then(|f| Ok(f..=number(last, u16::MAX)?)),
        None => text.parse().map(|port| port..=port),
    };
    range.map_err(|_| Wrong::word(text, "a port or a range of ports"))
}

/// The number of a protocol; 0 is every protocol. Names from IANA's protocol numbers.
pub(super) fn protocol(name: &str) -> Option<u8> {
    match name {
        "all" => Some(0),
        "icmp" => Some(1),
        "dccp" => Some(33),
        "gre" => Some(47),
        "esp" => Some(50),
        "ah" => Some(51),
        "icmpv6" | "ipv6-icmp" => Some(58),
        "udplite" => Some(136),
        name => {
            let known = Protocol::from_lower_case(name).map(Protocol::number);
            known.or_else(|| name.parse().ok())
        }
    }
}
