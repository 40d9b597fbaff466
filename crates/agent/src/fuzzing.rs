//! Decoders of what the kernel and the network send, without sockets, for the fuzz targets (`fuzz/`).

use hickory_proto::{op::Message, rr::RecordType};

pub use svcdiag_netns::fuzzing::{legacy, legacy_answers, netlink};

use super::dns;

/// Parses a datagram of a DNS server.
pub fn dns(datagram: &[u8]) {
    if let Ok(message) = Message::from_vec(datagram) {
        for kind in [RecordType::A, RecordType::AAAA] {
            let _ = dns::read(&message, kind);
        }
    }
}
