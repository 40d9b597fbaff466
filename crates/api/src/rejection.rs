//! Who rejected a dial: the words of a failure's detail, which agents write and the engine reads.

use std::{fmt, net::IpAddr};

/// An ICMP message that ended a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its sender.
    pub by: IpAddr,
    /// Whether the sender is an address of the node that the dial was made on.
    pub is_by_node: bool,
    /// Whether the message says that the packets are administratively prohibited, as firewalls do, and not that there
    /// is no way or no listener.
    pub is_prohibited: bool,
}

const PROHIBITED: &str = "prohibited ";
const BY: &str = "by ";
const NODE: &str = "the node's address ";

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prohibited = if self.is_prohibited { PROHIBITED } else { "" };
        let node = if self.is_by_node { NODE } else { "" };
        write!(f, "{prohibited}{BY}{node}{}", self.by)
    }
}

impl Rejection {
    /// Reads what a detail says; None if it is about something else.
    #[must_use]
    pub fn parse(detail: &str) -> Option<Self> {
        let (is_prohibited, rest) = strip(detail, PROHIBITED);
        let (is_by_node, address) = strip(rest.strip_prefix(BY)?, NODE);
        Some(Self {
            by: address.parse().ok()?,
            is_by_node,
            is_prohibited,
        })
    }
}

/// Whether a text begins with some words, and what comes after them.
fn strip<'a>(text: &'a str, words: &str) -> (bool, &'a str) {
    text.strip_prefix(words)
        .map_or((false, text), |rest| (true, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_write_is_read_back() {
        for (is_by_node, is_prohibited, words) in [
            (false, false, "by fd01::2"),
            (false, true, "prohibited by fd01::2"),
            (true, false, "by the node's address fd01::2"),
            (true, true, "prohibited by the node's address fd01::2"),
        ] {
            let rejection = Rejection {
                by: IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, 2]),
                is_by_node,
                is_prohibited,
            };
            assert_eq!(rejection.to_string(), words);
            assert_eq!(Rejection::parse(words), Some(rejection));
        }
    }

    #[test]
    fn other_details_are_no_rejections() {
        for detail in [
            "",
            "by",
            "by nobody",
            "HTTP status 500",
            "prohibited",
            "by 10.0.0.1 x",
            "10.0.0.1",
        ] {
            assert_eq!(Rejection::parse(detail), None, "{detail}");
        }
    }
}
