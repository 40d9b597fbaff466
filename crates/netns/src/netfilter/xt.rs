//! Matches and targets of iptables, as the kernel lays them out for either backend.
//!
//! Source: the kernel's include/uapi/linux/netfilter/xt_*.h and nf_nat.h. Numbers are in the byte order
//! of the machine, except addresses and ports of NAT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bytes::{u16_at, u32_at};
use svcdiag_kube_proxy::{IpFamily, Match, Target};

/// RTN_LOCAL as a bit of xt_addrtype.
const LOCAL: u16 = 1 << 2;

/// What a match asks.
#[must_use]
pub fn read_match(name: &str, revision: u8, info: &[u8]) -> Match {
    let understood = match name {
        "comment" | "nfacct" => Some(Match::Neutral),
        "statistic" => Some(Match::Random),
        // xt_tcp and xt_udp: source ports, then destination ports; the last byte turns round.
        "tcp" => ports(info, 4, info.get(11).copied()),
        "udp" => ports(info, 4, info.get(8).copied()),
        // xt_sctp_info: destination ports first.
        "sctp" => ports(info, 0, info.get(info.len().saturating_sub(4)).copied()),
        "addrtype" => address_type(revision, info),
        "recent" => recent(info),
        _ => None,
    };
    understood.unwrap_or_else(|| Match::Other(name.to_owned()))
}

/// Destination ports, unless anything is turned round.
fn ports(info: &[u8], offset: usize, inverted: Option<u8>) -> Option<Match> {
    (inverted? == 0).then_some(())?;
    Some(Match::DestinationPort(
        u16_at(info, offset)?..=u16_at(info, offset + 2)?,
    ))
}

/// Revision 0 and 1 begin with the types of source and destination; what follows are flags that are
/// zero in every rule of kube-proxy.
fn address_type(revision: u8, info: &[u8]) -> Option<Match> {
    let (source, destination) = (u16_at(info, 0)?, u16_at(info, 2)?);
    let flags = u32_at(info, 4)?;
    let more = if revision == 0 { u32_at(info, 8)? } else { 0 };
    match (source, destination, flags | more) {
        (LOCAL, 0, 0) => Some(Match::SourceIsLocal),
        (0, LOCAL, 0) => Some(Match::DestinationIsLocal),
        _ => None,
    }
}

/// struct xt_recent_mtinfo: seconds, hit count, what to do, whether turned round, name.
fn recent(info: &[u8]) -> Option<Match> {
    const CHECK: u8 = 1;
    const SET: u8 = 2;
    let (what, turned_round) = (info.get(8)?, info.get(9)?);
    if *turned_round != 0 {
        None
    } else if what & CHECK != 0 {
        Some(Match::Affinity(c_string(info.get(10..210)?)?.to_owned()))
    } else {
        // Remembering the client holds back no packet.
        (what & SET != 0).then_some(Match::Neutral)
    }
}

/// What a target does.
#[must_use]
pub fn read_target(name: &str, revision: u8, info: &[u8], family: IpFamily) -> Target {
    match name {
        "DNAT" => destination_nat(revision, info, family)
            .map_or_else(|| Target::Other(name.to_owned()), |to| Target::Dnat(vec![to])),
        "REJECT" => Target::Reject,
        "MASQUERADE" => Target::Masquerade,
        _ => Target::Other(name.to_owned()),
    }
}

/// Revision 0 is struct nf_nat_ipv4_multi_range_compat for IPv4; else struct nf_nat_range and
/// nf_nat_range2, which begin alike.
fn destination_nat(revision: u8, info: &[u8], family: IpFamily) -> Option<SocketAddr> {
    if revision == 0 && family == IpFamily::V4 {
        // rangesize, flags, first address, last address, first port.
        return Some(SocketAddr::new(v4(info, 8)?, be_u16(info, 16)?));
    }
    // flags, first address (16 bytes), last address, first port.
    let address = match family {
        IpFamily::V4 => v4(info, 4)?,
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::from(*info.get(4..20)?.first_chunk::<16>()?)),
    };
    Some(SocketAddr::new(address, be_u16(info, 36)?))
}

fn v4(bytes: &[u8], offset: usize) -> Option<IpAddr> {
    let octets = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(IpAddr::V4(Ipv4Addr::from(*octets)))
}

fn be_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk::<2>()?))
}

/// The text before the first zero.
#[must_use]
pub fn c_string(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            name in prop::sample::select(vec![
                "tcp", "udp", "sctp", "addrtype", "recent", "comment", "DNAT", "REJECT", "?",
            ]),
            revision in 0_u8..4,
            info in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = read_match(name, revision, &info);
            let _ = read_target(name, revision, &info, IpFamily::V4);
            let _ = read_target(name, revision, &info, IpFamily::V6);
        }
    }
}
