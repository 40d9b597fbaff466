//! Rules of a node, reduced to what a Service's way through them depends on.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use svcdiag_objects::IpFamily;

/// How kube-proxy lays its rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Chains KUBE-* in the tables nat and filter, by either backend of iptables.
    Iptables,
    /// The table kube-proxy of nf_tables.
    Nftables,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Table nat of iptables.
    Nat,
    /// Table filter of iptables.
    Filter,
    /// Table kube-proxy of nf_tables.
    KubeProxy,
}

impl Table {
    /// Its name in the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// A rule: what packets it takes and what becomes of them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Rule {
    /// All of these have to hold.
    pub matches: Vec<Match>,
    /// What happens to the packets.
    pub target: Target,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// The source is in a network, or is not.
    Source {
        /// The network.
        net: IpNet,
        /// Whether the condition is turned round.
        not: bool,
    },
    /// The destination is in a network, or is not.
    Destination {
        /// The network.
        net: IpNet,
        /// Whether the condition is turned round.
        not: bool,
    },
    /// The protocol has this number.
    Protocol(u8),
    /// The destination port is one of these.
    DestinationPort(RangeInclusive<u16>),
    /// The source is an address of the node.
    SourceIsLocal,
    /// The destination is an address of the node.
    DestinationIsLocal,
    /// The source was seen lately, under this name (match recent, checking), or is in the set of this name.
    Affinity(String),
    /// Chance decides.
    Random,
    /// Nothing that bears on which packets of a new connection take the rule: comments and counters.
    Neutral,
    /// Something else, under the name the kernel has for it.
    Other(String),
}

/// What happens to packets.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Target {
    /// They go on to the next rule.
    #[default]
    Continue,
    /// They are let through.
    Accept,
    /// They vanish.
    Drop,
    /// The sender is told.
    Reject,
    /// They go back to where they came from.
    Return,
    /// They go through another chain.
    Chain(String),
    /// They go to one of several chains, by chance.
    OneOf(Vec<String>),
    /// They go to one of these endpoints, by chance if there are several.
    Dnat(Vec<SocketAddr>),
    /// They go where the map of this name says.
    Map(String),
    /// They get the node's address as source.
    Masquerade,
    /// Something that lets them go on: marks, counters.
    Other(String),
}

/// What a map of nf_tables says for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the set; a set says no more.
    Member,
    /// Packets go to a chain.
    Chain(String),
    /// Packets vanish.
    Drop,
    /// Packets are let through.
    Accept,
}

/// Rules could not be read or understood. Nothing follows from it about the Service.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("could not read {what}: {why}")]
pub struct ReadError {
    /// What was asked for.
    pub what: String,
    /// What went wrong.
    pub why: String,
}

/// What can be asked of the rules of a node. Cheap questions only: nothing here reads a whole table.
pub trait Ruleset {
    /// How the rules are laid out.
    fn layout(&self) -> Layout;

    /// The rules of a chain in their order; None if there is no such chain.
    ///
    /// # Errors
    /// When the rules cannot be read or understood.
    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError>;

    /// The rules of a chain that packets to a destination can take: those that do not name another
    /// address or another port. `None` for the address means any address of the node.
    ///
    /// # Errors
    /// When the rules cannot be read or understood.
    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        let (address, protocol, port) = destination;
        let rules = self.chain(family, table, chain)?.unwrap_or_default();
        Ok(rules
            .into_iter()
            .filter(|rule| rule.can_take(address, protocol, port))
            .collect())
    }

    /// What the map of a kube-proxy table in nf_tables says for a key; None if it has no such element
    /// or there is no such map.
    ///
    /// # Errors
    /// When the map cannot be read or understood.
    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError>;
}

impl Rule {
    /// Whether a packet of a new connection to a destination can take the rule.
    #[must_use]
    pub fn can_take(&self, address: Option<IpAddr>, protocol: u8, port: u16) -> bool {
        self.matches.iter().all(|condition| match condition {
            // An address of the node is none of those that rules name, and not of loopback.
            Match::Destination { net, not } => address.map_or(*not, |a| net.contains(&a) != *not),
            Match::Protocol(number) => *number == protocol,
            Match::DestinationPort(ports) => ports.contains(&port),
            Match::DestinationIsLocal => address.is_none(),
            _ => true,
        })
    }

    /// The one address, or any, and the one port that the rule asks for; none if it asks otherwise.
    #[must_use]
    pub fn sole_destination(&self) -> Option<(Option<IpAddr>, u16)> {
        let (mut address, mut port) = (None, None);
        for condition in &self.matches {
            match condition {
                Match::Destination { net, not: false } if net.prefix_len() == net.max_prefix_len() => {
                    address = Some(net.addr());
                }
                Match::Destination { .. } => return None,
                Match::DestinationPort(ports) if ports.start() == ports.end() => port = Some(*ports.start()),
                _ => {}
            }
        }
        Some((address, port?))
    }

    /// The chain that the rule leads to, if it leads to one.
    #[must_use]
    pub fn leads_to(&self) -> Option<&str> {
        match &self.target {
            Target::Chain(chain) => Some(chain),
            _ => None,
        }
    }

    /// Whether every packet that gets here takes the rule, whoever sent it.
    #[must_use]
    pub fn is_for_all_senders(&self) -> bool {
        !self.matches.iter().any(|m| {
            matches!(
                m,
                Match::Source { .. } | Match::SourceIsLocal | Match::Affinity(_) | Match::Other(_)
            )
        })
    }
}
