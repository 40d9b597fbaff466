//! One entry of a table: addresses, matches and a target, at the offsets of struct ipt_entry and struct ip6t_entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::xt;
use crate::bytes::{u16_at, u64_at};
use svcdiag_kube_proxy::{IpFamily, Match};

/// Offsets in struct ipt_entry and struct ip6t_entry.
pub(super) struct EntryLayout {
    source: usize,
    destination: usize,
    source_mask: usize,
    destination_mask: usize,
    address: usize,
    /// Names of the interfaces, in and out, 16 bytes each.
    interfaces: usize,
    protocol: usize,
    inverted: usize,
    target_offset: usize,
    pub(super) length: usize,
}

pub(super) const V4_ENTRY: EntryLayout = EntryLayout {
    source: 0,
    destination: 4,
    source_mask: 8,
    destination_mask: 12,
    address: 4,
    interfaces: 16,
    protocol: 80,
    inverted: 83,
    target_offset: 88,
    length: 112,
};

const V6_ENTRY: EntryLayout = EntryLayout {
    source: 0,
    destination: 16,
    source_mask: 32,
    destination_mask: 48,
    address: 16,
    interfaces: 64,
    protocol: 128,
    inverted: 132,
    target_offset: 140,
    length: 168,
};

/// Length of the head of a match or target: size, name of 29 bytes, revision.
pub(super) const XT_HEAD: usize = 32;

/// An entry of a table.
pub(super) struct Entry<'a> {
    family: IpFamily,
    bytes: &'a [u8],
    layout: &'static EntryLayout,
    target_offset: usize,
    /// Where the next one begins.
    pub(super) end: usize,
}

/// struct xt_error_target: head, name of 30 bytes, filled up to eight.
const ERROR_TARGET: usize = 64;

/// Where the head stands of the chain whose first rule is at an offset: right before it, as long as every head.
pub(super) fn head_before(offset: usize, family: IpFamily) -> Option<usize> {
    offset.checked_sub(layout(family).length + ERROR_TARGET)
}

fn layout(family: IpFamily) -> &'static EntryLayout {
    match family {
        IpFamily::V4 => &V4_ENTRY,
        IpFamily::V6 => &V6_ENTRY,
    }
}

impl<'a> Entry<'a> {
    /// The entry at an offset; None if none fits there.
    pub(super) fn at(entries: &'a [u8], offset: usize, family: IpFamily) -> Option<Self> {
        let layout = layout(family);
        let bytes = entries.get(offset..)?;
        let target_offset = usize::from(u16_at(bytes, layout.target_offset)?);
        let length = usize::from(u16_at(bytes, layout.target_offset + 2)?);
        (layout.length <= target_offset && target_offset + XT_HEAD <= length).then_some(())?;
        Some(Self {
            family,
            bytes: bytes.get(..length)?,
            layout,
            target_offset,
            end: offset.checked_add(length)?,
        })
    }

    /// Whether a chain begins behind the entry, or the table ends with it.
    pub(super) fn is_head(&self) -> bool {
        let name = self.bytes.get(self.target_offset + 2..);
        name.is_some_and(|name| name.starts_with(b"ERROR\0"))
    }

    /// The name of the chain that begins behind the entry.
    pub(super) fn chain_head(&self) -> Option<&'a str> {
        self.is_head().then_some(())?;
        let (_, _, info) = self.target()?;
        xt::c_string(info.get(..30)?)
    }

    /// How many packets it has taken: what stands at the end of the struct, before the bytes.
    pub(super) fn packets(&self) -> Option<u64> {
        u64_at(self.bytes, self.layout.length - 16)
    }

    pub(super) fn target(&self) -> Option<(&'a str, u8, &'a [u8])> {
        extension(self.bytes, self.target_offset).map(|(name, revision, info, _)| (name, revision, info))
    }

    pub(super) fn matches(&self) -> Vec<(&'a str, u8, &'a [u8])> {
        let mut offset = self.layout.length;
        let mut matches = Vec::new();
        while offset < self.target_offset {
            let Some((name, revision, info, size)) = extension(self.bytes, offset) else {
                matches.push(("?", 0, &[][..]));
                break;
            };
            matches.push((name, revision, info));
            offset += size;
        }
        matches
    }

    /// Whether packets to an address, or to any of the node, can take the entry, by its destination alone.
    pub(super) fn may_take(&self, destination: Option<IpAddr>) -> bool {
        const INVERTED_DESTINATION: u8 = 0x10;
        let at = |offset: usize| self.bytes.get(offset..offset + self.layout.address);
        let (Some(net), Some(mask)) = (at(self.layout.destination), at(self.layout.destination_mask)) else {
            return true;
        };
        if mask.iter().all(|byte| *byte == 0) {
            return true;
        }
        let contains = |address: &[u8]| {
            let pairs = address.iter().zip(net).zip(mask);
            pairs.into_iter().all(|((a, n), m)| a & m == *n)
        };
        let is_in = match destination {
            Some(IpAddr::V4(ip)) => contains(&ip.octets()),
            Some(IpAddr::V6(ip)) => contains(&ip.octets()),
            // Rules name no address of the node.
            None => false,
        };
        let inverted = self.bytes.get(self.layout.inverted).copied().unwrap_or_default();
        is_in == (inverted & INVERTED_DESTINATION == 0)
    }

    /// Conditions on addresses, protocol and interfaces, which stand in the entry itself.
    pub(super) fn addresses(&self) -> Vec<Match> {
        const INVERTED_IN: u8 = 0x01;
        const INVERTED_SOURCE: u8 = 0x08;
        const INVERTED_DESTINATION: u8 = 0x10;
        const INVERTED_PROTOCOL: u8 = 0x40;
        let layout = self.layout;
        let inverted = self.bytes.get(layout.inverted).copied().unwrap_or_default();
        let mut matches = Vec::new();
        if let Some(net) = self.network(layout.source, layout.source_mask) {
            let not = inverted & INVERTED_SOURCE != 0;
            matches.push(net.map_or_else(
                || Match::Other("source".to_owned()),
                |net| Match::Source { net, not },
            ));
        }
        if let Some(net) = self.network(layout.destination, layout.destination_mask) {
            let not = inverted & INVERTED_DESTINATION != 0;
            matches.push(net.map_or_else(
                || Match::Other("destination".to_owned()),
                |net| Match::Destination { net, not },
            ));
        }
        match u16_at(self.bytes, layout.protocol).and_then(|p| u8::try_from(p).ok()) {
            Some(0) | None => {}
            Some(_) if inverted & INVERTED_PROTOCOL != 0 => matches.push(Match::Other("protocol".to_owned())),
            Some(number) => matches.push(Match::Protocol(number)),
        }
        let interfaces = self
            .bytes
            .get(layout.interfaces..layout.interfaces + 32)
            .unwrap_or_default();
        if interfaces.iter().any(|byte| *byte != 0) || inverted & INVERTED_IN != 0 {
            matches.push(Match::Other("interface".to_owned()));
        }
        matches
    }

    /// None if every address will do; Some(None) for a mask that is no prefix.
    fn network(&self, address: usize, mask: usize) -> Option<Option<IpNet>> {
        let mask = self.address(mask)?;
        if mask.is_unspecified() {
            return None;
        }
        Some(
            self.address(address)
                .and_then(|address| IpNet::with_netmask(address, mask).ok()),
        )
    }

    fn address(&self, offset: usize) -> Option<IpAddr> {
        let bytes = self.bytes.get(offset..offset + self.layout.address)?;
        Some(match self.family {
            IpFamily::V4 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            IpFamily::V6 => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
        })
    }
}

/// Name, revision, data and size of a match or target.
fn extension(entry: &[u8], offset: usize) -> Option<(&str, u8, &[u8], usize)> {
    let bytes = entry.get(offset..)?;
    let size = usize::from(u16_at(bytes, 0)?);
    let name = xt::c_string(bytes.get(2..31)?)?;
    let info = bytes.get(XT_HEAD..size)?;
    Some((name, *bytes.get(31)?, info, size))
}
