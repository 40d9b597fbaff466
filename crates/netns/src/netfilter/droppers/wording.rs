//! A rule of nf_tables in words, about as nft writes it.
//!
//! Only rules of which every expression is understood are put into words: half a rule would be another one. Nothing of it
//! is a text of others, but for names of interfaces and sets that are plain words.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use svcdiag_kube_proxy::Match;

use super::{
    matching::{End, verdict},
    packet::states_of_xt,
    shown,
};
use crate::{
    netfilter::{
        expressions::{DATA_VALUE, LIST_ELEMENT, is_anonymous},
        xt,
    },
    netlink::Attributes,
};

/// Longer rules are not put into words.
const LONGEST: usize = 160;

/// What a register holds.
#[derive(Clone)]
enum Loaded {
    /// An address, or its first bytes, under a name; with a mask.
    Address(&'static str, Option<Vec<u8>>),
    /// A port.
    Port(&'static str),
    /// The number of a protocol.
    Protocol(&'static str),
    NfProtocol,
    /// The name of an interface.
    Interface(&'static str),
    /// A state of connection tracking, with a mask.
    State(Option<u32>),
}

#[derive(Default)]
struct Writer {
    registers: HashMap<u32, Loaded>,
    words: Vec<String>,
}

/// The rule in words. At bridges and interfaces packets are not IP packets for certain.
pub(super) fn rule(expressions: Attributes<'_>, is_ip: bool) -> Option<String> {
    is_ip.then_some(())?;
    let mut writer = Writer::default();
    for (_, expression) in expressions.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
        let expression = Attributes(expression);
        writer.write(expression.text(1)?, expression.nested(2).unwrap_or_default())?;
    }
    let text = writer.words.join(" ");
    (!text.is_empty() && text.len() <= LONGEST).then_some(text)
}

impl Writer {
    /// None where an expression is not understood.
    fn write(&mut self, name: &str, data: Attributes<'_>) -> Option<()> {
        match name {
            "counter" => self.say("counter".to_owned()),
            "log" => self.say("log".to_owned()),
            "payload" => {
                let loaded = payload(data)?;
                self.registers.insert(data.be_u32(1)?, loaded);
            }
            "meta" => {
                let loaded = match data.be_u32(2)? {
                    6 => Loaded::Interface("iifname"),
                    7 => Loaded::Interface("oifname"),
                    15 => Loaded::NfProtocol,
                    16 => Loaded::Protocol("meta l4proto"),
                    _ => return None,
                };
                self.registers.insert(data.be_u32(1)?, loaded);
            }
            "ct" => {
                (data.be_u32(2)? == 0).then_some(())?;
                self.registers.insert(data.be_u32(1)?, Loaded::State(None));
            }
            "bitwise" => self.mask(data)?,
            "cmp" => self.compare(data)?,
            "range" => {
                (data.be_u32(2)? == 0).then_some(())?;
                let Loaded::Port(port) = self.loaded(data)? else {
                    return None;
                };
                let (from, to) = (value(data, 3)?, value(data, 4)?);
                let text = format!("{}-{}", u16_of(from)?, u16_of(to)?);
                self.port(port, &text);
            }
            "lookup" => self.lookup(data)?,
            "immediate" => {
                (verdict(data.nested(2)?)? == End::Drop).then_some(())?;
                self.say("drop".to_owned());
            }
            "reject" => self.say("reject".to_owned()),
            "match" => self.xt(data)?,
            "target" => {
                (data.text(1)? == "REJECT").then_some(())?;
                self.say("reject".to_owned());
            }
            _ => return None,
        }
        Some(())
    }

    fn say(&mut self, words: String) {
        self.words.push(words);
    }

    fn loaded(&self, data: Attributes<'_>) -> Option<Loaded> {
        self.registers.get(&data.be_u32(1)?).cloned()
    }

    fn mask(&mut self, data: Attributes<'_>) -> Option<()> {
        let (mask, xor) = (value(data, 4)?, value(data, 5)?);
        xor.iter().all(|byte| *byte == 0).then_some(())?;
        let masked = match self.loaded(data)? {
            Loaded::Address(name, None) => Loaded::Address(name, Some(mask.to_vec())),
            Loaded::State(None) => Loaded::State(Some(u32_of(mask)?)),
            _ => return None,
        };
        self.registers.insert(data.be_u32(2)?, masked);
        Some(())
    }

    fn compare(&mut self, data: Attributes<'_>) -> Option<()> {
        let constant = value(data, 3)?;
        let (is_equal, not) = match data.be_u32(2)? {
            0 => (true, ""),
            1 => (false, "!= "),
            _ => return None,
        };
        match self.loaded(data)? {
            Loaded::Address(name, mask) => {
                // What says which addresses a packet has goes without saying.
                self.take_back("meta nfproto");
                let is_v4 = name.starts_with("ip ");
                self.say(format!(
                    "{name} {not}{}",
                    network(constant, mask.as_deref(), is_v4)?
                ));
            }
            Loaded::Port(name) => self.port(name, &format!("{not}{}", u16_of(constant)?)),
            Loaded::Protocol(name) => {
                let protocol = protocol(*constant.first()?);
                self.say(format!("{name} {not}{protocol}"));
            }
            Loaded::NfProtocol => {
                let family = match constant {
                    [2] => "ipv4",
                    [10] => "ipv6",
                    _ => return None,
                };
                self.say(format!("meta nfproto {not}{family}"));
            }
            Loaded::Interface(name) => self.say(format!("{name} {not}{}", interface(constant)?)),
            Loaded::State(Some(mask)) => {
                (constant == [0; 4]).then_some(())?;
                let not = if is_equal { "!= " } else { "" };
                self.say(format!("ct state {not}{}", states(mask)?));
            }
            Loaded::State(None) => self.say(format!("ct state {not}{}", states(u32_of(constant)?)?)),
        }
        Some(())
    }

    fn port(&mut self, name: &str, value: &str) {
        let protocols = ["tcp", "udp", "sctp"];
        let known = protocols
            .into_iter()
            .find(|protocol| self.take_back(&format!("meta l4proto {protocol}")));
        self.say(format!("{} {name} {value}", known.unwrap_or("th")));
    }

    /// Takes back words that go without saying; whether there were such that begin so.
    fn take_back(&mut self, words: &str) -> bool {
        let known = self.words.iter().position(|said| said.starts_with(words));
        if let Some(at) = known {
            self.words.remove(at);
        }
        known.is_some()
    }

    fn lookup(&mut self, data: Attributes<'_>) -> Option<()> {
        let set = data.name(1)?;
        let name = shown(set);
        let is_plain = name.as_bytes() == set && !is_anonymous(&name) && data.get(3).is_none();
        is_plain.then_some(())?;
        let not = match data.be_u32(5).unwrap_or_default() & 1 {
            0 => "",
            _ => "!= ",
        };
        let field = match self.registers.get(&data.be_u32(2)?)? {
            Loaded::Address(field, None) | Loaded::Interface(field) | Loaded::Protocol(field) => {
                (*field).to_owned()
            }
            Loaded::Port(field) => format!("th {field}"),
            _ => return None,
        };
        self.take_back("meta nfproto");
        self.say(format!("{field} {not}@{name}"));
        Some(())
    }

    fn xt(&mut self, data: Attributes<'_>) -> Option<()> {
        let name = data.text(1)?;
        let revision = u8::try_from(data.be_u32(2)?).ok()?;
        let info = data.get(3)?;
        if let Some(of) = states_of_xt(name, revision, info) {
            self.say(format!("ct state {}", states(of)?));
            return Some(());
        }
        match xt::read_match(name, revision, info) {
            Match::Neutral => {}
            // It may ask for a source port as well: struct xt_tcp and xt_udp begin with these, and all of them is 0 to 65535.
            Match::DestinationPort(ports) if ["tcp", "udp"].contains(&name) => {
                let is_any_source = info.get(..2) == Some(&[0; 2]) && info.get(2..4) == Some(&[0xff; 2]);
                let is_all = name == "udp" || info.get(8..12) == Some(&[0; 4]);
                (is_any_source && is_all).then_some(())?;
                let value = match ports.start() == ports.end() {
                    true => ports.start().to_string(),
                    false => format!("{}-{}", ports.start(), ports.end()),
                };
                self.take_back(&format!("meta l4proto {name}"));
                self.take_back(&format!("ip protocol {name}"));
                self.say(format!("{name} dport {value}"));
            }
            _ => return None,
        }
        Some(())
    }
}

fn value<'a>(data: Attributes<'a>, kind: u16) -> Option<&'a [u8]> {
    data.nested(kind)?.get(DATA_VALUE)
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn payload(data: Attributes<'_>) -> Option<Loaded> {
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    Some(match (data.be_u32(2)?, data.be_u32(3)?, data.be_u32(4)?) {
        (NETWORK_HEADER, 12, 1..=4) => Loaded::Address("ip saddr", None),
        (NETWORK_HEADER, 16, 1..=4) => Loaded::Address("ip daddr", None),
        (NETWORK_HEADER, 8, 2..=16) => Loaded::Address("ip6 saddr", None),
        (NETWORK_HEADER, 24, 2..=16) => Loaded::Address("ip6 daddr", None),
        (NETWORK_HEADER, 9, 1) => Loaded::Protocol("ip protocol"),
        (TRANSPORT_HEADER, 0, 2) => Loaded::Port("sport"),
        (TRANSPORT_HEADER, 2, 2) => Loaded::Port("dport"),
        _ => return None,
    })
}

/// The address or network that a value and its mask stand for. A prefix of whole bytes has no mask: fewer are compared.
fn network(bytes: &[u8], mask: Option<&[u8]>, is_v4: bool) -> Option<String> {
    let size = if is_v4 { 4 } else { 16 };
    let length = match mask {
        None => bytes.len() * 8,
        Some(mask) => {
            let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            let leading = mask
                .iter()
                .map(|byte| byte.leading_ones())
                .scan(true, |is_on, ones| {
                    let counts = if *is_on { ones } else { 0 };
                    *is_on &= ones == 8;
                    Some(counts)
                });
            (leading.sum::<u32>() == ones && mask.len() == size).then_some(())?;
            usize::try_from(ones).ok()?
        }
    };
    let mut filled = bytes.to_vec();
    filled.resize(size, 0);
    let address: IpAddr = match is_v4 {
        true => Ipv4Addr::from(*filled.first_chunk::<4>()?).into(),
        false => Ipv6Addr::from(*filled.first_chunk::<16>()?).into(),
    };
    Some(match length == size * 8 {
        true => address.to_string(),
        false => format!("{address}/{length}"),
    })
}

/// The name of an interface; without its end it is the beginning of one.
fn interface(bytes: &[u8]) -> Option<String> {
    let length = bytes.iter().position(|byte| *byte == 0);
    let name = bytes.get(..length.unwrap_or(bytes.len()))?;
    let text = shown(name);
    (!name.is_empty() && text.as_bytes() == name).then_some(())?;
    Some(match length {
        Some(_) => text,
        None if bytes.len() >= 16 => text,
        None => format!("{text}*"),
    })
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn states(mask: u32) -> Option<String> {
    const NAMES: [(u32, &str); 5] = [
        (1, "invalid"),
        (2, "established"),
        (4, "related"),
        (8, "new"),
        (64, "untracked"),
    ];
    let known: u32 = NAMES.iter().map(|(bit, _)| bit).sum();
    (mask & !known == 0 && mask != 0).then_some(())?;
    let named = NAMES.iter().filter(|(bit, _)| mask & bit != 0);
    Some(named.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
}
