//! Sockets that listen: `ss -lntu`, `netstat -lntu`.
//!
//! Sources: iproute2's misc/ss.c, net-tools' netstat.c, busybox's networking/netstat.c.

use super::{
    ParseError,
    prompt::{Piece, pieces_of},
};
use svcdiag_api::{ListeningSocket, Protocol};

/// Most sockets that are kept.
const MAX_SOCKETS: usize = 32;

/// Reads the sockets that listen over TCP, and those of UDP beside them. A list that leaves out something is none: what
/// it does not show may be there.
///
/// # Errors
/// When no line shows one over TCP, or the list is not whole.
pub fn parse(text: &str) -> Result<Vec<ListeningSocket>, ParseError> {
    const WHAT: &str = "output of ss or netstat with -lnt, unfiltered,";
    let pieces = pieces_of(text, &["ss", "netstat"]);
    let is_filtered = |piece: &Piece<'_>| {
        let filter = piece.command.and_then(|command| command.split_once('|'));
        filter.is_some_and(|(_, filter)| !filter.to_ascii_uppercase().contains("LISTEN"))
    };
    let lines = || {
        let whole = pieces.iter().filter(|piece| !is_filtered(piece));
        whole
            .flat_map(|piece| &piece.output)
            .filter(|(_, line)| is_listening(line))
    };
    let mut sockets: Vec<ListeningSocket> = Vec::new();
    for (_, line) in lines() {
        let socket = socket(line).ok_or_else(|| ParseError::nothing(text, WHAT))?;
        if !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    if !sockets.iter().any(|s| s.protocol == Protocol::Tcp) || sockets.len() > MAX_SOCKETS {
        return Err(ParseError::nothing(text, WHAT));
    }
    Ok(sockets)
}

fn is_listening(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    line.split_whitespace()
        .any(|word| word == "LISTEN" || word == "UNCONN")
        || first.starts_with("udp")
}

/// The local address is the first word with a port.
fn socket(line: &str) -> Option<ListeningSocket> {
    let is_udp = line.trim_start().starts_with("udp") || line.contains("UNCONN");
    let local = line.split_whitespace().find(|word| word.contains(':'))?;
    let (address, port) = local.rsplit_once(':')?;
    let address = address.split('%').next()?.trim_matches(['[', ']']);
    let address = match address {
        "*" | "::" | "" => "::",
        "localhost" => "127.0.0.1",
        address => address.strip_prefix("::ffff:").unwrap_or(address),
    };
    let ip: std::net::IpAddr = address.parse().ok()?;
    Some(ListeningSocket {
        protocol: if is_udp { Protocol::Udp } else { Protocol::Tcp }.into(),
        address: ip.to_string(),
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<String> {
        let sockets = parse(text).unwrap();
        let told = sockets
            .iter()
            .map(|s| format!("{} {} {}", s.protocol, s.address, s.port));
        told.collect()
    }

    #[test]
    fn ss_and_netstat_are_read() {
        let ss = "/ # ss -lntp\nState    Recv-Q   Send-Q     Local Address:Port     Peer Address:Port\n\
                  LISTEN   0        511            127.0.0.1:3000          0.0.0.0:*       users:((\"node\",pid=1,fd=18))\n\
                  LISTEN   0        4096                   *:9090                *:*\n\
                  LISTEN   0        4096    127.0.0.53%lo:53               0.0.0.0:*\n";
        assert_eq!(
            read(ss),
            ["TCP 127.0.0.1 3000", "TCP :: 9090", "TCP 127.0.0.53 53"]
        );
        let netstat = "Active Internet connections (only servers)\n\
                       Proto Recv-Q Send-Q Local Address           Foreign Address         State       PID/Program name\n\
                       tcp        0      0 127.0.0.1:3000          0.0.0.0:*               LISTEN      1/node\n\
                       tcp        0      0 :::8080                 :::*                    LISTEN      1/java\n\
                       tcp        0      0 10.0.0.1:8080           10.0.0.2:4000           ESTABLISHED 1/java\n\
                       udp        0      0 0.0.0.0:53              0.0.0.0:*                           7/named\n";
        assert_eq!(
            read(netstat),
            ["TCP 127.0.0.1 3000", "TCP :: 8080", "UDP 0.0.0.0 53"]
        );
    }

    #[test]
    fn a_list_that_leaves_something_out_is_none() {
        for text in [
            "",
            "LISTEN 0 5 *:http *:*\n",
            "$ ss -lnt | grep 8080\nLISTEN 0 5 *:8080 *:*\n",
            "udp 0 0 0.0.0.0:53 0.0.0.0:*\n",
            "ESTAB 0 0 10.0.0.1:80 10.0.0.2:4000\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            read("$ netstat -ant | grep LISTEN\ntcp 0 0 0.0.0.0:80 0.0.0.0:* LISTEN\n"),
            ["TCP 0.0.0.0 80"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s)(LISTEN|udp|tcp|[0-9.:*% ]|.){0,60}") {
            let _ = parse(&text);
        }
    }
}
