//! Rules of nf_tables: a list of expressions that load values into registers and look at them.
//!
//! Source: the kernel's include/uapi/linux/netfilter/nf_tables.h. The rules of kube-proxy and of
//! iptables-nft use few of the expressions; what is not known becomes [`Match::Other`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::xt;
use crate::netlink::Attributes;
use svcdiag_kube_proxy::{IpFamily, Match, Rule, Target, Verdict};

mod comparisons;
mod verdicts;

pub(super) use verdicts::read_verdict;

/// NFTA_LIST_ELEM: the only attribute in a list.
pub(super) const LIST_ELEMENT: u16 = 1;

/// NFTA_DATA_VALUE and NFTA_DATA_VERDICT.
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const L4PROTO: u32 = 16;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// A set or map that belongs to one rule; the kernel names it so.
pub(super) fn is_anonymous(set: &str) -> bool {
    set.starts_with("__")
}

/// What the elements of an anonymous map hold.
#[derive(Clone, Debug)]
pub(crate) enum MapData {
    Values(Vec<Vec<u8>>),
    Verdicts(Vec<Verdict>),
}

/// What a register holds, by its first 32-bit word.
#[derive(Clone, Debug)]
enum Value {
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Masked {
        offset: u32,
        mask: Vec<u8>,
    },
    Protocol,
    AddressType(Match),
    Constant(Vec<u8>),
    /// One of several values, from a map.
    OneOf(Vec<Vec<u8>>),
    Chance,
}

/// Reads the expressions of a rule. `map` is asked for the elements of anonymous maps.
pub(super) fn read_rule<E>(
    expressions: Attributes<'_>,
    family: IpFamily,
    mut map: impl FnMut(&str) -> Result<MapData, E>,
) -> Result<Rule, E> {
    let mut reader = Reader {
        family,
        registers: BTreeMap::new(),
        rule: Rule::default(),
    };
    for (_, expression) in expressions.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
        let expression = Attributes(expression);
        let name = expression.text(1).unwrap_or_default();
        let data = expression.nested(2).unwrap_or_default();
        if name == "lookup" {
            reader.lookup(data, &mut map)?;
        } else {
            reader.read(name, data);
        }
    }
    Ok(reader.rule)
}

/// The words of a register: the four of 16 bytes overlay the sixteen of 4 bytes.
fn word(register: u32) -> u32 {
    match register {
        1..=4 => (register - 1) * 4,
        8.. => register - 8,
        _ => u32::MAX,
    }
}

struct Reader {
    family: IpFamily,
    registers: BTreeMap<u32, Value>,
    rule: Rule,
}

impl Reader {
    fn read(&mut self, name: &str, data: Attributes<'_>) {
        match name {
            "counter" => {}
            "payload" => {
                let value = (|| {
                    Some(Value::Payload {
                        base: data.be_u32(2)?,
                        offset: data.be_u32(3)?,
                        length: data.be_u32(4)?,
                    })
                })();
                self.load(data.be_u32(1), value);
            }
            // With a destination a meta expression loads, else it sets, for example the mark.
            "meta" if data.get(1).is_some() => {
                let value = (data.be_u32(2) == Some(L4PROTO)).then_some(Value::Protocol);
                self.load(data.be_u32(1), value);
            }
            "meta" => self.rule.target = Target::Other("mark".to_owned()),
            "numgen" => self.load(data.be_u32(1), Some(Value::Chance)),
            "fib" => {
                let of = match data.be_u32(3) {
                    Some(flags) if flags & FIB_SADDR != 0 => Some(Match::SourceIsLocal),
                    Some(flags) if flags & FIB_DADDR != 0 => Some(Match::DestinationIsLocal),
                    _ => None,
                };
                let value = of.filter(|_| data.be_u32(2) == Some(FIB_RESULT_ADDRTYPE));
                self.load(data.be_u32(1), value.map(Value::AddressType));
            }
            "bitwise" => {
                let source = data.be_u32(1).and_then(|r| self.registers.get(&word(r)));
                let mask = data.nested(4).and_then(|d| d.get(DATA_VALUE));
                let value = match (source, mask) {
                    (
                        Some(Value::Payload {
                            base: NETWORK_HEADER,
                            offset,
                            length,
                        }),
                        Some(mask),
                    ) if usize::try_from(*length) == Ok(mask.len()) => Some(Value::Masked {
                        offset: *offset,
                        mask: mask.to_vec(),
                    }),
                    _ => None,
                };
                self.load(data.be_u32(2), value);
            }
            "cmp" => self.compare(data),
            "immediate" => {
                let Some(value) = data.nested(2) else { return };
                match value.get(DATA_VALUE) {
                    Some(constant) => self.load(data.be_u32(1), Some(Value::Constant(constant.to_vec()))),
                    None => self.verdict(value),
                }
            }
            "nat" => {
                const DESTINATION: u32 = 1;
                let target = (data.be_u32(1) == Some(DESTINATION)).then(|| self.endpoints(data));
                self.rule.target = match target.flatten() {
                    Some(endpoints) => Target::Dnat(endpoints),
                    None => Target::Other("nat".to_owned()),
                };
            }
            "masq" => self.rule.target = Target::Masquerade,
            "reject" => self.rule.target = Target::Reject,
            "match" => {
                let info = data.get(3).unwrap_or_default();
                let revision = data
                    .be_u32(2)
                    .and_then(|r| u8::try_from(r).ok())
                    .unwrap_or_default();
                self.rule
                    .matches
                    .push(xt::read_match(data.text(1).unwrap_or_default(), revision, info));
            }
            "target" => {
                let info = data.get(3).unwrap_or_default();
                let revision = data
                    .be_u32(2)
                    .and_then(|r| u8::try_from(r).ok())
                    .unwrap_or_default();
                self.rule.target =
                    xt::read_target(data.text(1).unwrap_or_default(), revision, info, self.family);
            }
            // Remembers the client of a Service with affinity.
            "dynset" => {}
            other => self.rule.matches.push(Match::Other(other.to_owned())),
        }
    }

    fn load(&mut self, register: Option<u32>, value: Option<Value>) {
        let Some(register) = register.map(word) else {
            return;
        };
        match value {
            Some(value) => self.registers.insert(register, value),
            None => self.registers.remove(&register),
        };
    }

    fn lookup<E>(
        &mut self,
        data: Attributes<'_>,
        map: &mut impl FnMut(&str) -> Result<MapData, E>,
    ) -> Result<(), E> {
        let name = data.text(1).unwrap_or_default();
        let inverted = data.be_u32(5).unwrap_or_default() & 1 != 0;
        let Some(destination) = data.be_u32(3) else {
            // Without a destination it only asks whether the value is in the set.
            let source = data.be_u32(2).and_then(|r| self.registers.get(&word(r)));
            let source_at = if self.family == IpFamily::V4 { 12 } else { 8 };
            let is_source = matches!(source, Some(Value::Payload { base: NETWORK_HEADER, offset, .. }) if *offset == source_at);
            self.rule
                .matches
                .push(if is_source && !inverted && !is_anonymous(name) {
                    Match::Affinity(name.to_owned())
                } else {
                    Match::Other("lookup".to_owned())
                });
            return Ok(());
        };
        if !is_anonymous(name) {
            self.rule.target = Target::Map(name.to_owned());
            return Ok(());
        }
        match map(name)? {
            MapData::Values(values) => self.load(Some(destination), Some(Value::OneOf(values))),
            MapData::Verdicts(verdicts) => {
                let chains = verdicts.into_iter().filter_map(|verdict| match verdict {
                    Verdict::Chain(chain) => Some(chain),
                    _ => None,
                });
                self.rule.target = Target::OneOf(chains.collect());
            }
        }
        Ok(())
    }

    /// The endpoints of a nat expression: address and port from registers, constants or a map.
    fn endpoints(&self, data: Attributes<'_>) -> Option<Vec<SocketAddr>> {
        let address_at = word(data.be_u32(3)?);
        let port_at = data.be_u32(5).map(word);
        match self.registers.get(&address_at)? {
            Value::Constant(bytes) => {
                let port = match port_at.and_then(|at| self.registers.get(&at)) {
                    Some(Value::Constant(port)) => u16::from_be_bytes(*port.first_chunk::<2>()?),
                    _ => return None,
                };
                Some(vec![SocketAddr::new(address(self.family, bytes)?, port)])
            }
            Value::OneOf(values) => {
                let offset = usize::try_from(port_at?.checked_sub(address_at)?).ok()? * 4;
                values
                    .iter()
                    .map(|value| {
                        let port = value.get(offset..)?.first_chunk::<2>()?;
                        Some(SocketAddr::new(
                            address(self.family, value)?,
                            u16::from_be_bytes(*port),
                        ))
                    })
                    .collect()
            }
            _ => None,
        }
    }
}

fn address(family: IpFamily, bytes: &[u8]) -> Option<IpAddr> {
    Some(match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attributes_of;

    fn read(bytes: &[u8], family: IpFamily) -> Rule {
        let elements = |_: &str| Ok::<_, Infallible>(MapData::Values(vec![vec![10, 0, 0, 1, 0, 80]]));
        read_rule(Attributes(bytes), family, elements).unwrap()
    }

    fn expression(name: &str, data: &[(u16, &[u8])]) -> Vec<u8> {
        let name = format!("{name}\0");
        let data = attributes_of(data);
        attributes_of(&[(LIST_ELEMENT, &attributes_of(&[(1, name.as_bytes()), (2, &data)]))])
    }

    #[test]
    fn a_prefix_is_compared_with_or_without_a_mask() {
        let load = |length: u32| {
            expression(
                "payload",
                &[
                    (1, &1_u32.to_be_bytes()),
                    (2, &NETWORK_HEADER.to_be_bytes()),
                    (3, &12_u32.to_be_bytes()),
                    (4, &length.to_be_bytes()),
                ],
            )
        };
        let data = |value: &[u8]| attributes_of(&[(DATA_VALUE, value)]);
        let compare = |value: &[u8]| {
            let (register, equal) = (1_u32.to_be_bytes(), 0_u32.to_be_bytes());
            expression("cmp", &[(1, &register), (2, &equal), (3, &data(value))])
        };
        let source = |net: &str| Match::Source {
            net: net.parse().unwrap(),
            not: false,
        };

        let short = [load(2), compare(&[10, 244])].concat();
        assert_eq!(read(&short, IpFamily::V4).matches, [source("10.244.0.0/16")]);

        let register = 1_u32.to_be_bytes();
        let mask = expression(
            "bitwise",
            &[(1, &register), (2, &register), (4, &data(&[255, 240, 0, 0]))],
        );
        let masked = [load(4), mask, compare(&[172, 16, 0, 0])].concat();
        assert_eq!(read(&masked, IpFamily::V4).matches, [source("172.16.0.0/12")]);
    }

    #[test]
    fn what_is_not_known_is_not_passed_over() {
        let rule = read(&expression("quota", &[]), IpFamily::V4);
        assert_eq!(rule.matches, [Match::Other("quota".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512), v6: bool) {
            read(&bytes, if v6 { IpFamily::V6 } else { IpFamily::V4 });
        }

        #[test]
        fn expressions_with_any_data_are_survived(
            expressions in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "payload", "meta", "cmp", "bitwise", "immediate", "lookup", "nat", "fib", "match", "target",
                    ]),
                    prop::collection::vec((1_u16..8, prop::collection::vec(any::<u8>(), 0..48)), 0..8),
                ),
                0..8,
            ),
        ) {
            let mut bytes = Vec::new();
            for (name, data) in &expressions {
                let data: Vec<(u16, &[u8])> = data.iter().map(|(k, v)| (*k, v.as_slice())).collect();
                bytes.extend(expression(name, &data));
            }
            read(&bytes, IpFamily::V4);
            read(&bytes, IpFamily::V6);
        }
    }
}
