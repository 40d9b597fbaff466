//! What a rule of nftables compares, in text and in JSON alike: which part of a packet, and with what.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Wrong, nft_keys::protocol};
use svcdiag_kube_proxy::{IpFamily, Match};

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Source,
    Destination,
    Protocol,
    /// The port, of a protocol that the rule asks for with it.
    Port(Option<u8>),
    SourceType,
    DestinationType,
    Mark,
    Connection,
    /// Several of them, or something else.
    Other,
}

/// What it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand<'a> {
    Value(&'a str),
    Set(&'a str),
    /// Several values.
    Several,
}

/// The conditions that a comparison is.
pub(super) fn conditions(
    selector: Selector,
    operand: &Operand<'_>,
    not: bool,
    family: IpFamily,
) -> Result<Vec<Match>, Wrong> {
    let other = |name: &str| Ok(vec![Match::Other(name.to_owned())]);
    let value = match operand {
        Operand::Set(name) if selector == Selector::Source && !not => {
            return Ok(vec![Match::Affinity((*name).to_owned())]);
        }
        Operand::Set(_) | Operand::Several => return other("lookup"),
        Operand::Value(value) => *value,
    };
    Ok(match selector {
        // A range of addresses.
        Selector::Source | Selector::Destination if value.contains('-') => return other("cmp"),
        Selector::Source => vec![Match::Source {
            net: network(value, family)?,
            not,
        }],
        Selector::Destination => vec![Match::Destination {
            net: network(value, family)?,
            not,
        }],
        Selector::Protocol if !not => {
            let number = protocol(value).ok_or_else(|| Wrong::word(value, "a protocol"))?;
            vec![Match::Protocol(number)]
        }
        Selector::Port(of) if !not => {
            let port = port(value)?;
            let of = of.map(Match::Protocol);
            of.into_iter().chain([Match::DestinationPort(port)]).collect()
        }
        Selector::SourceType if value == "local" && !not => vec![Match::SourceIsLocal],
        Selector::DestinationType if value == "local" && !not => vec![Match::DestinationIsLocal],
        Selector::Connection => return other("ct"),
        _ => return other("cmp"),
    })
}

fn network(text: &str, family: IpFamily) -> Result<IpNet, Wrong> {
    let net = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| ip.into()));
    net.ok()
        .filter(|net: &IpNet| IpFamily::of(net.addr()) == family)
        .ok_or_else(|| Wrong::word(text, "an address or network of the table's family"))
}

fn port(text: &str) -> Result<std::ops::RangeInclusive<u16>, Wrong> {
    let range = match text.split_once('-') {
        Some((first, last)) => first.parse().and_then(|f| Ok(f..=last.parse()?)),
        None => text.parse().map(|port| port..=port),
    };
    range.map_err(|_| Wrong::word(text, "a port or a range of ports"))
}

/// `ADDRESS:PORT`, or `ADDRESS . PORT` in two words.
pub(super) fn endpoint(address: &str, port: Option<&str>, family: IpFamily) -> Result<SocketAddr, Wrong> {
    let endpoint: Option<SocketAddr> = match port {
        Some(port) => address
            .parse()
            .ok()
            .zip(port.parse().ok())
            .map(|(ip, port)| SocketAddr::new(ip, port)),
        None => address.parse().ok(),
    };
    endpoint
        .filter(|endpoint| IpFamily::of(endpoint.ip()) == family)
        .ok_or_else(|| Wrong::word(address, "an endpoint of the table's family"))
}
