//! What conntrack keeps of a connection.

use std::net::SocketAddr;

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who began it, by the address it had then.
    pub source: SocketAddr,
    /// Whom it was meant for.
    pub destination: SocketAddr,
    /// Who answers, or would.
    pub answers: SocketAddr,
    /// To whom the answer goes: the source, or the node where it was masqueraded.
    pub answers_to: SocketAddr,
    /// Seconds until it is forgotten.
    pub seconds_left: u32,
}

/// Whether a table of tracked connections with so many entries, at most so many, is full. A connection that ends
/// makes room for the next one, so that a full table is a little below its limit at most moments.
#[must_use]
pub fn is_full(count: i64, max: i64) -> bool {
    max > 0 && count >= max - max / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_full_though_an_entry_has_just_ended() {
        assert!(is_full(262_144, 262_144));
        assert!(is_full(262_100, 262_144));
        assert!(!is_full(250_000, 262_144));
        assert!(!is_full(0, 0));
    }
}
