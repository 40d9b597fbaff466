//! Bridges and their ports: hairpin mode and promiscuity.
//!
//! Understood, in one text even: listings of hairpin_mode (bare numbers as a loop of `cat` prints them,
//! `path:1`, `path = 1`), `ip -d link`, `bridge -d link`, and `ifconfig` of old and new net-tools, whole or
//! grepped for PROMISC.
//!
//! Sources: iproute2's ip/ipaddress.c and bridge/link.c, net-tools' lib/interface.c.

use super::{
    ParseError,
    prompt::{Piece, basename, invocation, pieces},
};

/// A link, as far as the text tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its line, from 1.
    pub line: usize,
    /// Its name; None for a bare number of a listing.
    pub name: Option<String>,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
    /// Whether the bridge sends packets back out of the port they came in by.
    pub hairpin: Option<bool>,
    /// Whether it takes packets for everybody. Ports of a bridge always do; it counts for the bridge.
    pub promiscuous: Option<bool>,
}

/// Reads links.
///
/// # Errors
/// When no line tells of a link.
pub fn parse(text: &str) -> Result<Vec<Link>, ParseError> {
    let links: Vec<Link> = pieces(text).iter().flat_map(read).collect();
    if links.is_empty() {
        let expected = "a listing of hairpin_mode or output of `ip -d link`, `bridge -d link` or `ifconfig`";
        return Err(ParseError::nothing(text, expected));
    }
    Ok(links)
}

fn read(piece: &Piece<'_>) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let is_listing = piece.output.iter().all(|(_, line)| is_of_listing(line));
    for (number, line) in &piece.output {
        if let Some(link) = hairpin_mode(line, is_listing).or_else(|| opening(line)) {
            links.push(Link {
                line: *number,
                ..link
            });
        } else if let Some(promiscuous) = old_flags(line) {
            match links.last_mut() {
                Some(link) => link.promiscuous = Some(promiscuous),
                None => links.push(Link {
                    line: *number,
                    promiscuous: Some(promiscuous),
                    ..Link::default()
                }),
            }
        } else if let Some(link) = links.last_mut().filter(|link| link.name.is_some()) {
            details(link, line);
        }
    }
    let Some((_, arguments)) = piece
        .command
        .and_then(|command| invocation(command, &["ifconfig"]))
    else {
        return links;
    };
    let named = arguments.iter().find(|word| !word.starts_with('-'));
    let is_grepped = piece.command.is_some_and(|command| command.contains("PROMISC"));
    if links.is_empty() && is_grepped && piece.output.iter().all(|(_, line)| line.trim().is_empty()) {
        // `ifconfig cbr0 |grep PROMISC` prints nothing where the flag is not set.
        links.push(Link {
            line: piece.line,
            promiscuous: Some(false),
            ..Link::default()
        });
    }
    for link in links.iter_mut().filter(|link| link.name.is_none()) {
        link.name = named.map(|name| (*name).to_owned());
    }
    links
}

/// Whether a line may stand in a listing of bare numbers: elsewhere a number alone may mean anything.
fn is_of_listing(line: &str) -> bool {
    let line = line.trim();
    matches!(line, "" | "0" | "1") || line.starts_with("for ") || line.starts_with("cat: ")
}

/// `1`, `/sys/class/net/veth1/brport/hairpin_mode: 1`, `/sys/devices/virtual/net/cbr0/brif/veth1/hairpin_mode = 0`.
fn hairpin_mode(line: &str, is_listing: bool) -> Option<Link> {
    let line = line.trim();
    let (path, value) = match line.split_once("/hairpin_mode") {
        Some((path, value)) => (Some(path), value),
        None if is_listing => (None, line),
        None => return None,
    };
    let hairpin = match value.trim_start_matches([':', '=', ' ', '\t']).trim() {
        "1" => true,
        "0" => false,
        _ => return None,
    };
    let folder = path.map(|path| path.trim_end_matches("/brport"));
    let bridge = folder
        .and_then(|path| path.split_once("/brif/"))
        .map(|(bridge, _)| bridge);
    Some(Link {
        name: folder.map(|folder| basename(folder).to_owned()),
        bridge: bridge.map(|bridge| basename(bridge).to_owned()),
        hairpin: Some(hairpin),
        ..Link::default()
    })
}

/// The first line of a link: `4: veth1@if2: <BROADCAST,UP> mtu 1500 master cni0`,
/// `cbr0: flags=4419<UP,PROMISC>  mtu 1460`, `cbr0      Link encap:Ethernet`.
fn opening(line: &str) -> Option<Link> {
    if let Some((name, _)) = line.split_once(" Link encap:") {
        return Some(named(name.trim()));
    }
    let (head, rest) = line.split_once('<')?;
    let (flags, rest) = rest.split_once('>')?;
    let head = head.trim();
    let name = match head.split_once(": flags=") {
        Some((name, _)) => name,
        None => {
            let (number, name) = head.strip_suffix(':')?.split_once(": ")?;
            number.trim().parse::<u32>().ok()?;
            name.split('@').next()?
        }
    };
    let mut link = named(name);
    link.promiscuous = Some(flags.split(',').any(|flag| flag == "PROMISC"));
    details(&mut link, rest);
    Some(link)
}

fn named(name: &str) -> Link {
    Link {
        name: Some(name.to_owned()),
        ..Link::default()
    }
}

/// The flags of old net-tools, on a line of their own: `UP BROADCAST RUNNING PROMISC MULTICAST  MTU:1460  Metric:1`.
fn old_flags(line: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    let is_flag = |word: &str| word.bytes().all(|b| b.is_ascii_uppercase());
    (line.contains("MTU:") && words.next().is_some_and(is_flag))
        .then(|| line.split_whitespace().any(|w| w == "PROMISC"))
}

/// What iproute2 says in words: `master cni0`, `hairpin on`, `promiscuity 1`.
fn details(link: &mut Link, text: &str) {
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "master" => link.bridge = words.next().map(str::to_owned),
            "hairpin" => link.hairpin = words.next().map(|value| value == "on"),
            // ip hides PROMISC where a program asked for it by a socket; the count does not.
            "promiscuity" if words.next().is_some_and(|count| count != "0") => link.promiscuous = Some(true),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
