//! A packet as far as a rule can be held against it: what was seen when it was dropped.

use std::net::{IpAddr, SocketAddr};

use svcdiag_kube_proxy::{IpFamily, Match};

use crate::bytes::u16_at;

/// States of connection tracking, as bits of `ct state`.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
const UNTRACKED: u32 = 1 << 6;

/// A packet of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Packet {
    /// Number of its protocol.
    pub protocol: u8,
    /// Its sender.
    pub source: SocketAddr,
    /// Its receiver.
    pub destination: SocketAddr,
    /// Whether it is on its way back to the client: then a rule that rejects it tells the endpoint, not the client.
    pub is_answer: bool,
    /// Whether connection tracking has looked at it, so that it has a state.
    pub is_tracked: bool,
    /// Whether it opens a connection, unless it is an answer: connection tracking finds no SYN or first datagram invalid.
    pub opens: bool,
    /// Whether it is taken for the first of its connection.
    pub is_first: bool,
}

impl Packet {
    /// Its IP family.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.destination.ip())
    }

    /// The same before connection tracking has looked at it.
    #[must_use]
    pub(super) fn untracked(self) -> Self {
        Self {
            is_tracked: false,
            ..self
        }
    }

    /// The same as the first packet of its connection, as one that opens it nearly always is: connection tracking calls it
    /// established only where an answer was seen and lost.
    pub(super) fn first(self) -> Self {
        Self {
            is_first: true,
            ..self
        }
    }

    /// What connection tracking may think of it.
    fn states(&self) -> u32 {
        let possible = ESTABLISHED | NEW | UNTRACKED;
        if self.opens && !self.is_answer && self.is_tracked {
            possible & !(if self.is_first { ESTABLISHED } else { 0 })
        } else {
            possible | INVALID | RELATED
        }
    }

    /// Whether its state is one of these; None if that is not known.
    pub(super) fn is_in_state(&self, wanted: u32) -> Option<bool> {
        let states = self.states();
        match (states & wanted, states & !wanted) {
            (0, _) => Some(false),
            (_, 0) => Some(true),
            _ => None,
        }
    }

    /// A byte of its network header, if that is known.
    pub(super) fn network_byte(&self, offset: usize) -> Option<u8> {
        let within = |bytes: &[u8], from: usize| bytes.get(offset.checked_sub(from)?).copied();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => match offset {
                9 => Some(self.protocol),
                12..16 => within(&source.octets(), 12),
                16..20 => within(&destination.octets(), 16),
                _ => None,
            },
            (IpAddr::V6(source), IpAddr::V6(destination)) => match offset {
                6 => Some(self.protocol),
                8..24 => within(&source.octets(), 8),
                24..40 => within(&destination.octets(), 24),
                _ => None,
            },
            _ => None,
        }
    }

    /// A byte of its transport header, if that is known: the ports.
    pub(super) fn transport_byte(&self, offset: usize) -> Option<u8> {
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes);
        ports.as_flattened().get(offset).copied()
    }

    /// Whether it can meet all conditions of a rule of iptables. What is not known of them may be met.
    pub(in crate::netfilter) fn may_meet(&self, conditions: &[Match]) -> bool {
        conditions.iter().all(|condition| match condition {
            Match::Source { net, not } => net.contains(&self.source.ip()) != *not,
            Match::Destination { net, not } => net.contains(&self.destination.ip()) != *not,
            Match::Protocol(number) => *number == self.protocol,
            Match::DestinationPort(ports) => ports.contains(&self.destination.port()),
            _ => true,
        })
    }

    /// Whether its state may be one of these, if a rule of iptables asks for some.
    pub(in crate::netfilter) fn may_be_in(&self, states: Option<u32>) -> bool {
        states.is_none_or(|states| self.is_in_state(states) != Some(false))
    }
}

/// The states that a match of iptables asks for; None if it asks for something else as well, or turned round.
///
/// struct xt_conntrack_mtinfo1 to 3: eight addresses, two times, five ports, which of them count, which are turned round,
/// states.
pub(in crate::netfilter) fn states_of_xt(name: &str, revision: u8, info: &[u8]) -> Option<u32> {
    const STATE: u16 = 1;
    const UNTRACKED_OF_XT: u16 = 1 << 8;
    const KNOWN: u16 = 0b1111 | UNTRACKED_OF_XT;
    (name == "conntrack").then_some(())?;
    let (asked, turned) = (u16_at(info, 146)?, u16_at(info, 148)?);
    let states = match revision {
        1 => u16::from(*info.get(150)?),
        2 | 3 => u16_at(info, 150)?,
        _ => return None,
    };
    (asked == STATE && turned == 0 && states & !KNOWN == 0).then_some(())?;
    let untracked = if states & UNTRACKED_OF_XT != 0 {
        UNTRACKED
    } else {
        0
    };
    Some(u32::from(states & 0b1111) | untracked)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A SYN of a Pod to an endpoint.
    pub(crate) fn syn() -> Packet {
        Packet {
            protocol: 6,
            source: "10.244.1.10:40000".parse().unwrap(),
            destination: "10.244.2.20:9376".parse().unwrap(),
            is_answer: false,
            is_tracked: true,
            opens: true,
            is_first: false,
        }
    }

    #[test]
    fn what_opens_a_connection_is_not_invalid_and_its_answer_may_be() {
        let answer = Packet {
            is_answer: true,
            ..syn()
        };
        let later = Packet {
            opens: false,
            ..syn()
        };
        assert_eq!(syn().is_in_state(INVALID | RELATED), Some(false));
        assert_eq!(syn().is_in_state(NEW), None);
        assert_eq!(syn().untracked().is_in_state(INVALID), None);
        for packet in [answer, later] {
            assert_eq!(packet.is_in_state(INVALID), None);
        }
        assert_eq!(answer.is_in_state(u32::MAX), Some(true));
    }

    #[test]
    fn headers_are_known_where_addresses_and_ports_are() {
        let packet = syn();
        let network: Vec<Option<u8>> = (0..21).map(|at| packet.network_byte(at)).collect();
        assert_eq!(network[..9], [None; 9]);
        let known: Vec<u8> = network[12..20].iter().flatten().copied().collect();
        assert_eq!(known, [10, 244, 1, 10, 10, 244, 2, 20]);
        assert_eq!((network[9], network[20]), (Some(6), None));
        let ports: Vec<Option<u8>> = (0..5).map(|at| packet.transport_byte(at)).collect();
        assert_eq!(ports, [Some(156), Some(64), Some(36), Some(160), None]);
    }

    #[test]
    fn a_match_of_iptables_on_states_is_read_in_its_revisions() {
        let info = |revision: u8, asked: u16, states: u16| {
            let mut info = vec![0; 164];
            info[146..148].copy_from_slice(&asked.to_ne_bytes());
            let states = states.to_ne_bytes();
            let length = if revision == 1 { 1 } else { 2 };
            info[150..150 + length].copy_from_slice(&states[..length]);
            info
        };
        for revision in 1..=3 {
            let read = |asked, states| states_of_xt("conntrack", revision, &info(revision, asked, states));
            assert_eq!(read(1, 1), Some(INVALID));
            assert_eq!(read(3, 1), None, "asks for the protocol as well");
            assert_eq!(read(1, 1 << 7), None, "a status");
        }
        assert_eq!(states_of_xt("conntrack", 3, &info(3, 1, 1 << 8)), Some(UNTRACKED));
        assert_eq!(states_of_xt("state", 0, &[1, 0, 0, 0]), None);
        assert_eq!(states_of_xt("conntrack", 3, &[0; 100]), None);
    }
}
