//! The walk of packets through the rules of a node, from a chain to the endpoints behind it.

use std::{collections::BTreeSet, net::SocketAddr};

use ipnet::IpNet;

use super::{IpFamily, Match, ReadError, Rule, Ruleset, Table, Target};

/// What the rules do with packets to a destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Held {
    /// Endpoints that packets from the node itself are led to.
    pub inside: Reached,
    /// Endpoints that packets from outside the cluster are led to.
    pub outside: Reached,
    /// Whether packets that no endpoint takes are rejected or dropped.
    pub refusal: Option<Target>,
    /// Whether packets from sources that are not admitted are dropped.
    pub guarded: bool,
    /// The sources that are admitted, where the rules list them one by one.
    pub admitted: Option<Vec<IpNet>>,
    /// What keeps every packet from getting here, in words.
    pub unhooked: Option<String>,
    /// Why the destination is not to be served here, in words, where kube-proxy may have been told so.
    pub unserved: Option<String>,
    /// Where the way of packets begins, in words: the chain or the map.
    pub entrance: String,
}

/// Endpoints that rules lead to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reached {
    pub endpoints: BTreeSet<SocketAddr>,
    /// Those that known clients come back to.
    pub sticky: BTreeSet<SocketAddr>,
}

impl Held {
    /// Adds the endpoints that packets get to from a chain, those of the node and those from outside.
    pub(super) fn follow(
        &mut self,
        rules: &dyn Ruleset,
        family: IpFamily,
        table: Table,
        chain: &str,
    ) -> Result<(), ReadError> {
        for (sender, reached) in [
            (Sender::Node, &mut self.inside),
            (Sender::Outside, &mut self.outside),
        ] {
            let walk = Walk {
                rules,
                family,
                table,
                sender,
            };
            walk.follow(chain, reached, MAX_DEPTH)?;
        }
        Ok(())
    }
}

/// Whether rules are those of an endpoint's chain, and mark what the endpoint sends to itself so that it is
/// masqueraded.
pub(super) fn mark_hairpin(steps: &[Rule], endpoint: SocketAddr, is_mark: impl Fn(&Target) -> bool) -> bool {
    let leads_there = |rule: &Rule| matches!(&rule.target, Target::Dnat(to) if to.contains(&endpoint));
    let is_from_it =
        |m: &Match| matches!(m, Match::Source { net, not: false } if net.contains(&endpoint.ip()));
    let marks = |rule: &Rule| is_mark(&rule.target) && rule.matches.iter().any(is_from_it);
    steps.iter().any(leads_there) && steps.iter().any(marks)
}

/// Who sends packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// The node itself.
    Node,
    /// Somebody outside the cluster.
    Outside,
}

/// More chains than kube-proxy nests: external, firewall, service, endpoint.
const MAX_DEPTH: usize = 6;

/// The walk of one sender's packets through one table.
struct Walk<'a> {
    rules: &'a dyn Ruleset,
    family: IpFamily,
    table: Table,
    sender: Sender,
}

impl Walk<'_> {
    /// Follows a chain to the endpoints that packets can get to. True if no packet comes back.
    ///
    /// A rule whose condition is not understood may be taken or not: both ways are followed, so that an
    /// endpoint behind it counts as reached.
    fn follow(&self, chain: &str, reached: &mut Reached, depth: usize) -> Result<bool, ReadError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(false);
        };
        let rules = self.rules.chain(self.family, self.table, chain)?;
        for rule in rules.unwrap_or_default() {
            if !can_be_from(&rule, self.sender) {
                continue;
            }
            let certain = !rule
                .matches
                .iter()
                .any(|m| matches!(m, Match::Random | Match::Affinity(_) | Match::Other(_)));
            let ends = match &rule.target {
                Target::Dnat(endpoints) => {
                    reached.endpoints.extend(endpoints);
                    true
                }
                Target::Chain(next) if rule.matches.iter().any(|m| matches!(m, Match::Affinity(_))) => {
                    let mut known = Reached::default();
                    self.follow(next, &mut known, depth)?;
                    reached.sticky.extend(known.endpoints);
                    false
                }
                Target::Chain(next) => self.follow(next, reached, depth)?,
                Target::OneOf(chains) => {
                    for next in chains {
                        self.follow(next, reached, depth)?;
                    }
                    true
                }
                Target::Accept | Target::Drop | Target::Reject => true,
                Target::Return if certain => return Ok(false),
                Target::Return
                | Target::Continue
                | Target::Map(_)
                | Target::Masquerade
                | Target::Other(_) => false,
            };
            if ends && certain {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a sender's packets can take a rule. Of the node it is only known that its addresses are local,
/// of somebody outside that none of the networks named in rules is theirs.
fn can_be_from(rule: &Rule, sender: Sender) -> bool {
    rule.matches.iter().all(|condition| match condition {
        Match::SourceIsLocal => sender == Sender::Node,
        Match::Source { not, .. } => *not,
        _ => true,
    })
}
