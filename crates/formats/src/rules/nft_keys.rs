//! Keys and elements of the sets and maps of kube-proxy's table.
//!
//! Fields of a key in network byte order, each filled up to four bytes, as the kernel lays them out.

use std::{collections::HashMap, net::IpAddr};

use super::Wrong;
use svcdiag_kube_proxy::{Protocol, Verdict};

/// The elements of a set or map, by key.
pub(super) type Elements = HashMap<Vec<u8>, Verdict>;

/// What a field of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Address,
    Protocol,
    Port,
}

impl Field {
    /// By the name of its type, or the expression that it is compared with.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.trim() {
            "ipv4_addr" | "ipv6_addr" | "ip saddr" | "ip daddr" | "ip6 saddr" | "ip6 daddr" => {
                Some(Self::Address)
            }
            "inet_proto" | "meta l4proto" => Some(Self::Protocol),
            "inet_service" | "th dport" => Some(Self::Port),
            _ => None,
        }
    }
}

/// The bytes of a key.
pub(super) fn key<'a>(fields: &[Field], values: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::with_capacity(24);
    let mut values = values.into_iter();
    for field in fields {
        const EXPECTED: &str = "as many fields as the key has";
        let value = values
            .next()
            .ok_or_else(|| Wrong::new("the end of the key", EXPECTED))?;
        match field {
            Field::Address => match value.parse() {
                Ok(IpAddr::V4(ip)) => bytes.extend(ip.octets()),
                Ok(IpAddr::V6(ip)) => bytes.extend(ip.octets()),
                Err(_) => return Err(Wrong::word(value, "an address")),
            },
            Field::Protocol => {
                let number = protocol(value).ok_or_else(|| Wrong::word(value, "a protocol"))?;
                bytes.extend([number, 0, 0, 0]);
            }
            Field::Port => {
                let port: u16 = value.parse().map_err(|_| Wrong::word(value, "a port"))?;
                let [high, low] = port.to_be_bytes();
                bytes.extend([high, low, 0, 0]);
            }
        }
    }
    match values.next() {
        Some(more) => Err(Wrong::word(more, "the end of the key")),
        None => Ok(bytes),
    }
}

/// The number of a protocol by its name or number.
pub(super) fn protocol(name: &str) -> Option<u8> {
    let known = Protocol::from_lower_case(name).map(Protocol::number);
    known.or_else(|| name.parse().ok())
}

/// The words of a part of `nft list ruleset`. Commas are words; quotes stay at what is quoted.
pub(super) fn words(text: &str) -> Result<Vec<&str>, Wrong> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"') {
            Some(quoted) => {
                let inside = quoted
                    .find('"')
                    .ok_or_else(|| Wrong::new("the end of the line", "a closing quote"))?;
                inside + 2
            }
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        let (word, behind) = rest.split_at(end);
        let (word, comma) = match word.strip_suffix(',') {
            Some(word) => (word, true),
            None => (word, false),
        };
        if !word.is_empty() {
            words.push(word);
        }
        rest = behind.trim_start();
        // Behind a quote the comma stands alone.
        if comma {
            words.push(",");
        } else if let Some(behind) = rest.strip_prefix(',') {
            words.push(",");
            rest = behind.trim_start();
        }
    }
    Ok(words)
}

/// The elements between the braces of a set or map.
pub(super) fn elements(fields: &[Field], text: &str) -> Result<Elements, Wrong> {
    let words = words(text)?;
    words
        .split(|word| *word == ",")
        .filter(|element| !element.is_empty())
        .map(|element| {
            let (key, verdict) = split(element);
            Ok((self::key(fields, key_values(key))?, verdict_of(verdict)?))
        })
        .collect()
}

/// What stands before and behind the colon of an element.
fn split<'a, 'b>(element: &'b [&'a str]) -> (&'b [&'a str], Option<&'b [&'a str]>) {
    match element.iter().position(|word| *word == ":") {
        Some(colon) => {
            let (key, verdict) = element.split_at(colon);
            (key, Some(verdict.get(1..).unwrap_or_default()))
        }
        None => (element, None),
    }
}

/// The values of a key, without what may stand behind it: comment, timeout, counter.
fn key_values<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut values = Vec::with_capacity(4);
    let mut words = words.iter();
    while let Some(value) = words.next() {
        values.push(*value);
        if words.next() != Some(&".") {
            break;
        }
    }
    values
}

fn verdict_of(words: Option<&[&str]>) -> Result<Verdict, Wrong> {
    match words {
        None => Ok(Verdict::Member),
        Some(["goto" | "jump", chain]) => Ok(Verdict::Chain(unquoted(chain).to_owned())),
        Some(["drop"]) => Ok(Verdict::Drop),
        Some(["accept"]) => Ok(Verdict::Accept),
        Some(other) => Err(Wrong::word(&other.join(" "), "goto and a chain, drop or accept")),
    }
}

/// A name without the quotes that some versions put around it.
pub(super) fn unquoted(name: &str) -> &str {
    name.trim_matches('"')
}
