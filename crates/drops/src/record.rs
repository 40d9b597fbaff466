//! What the programs have written, as it is in their maps.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Drop, Filter, Interface, Kernel, Leg, Sighting, Tuple,
    program::{FUNCTION_LENGTH, NAME_LENGTH, record},
};

/// Bytes of a key.
pub(crate) const RECORD_SIZE: usize = record::SIZE.unsigned_abs() as usize;

/// A key of the map and its value, in the order in which they are returned.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    filter: usize,
    leg: Leg,
    tuple: Tuple,
    reason: u32,
    function: String,
    namespace: u32,
    index: u32,
    name: String,
    count: u64,
}

impl Record {
    pub(crate) fn decode(key: &[u8], count: &[u8], filters: &[Filter]) -> Option<Self> {
        let number = |at: i16| bytes(key, at).map(u32::from_ne_bytes);
        let filter: usize = bytes(key, record::FILTER).map(u16::from_ne_bytes)?.into();
        let Filter { leg, tuple } = *filters.get(filter)?;
        let address = |at: i16| {
            Some(if tuple.destination.is_ipv6() {
                IpAddr::from(bytes::<16>(key, at)?)
            } else {
                IpAddr::from(bytes::<4>(key, at)?)
            })
        };
        let port = |at: i16| bytes(key, at).map(u16::from_be_bytes);
        let name: [u8; NAME_LENGTH.unsigned_abs() as usize] = bytes(key, record::NAME)?;
        let function: [u8; FUNCTION_LENGTH.unsigned_abs() as usize] = bytes(key, record::FUNCTION)?;
        Some(Self {
            filter,
            leg,
            tuple: Tuple {
                protocol: tuple.protocol,
                source: SocketAddr::new(address(record::SOURCE)?, port(record::PORTS)?),
                destination: SocketAddr::new(address(record::DESTINATION)?, port(record::PORTS + 2)?),
            },
            reason: number(record::REASON)?,
            function: function_name(&text(&function)),
            namespace: number(record::NAMESPACE)?,
            index: number(record::INDEX)?,
            name: text(&name),
            count: bytes(count, 0).map(u64::from_ne_bytes)?,
        })
    }

    pub(crate) fn describe(self, kernel: &Kernel) -> Drop {
        Drop {
            leg: self.leg,
            tuple: self.tuple,
            reason: kernel.reason(self.reason),
            location: Some(self.function).filter(|name| !name.is_empty()),
            interface: interface(self.index, self.name),
            namespace: known(self.namespace),
            count: self.count,
        }
    }

    /// A packet that was seen to come in, or to go out.
    pub(crate) fn seen(self, is_sent: bool) -> Sighting {
        Sighting {
            leg: self.leg,
            tuple: self.tuple,
            is_sent,
            interface: interface(self.index, self.name),
            namespace: known(self.namespace),
            count: self.count,
        }
    }
}

/// What is zero is not known.
fn known(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

fn interface(index: u32, name: String) -> Option<Interface> {
    known(index).map(|index| Interface { index, name })
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> String {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// `nft_do_chain [nf_tables]`, or an address where the kernel has no names, which says nothing.
fn function_name(text: &str) -> String {
    let name = text.split(' ').next().unwrap_or_default();
    if name.starts_with("0x") {
        return String::new();
    }
    name.to_owned()
}

fn bytes<const N: usize>(from: &[u8], at: i16) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_without_their_module() {
        assert_eq!(function_name("nft_do_chain [nf_tables]"), "nft_do_chain");
        assert_eq!(function_name("ip_error"), "ip_error");
        assert_eq!(function_name("0xffffffff81000000"), "");
    }
}
