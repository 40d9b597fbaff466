//! Virtual servers as `ipvsadm -ln`, `ipvsadm -Sn` and the kernel's /proc/net/ip_vs list them.
//!
//! Source: the manual page ipvsadm(8). In the kernel's own file addresses are hexadecimal, which
//! `svcdiag_netns::netfilter::ipvs` reads.
//!
//! ```text
//! IP Virtual Server version 1.2.1 (size=4096)
//! Prot LocalAddress:Port Scheduler Flags
//!   -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
//! TCP  10.0.1.175:80 rr persistent 10800
//!   -> 10.244.0.5:9376              Masq    1      0          0
//!
//! -A -t 10.0.1.175:80 -s rr -p 10800
//! -a -t 10.0.1.175:80 -r 10.244.0.5:9376 -m -w 1
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use super::{ParseError, Wrong};
use crate::ipvs;
use svcdiag_kube_proxy::{Protocol, VirtualServer, VirtualServers};

const ADDRESS: &str = "an address and a port";

/// The virtual servers of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// What is listed.
    pub servers: VirtualServers,
    /// Whether that is all there is on the node: the list has its head and nothing was left out of it.
    /// `ipvsadm -S` has no head, so that nobody can tell.
    pub is_whole: bool,
}

type Key = (Protocol, SocketAddr);

/// Whether a line is a command that shows a part: `ipvsadm -ln | grep ...`, `ipvsadm -ln -t ADDRESS`.
#[must_use]
pub fn is_choice(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let has = |known: &[&str]| words.iter().any(|word| known.contains(word));
    words
        .iter()
        .any(|word| word.ends_with("ipvsadm") || word.ends_with("ip_vs"))
        && has(&[
            "grep",
            "egrep",
            "head",
            "tail",
            "-t",
            "-u",
            "--tcp-service",
            "--udp-service",
        ])
}

/// Reads a list in any of the three forms; other lines are passed over. Of several lists, which may be of
/// several moments or nodes, nobody knows which one holds, so that they have to be the same.
///
/// # Errors
/// When there is neither a virtual server nor the head of a list, one of its lines was cut, or one list
/// contradicts another.
pub fn parse(text: &str) -> Result<Listing, ParseError> {
    let mut known: Option<Listing> = None;
    for (lines_before, part) in lists(text) {
        let list = parse_list(part, lines_before)?;
        match &known {
            Some(first) if first.servers != list.servers => {
                let found = "a list that contradicts the one above";
                return Err(Wrong::new(found, "one list, or the same again").at(lines_before + 1));
            }
            Some(_) => {}
            None => known = Some(list),
        }
    }
    let mut list = known.unwrap_or_default();
    list.is_whole &= !text.lines().any(|line| line.trim() == "..." || is_choice(line));
    Ok(list)
}

/// The lists of a text, each from its head to that of the next one, and the lines before them.
fn lists(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut lines_before, mut has_head, mut at) = (0, 0, false, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_head(line) {
            if has_head {
                parts.push((lines_before, text.get(start..at).unwrap_or_default()));
                (start, lines_before) = (at, number);
            }
            has_head = true;
        }
        at += line.len();
    }
    parts.push((lines_before, text.get(start..).unwrap_or_default()));
    parts
}

fn is_head(line: &str) -> bool {
    line.trim_start().starts_with("Prot ")
}

fn parse_list(text: &str, lines_before: usize) -> Result<Listing, ParseError> {
    let has_head = text.lines().any(is_head);
    if is_of_kernel(text) {
        return Ok(Listing {
            servers: ipvs::parse(text),
            is_whole: has_head,
        });
    }
    let mut all = HashMap::new();
    // The virtual server that the real servers which follow belong to.
    let mut open = None;
    for (number, line) in text.lines().enumerate() {
        read(line, &mut all, &mut open).map_err(|wrong| wrong.at(lines_before + number + 1))?;
    }
    if all.is_empty() && !has_head {
        let expected = "the output of ipvsadm -ln or ipvsadm -Sn";
        return Err(ParseError::nothing(text, expected));
    }
    Ok(Listing {
        servers: all.into_iter().collect(),
        is_whole: has_head,
    })
}

/// Whether the first virtual server is written in hexadecimal.
fn is_of_kernel(text: &str) -> bool {
    let mut addresses = text.lines().filter_map(|line| {
        let (protocol, rest) = line.trim_start().split_once(' ')?;
        protocol.parse::<Protocol>().ok()?;
        rest.split_whitespace().next()
    });
    addresses.next().is_some_and(|address| {
        let port = address.rsplit(':').next().unwrap_or_default();
        // An IPv6 address is the same in both, but the kernel fills ports up to four digits.
        let is_bare = address
            .split(':')
            .next()
            .is_some_and(|ip| ip.len() == 8 && !ip.contains('.'));
        is_bare || (address.starts_with('[') && address.len() > 40 && port.len() == 4)
    })
}

fn read(line: &str, all: &mut HashMap<Key, VirtualServer>, open: &mut Option<Key>) -> Result<(), Wrong> {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("->") => {
            let Some(server) = open.and_then(|key| all.get_mut(&key)) else {
                return Ok(());
            };
            let address = word(words.next(), ADDRESS)?;
            let real = socket_address(address)?;
            // How packets are forwarded, then the weight.
            words.next();
            server.servers.push((real, weight(words.next())?));
        }
        Some("-A") => {
            if let Some(saved) = Saved::read(words)? {
                first(all, saved.key)?.is_persistent = saved.is_persistent;
            }
        }
        Some("-a") => {
            if let Some(saved) = Saved::read(words)? {
                let real = saved
                    .real
                    .ok_or_else(|| Wrong::new("the end of the line", "-r and a real server"))?;
                let server = all.entry(saved.key).or_default();
                server.servers.push((real, saved.weight));
            }
        }
        Some("FWM") => *open = None,
        Some(name) => {
            let Ok(protocol) = name.parse::<Protocol>() else {
                return Ok(());
            };
            let key = (protocol, socket_address(word(words.next(), ADDRESS)?)?);
            *open = Some(key);
            let server = first(all, key)?;
            server.is_persistent = words.any(|word| word == "persistent");
        }
        None => {}
    }
    Ok(())
}

/// A virtual server that was not there before.
fn first(all: &mut HashMap<Key, VirtualServer>, key: Key) -> Result<&mut VirtualServer, Wrong> {
    match all.entry(key) {
        Entry::Vacant(place) => Ok(place.insert(VirtualServer::default())),
        Entry::Occupied(_) => Err(Wrong::new(
            "a virtual server that was there before",
            "each once, as in one list",
        )),
    }
}

/// A line of `ipvsadm -S`.
struct Saved {
    key: Key,
    is_persistent: bool,
    real: Option<SocketAddr>,
    weight: u32,
}

impl Saved {
    /// None for a virtual server of a firewall mark.
    fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Option<Self>, Wrong> {
        let (mut key, mut real, mut is_persistent, mut heavy) = (None, None, false, 1);
        while let Some(option) = words.next() {
            let protocol = match option {
                "-t" | "--tcp-service" => Some(Protocol::Tcp),
                "-u" | "--udp-service" => Some(Protocol::Udp),
                "--sctp-service" => Some(Protocol::Sctp),
                "-f" | "--fwmark-service" => return Ok(None),
                // Not a line of ipvsadm but a rule of iptables.
                _ if key.is_none() => return Ok(None),
                "-r" | "--real-server" => {
                    real = Some(socket_address(word(words.next(), ADDRESS)?)?);
                    None
                }
                "-w" | "--weight" => {
                    heavy = weight(words.next())?;
                    None
                }
                "-p" | "--persistent" => {
                    is_persistent = true;
                    None
                }
                _ => None,
            };
            if let Some(protocol) = protocol {
                key = Some((protocol, socket_address(word(words.next(), ADDRESS)?)?));
            }
        }
        Ok(key.map(|key| Self {
            key,
            is_persistent,
            real,
            weight: heavy,
        }))
    }
}

fn word<'a>(word: Option<&'a str>, expected: &'static str) -> Result<&'a str, Wrong> {
    word.ok_or_else(|| Wrong::new("the end of the line", expected))
}

fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| Wrong::word(text, ADDRESS))
}

fn weight(text: Option<&str>) -> Result<u32, Wrong> {
    const EXPECTED: &str = "a weight";
    let text = word(text, EXPECTED)?;
    text.parse().map_err(|_| Wrong::word(text, EXPECTED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{super::damage::damaged_word, *};

    const LIST: &str = "\
u@node$ ipvsadm -ln
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.1.175:80 rr persistent 10800
  -> 10.244.0.5:9376               Masq    1      0          0
  -> 10.244.0.6:9376               Masq    0      2          0
FWM  1 rr
  -> 10.244.0.9:9376               Masq    1      0          0
UDP  [fd00::a]:53 rr
  -> [fd00::3]:53                  Masq    1      0          0
";

    const SAVED: &str = "\
-A -t 10.0.1.175:80 -s rr -p 10800
-a -t 10.0.1.175:80 -r 10.244.0.5:9376 -m -w 1
-a -t 10.0.1.175:80 -r 10.244.0.6:9376 -m -w 0
-A -f 1 -s rr
-a -f 1 -r 10.244.0.9:9376 -m -w 1
-A -u [fd00::a]:53 -s rr
-a -u [fd00::a]:53 -r [fd00::3]:53 -m -w 1
";

    const KERNEL: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A0001AF:0050 rr persistent 10800 FFFFFFFF
  -> 0AF40005:24A0      Masq    1      0          0
  -> 0AF40006:24A0      Masq    0      2          0
UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr
  -> [fd00:0000:0000:0000:0000:0000:0000:0003]:0035      Masq    1      0          0
";

    #[test]
    fn the_three_forms_say_the_same() {
        let list = parse(LIST).unwrap();
        assert!(list.is_whole);
        assert_eq!(list.servers.len(), 2);
        let hostnames = list
            .servers
            .at(Protocol::Tcp, "10.0.1.175:80".parse().unwrap())
            .unwrap();
        assert!(hostnames.is_persistent);
        assert_eq!(hostnames.servers.len(), 2);
        assert_eq!(hostnames.servers[1], ("10.244.0.6:9376".parse().unwrap(), 0));
        let saved = parse(SAVED).unwrap();
        assert!(!saved.is_whole);
        assert_eq!(saved.servers, list.servers);
        assert_eq!(parse(KERNEL).unwrap(), list);
        assert_eq!(parse(&LIST.replace('\n', "\r\n")).unwrap(), list);
    }

    #[test]
    fn a_list_without_servers_is_one_and_a_list_that_was_shortened_is_not_whole() {
        let head: String = LIST.lines().take(4).map(|line| format!("{line}\n")).collect();
        let empty = parse(&head).unwrap();
        assert!(empty.is_whole && empty.servers.is_empty());
        assert!(!parse(&format!("{LIST}...\n")).unwrap().is_whole);
    }

    #[test]
    fn what_is_cut_or_something_else_is_told_with_its_line() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            told(&LIST.replace(
                "10.244.0.6:9376               Masq    0      2          0",
                "10.244.0.6:9376   Masq"
            )),
            "line 7: expected a weight, found the end of the line"
        );
        assert_eq!(
            told(&SAVED.replace(" -r 10.244.0.6:9376 -m -w 0", " -r 10.244")),
            "line 3: expected an address and a port, found \"10.244\""
        );
        assert_eq!(
            told("bash: ipvsadm: command not found\n"),
            "line 1: expected the output of ipvsadm -ln or ipvsadm -Sn, found \"bash: ipvsadm: command not found\""
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "((TCP|UDP|  ->|FWM|-A -t|-a -t) ?[0-9A-F.\\[\\]: rw-]{0,40}\\PC{0,9}\n){0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_damaged_list_is_survived(text in damaged_word(&[LIST, SAVED])) {
            let _ = parse(&text);
        }
    }
}
