//! The routes of a node as `route -n` and `netstat -rn` print them, of net-tools and of busybox.
//!
//! Sources: net-tools' lib/inet_gr.c and lib/inet6_gr.c, busybox's networking/route.c, the kernel's net/ipv4/fib_trie.c
//! (/proc/net/route).

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::Route;
use crate::text::prompt::prompted;

/// The header of a table, by the IP family.
#[derive(Clone, Copy)]
enum Header {
    /// `Destination Gateway Genmask Flags ...`.
    V4,
    /// `Destination Next Hop Flag ...`.
    V6,
}

impl Header {
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        match words.as_slice() {
            ["Destination", "Gateway", "Genmask", "Flags"] => Some(Self::V4),
            ["Destination", "Next", "Hop", "Flag" | "Flags"] => Some(Self::V6),
            _ => None,
        }
    }

    fn route(self, line: &str) -> Option<Route> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, flags) = match (self, words.as_slice()) {
            (Self::V4, [to, _, mask, flags, ..]) => (v4(to, mask)?, flags),
            (Self::V6, [to, _, flags, ..]) => (to.parse().ok()?, flags),
            _ => return None,
        };
        let is_flags = |c: char| c.is_ascii_alphabetic() || c == '!';
        if !flags.chars().all(is_flags) {
            return None;
        }
        // /proc/net/route tells a black hole by its having no device.
        let ends = flags.contains('!') || matches!(words.last(), Some(&("*" | "-")));
        Some(Route {
            to: Some(to).filter(|net: &IpNet| net.prefix_len() > 0),
            line: 0,
            ends,
        })
    }
}

/// Reads tables, as many routes as may be; None where there is none, or a line of one was not understood: that no route
/// leads somewhere is known of whole tables only. Without -n, destinations may be names.
pub(super) fn parse(text: &str, most: usize) -> Option<Vec<Route>> {
    let mut header = None;
    let mut routes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(found) = Header::of(line) {
            header = Some(found);
        } else if line.trim().is_empty() || line.starts_with("Kernel IP") || prompted(line).is_some() {
            header = None;
        } else if let Some(header) = header {
            let route = header.route(line)?;
            // The kernel has one for the packets that no other route is for.
            let is_last_resort = route.to.is_none() && route.ends;
            if is_last_resort {
                continue;
            }
            if routes.len() >= most {
                return None;
            }
            routes.push(Route {
                line: index + 1,
                ..route
            });
        }
    }
    (!routes.is_empty()).then_some(routes)
}

fn v4(to: &str, mask: &str) -> Option<IpNet> {
    let to: Ipv4Addr = match to {
        "default" => Ipv4Addr::UNSPECIFIED,
        to => to.parse().ok()?,
    };
    let mask: Ipv4Addr = mask.parse().ok()?;
    Ipv4Net::with_netmask(to, mask).ok().map(IpNet::from)
}
