//! Connections that the kernel tracks: `conntrack -L`, with `-o extended` too, and /proc/net/nf_conntrack.
//!
//! Sources: conntrack(8); the kernel's net/netfilter/nf_conntrack_standalone.c (`ct_seq_show`).

use std::net::{IpAddr, SocketAddr};

use super::ParseError;
use crate::connection::Connection;
use svcdiag_kube_proxy::Protocol;

/// A connection as the text shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its line, from 1.
    pub line: usize,
    /// Its protocol; others than those of Services are left out.
    pub protocol: Protocol,
    /// Who talks to whom.
    pub connection: Connection,
    /// Both sides have kept at it.
    pub assured: bool,
    /// Nothing has come back.
    pub unreplied: bool,
}

/// Reads tracked connections.
///
/// # Errors
/// When no line is one, nor says that there are none.
pub fn parse(text: &str) -> Result<Vec<Entry>, ParseError> {
    let mut entries = Vec::new();
    let mut understood = false;
    for (index, line) in text.lines().enumerate() {
        // `conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.`
        understood |= line.contains("flow entries have been shown") || is_of_another_protocol(line);
        entries.extend(entry(index + 1, line));
    }
    if entries.is_empty() && !understood {
        return Err(ParseError::nothing(text, "output of `conntrack -L`"));
    }
    Ok(entries)
}

/// UDP connections to a Service that lead to no endpoint that serves, as kube-proxy judges them. Only with
/// endpoints that do can they be stale; whether somebody still sends takes two looks, or [`Entry::assured`]
/// as a hint.
#[must_use]
pub fn stale_udp<'a>(
    entries: &'a [Entry],
    destination: SocketAddr,
    serving: &[SocketAddr],
) -> Vec<&'a Entry> {
    let is_stale = |entry: &&Entry| {
        entry.protocol == Protocol::Udp
            && entry.connection.destination == destination
            && !serving.contains(&entry.connection.answers)
    };
    entries
        .iter()
        .filter(is_stale)
        .filter(|_| !serving.is_empty())
        .collect()
}

fn is_of_another_protocol(line: &str) -> bool {
    ["icmp ", "icmpv6 ", "unknown ", "gre ", "dccp "]
        .iter()
        .any(|p| line.contains(p))
        && line.contains("src=")
}

fn entry(line: usize, content: &str) -> Option<Entry> {
    let words = || content.split_whitespace();
    let start = words().position(|word| Protocol::from_lower_case(word).is_some())?;
    // Behind the name: number of the protocol, seconds; -o extended and /proc write the family before it.
    let seconds_left = words().nth(start + 2).and_then(|word| word.parse().ok());
    let (source, destination) = tuple(content, 0)?;
    let (answers, answers_to) = tuple(content, 1)?;
    Some(Entry {
        line,
        protocol: words().nth(start).and_then(Protocol::from_lower_case)?,
        connection: Connection {
            source,
            destination,
            answers,
            answers_to,
            seconds_left: seconds_left.unwrap_or_default(),
        },
        assured: words().any(|word| word == "[ASSURED]"),
        unreplied: words().any(|word| word == "[UNREPLIED]"),
    })
}

/// Source and destination of the original direction (0) or of the answers (1).
fn tuple(content: &str, direction: usize) -> Option<(SocketAddr, SocketAddr)> {
    let value = |key: &str| {
        let mut values = content
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.nth(direction)
    };
    let end = |address: &str, port: &str| {
        let address: IpAddr = value(address)?.parse().ok()?;
        Some(SocketAddr::new(address, value(port)?.parse().ok()?))
    };
    Some((end("src", "sport")?, end("dst", "dport")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPTURE: &str = "\
tcp      6 83 SYN_SENT src=10.244.0.13 dst=10.96.228.162 sport=40962 dport=80 [UNREPLIED] src=10.96.228.162 dst=10.244.0.13 sport=80 dport=40962 mark=0 use=1
tcp      6 85 TIME_WAIT src=10.89.0.11 dst=10.96.161.163 sport=54622 dport=80 src=10.244.0.12 dst=10.244.0.1 sport=9376 dport=34515 [ASSURED] mark=0 use=1
udp      17 3 src=10.89.0.11 dst=10.96.102.139 sport=38981 dport=90 src=10.244.0.12 dst=10.244.0.1 sport=9376 dport=63676 mark=0 use=1
unknown  2 590 src=10.89.0.11 dst=224.0.0.22 [UNREPLIED] src=224.0.0.22 dst=10.89.0.11 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 4 flow entries have been shown.
";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_capture_is_read() {
        let entries = parse(CAPTURE).unwrap();
        let [syn, web, udp] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert!(syn.unreplied && !syn.assured && web.assured && !web.unreplied);
        assert_eq!((udp.line, udp.protocol), (3, Protocol::Udp));
        let expected = Connection {
            source: address("10.89.0.11:38981"),
            destination: address("10.96.102.139:90"),
            answers: address("10.244.0.12:9376"),
            answers_to: address("10.244.0.1:63676"),
            seconds_left: 3,
        };
        assert_eq!(udp.connection, expected);
    }

    #[test]
    fn proc_and_ipv6_are_read() {
        let text = "ipv6     10 udp      17 29 src=fd00::5 dst=fd00:10:96::a sport=5 dport=53 src=fd00::9 dst=fd00::5 sport=53 dport=5 [ASSURED] mark=0 zone=0 use=2\n";
        let entries = parse(text).unwrap();
        let connection = entries.first().unwrap().connection;
        assert_eq!(connection.answers, address("[fd00::9]:53"));
        assert_eq!(connection.seconds_left, 29);
    }

    #[test]
    fn stale_connections_lead_to_no_serving_endpoint() {
        let entries = parse(CAPTURE).unwrap();
        let stale = |serving: &[&str]| {
            let serving: Vec<_> = serving.iter().map(|s| address(s)).collect();
            stale_udp(&entries, address("10.96.102.139:90"), &serving).len()
        };
        assert_eq!(stale(&["10.244.0.7:9376"]), 1);
        assert_eq!(stale(&["10.244.0.12:9376"]), 0);
        assert_eq!(stale(&[]), 0, "without endpoints nothing is better");
    }

    #[test]
    fn none_is_not_nothing() {
        assert_eq!(
            parse("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n").unwrap(),
            []
        );
        for text in ["", "hello\n", "udp was here\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}") {
            let _ = parse(&text);
        }

        #[test]
        fn damaged_lines_are_survived(cut in 0_usize..600, at in 0_usize..600, c: char) {
            let mut chars: Vec<char> = CAPTURE.chars().take(cut).collect();
            if let Some(place) = chars.get_mut(at) {
                *place = c;
            }
            let _ = parse(&chars.into_iter().collect::<String>());
        }
    }
}
