//! Chains of a firewall in which every packet of a new connection ends.

use super::{IpFamily, Match, ReadError, Ruleset, Table, Target};

/// Chains of firewalls nest no deeper; a circle ends here.
const MAX_DEPTH: usize = 16;

/// A rule that no packet gets past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEnd {
    /// The chain whose rule it is.
    pub chain: String,
    /// Whether it tells the sender; else the packet vanishes.
    pub rejects: bool,
}

/// What becomes of the packets that come into a chain.
enum End {
    /// Some go on behind it.
    Open,
    /// Some may be let through.
    Maybe,
    /// All end.
    Dead(DeadEnd),
}

/// The rule of table filter at which every packet ends that comes into a chain; None where one may get through.
///
/// # Errors
/// When the rules cannot be read.
pub fn dead_end(rules: &dyn Ruleset, family: IpFamily, chain: &str) -> Result<Option<DeadEnd>, ReadError> {
    Ok(match follow(rules, family, chain, MAX_DEPTH)? {
        End::Dead(end) => Some(end),
        End::Open | End::Maybe => None,
    })
}

fn follow(rules: &dyn Ruleset, family: IpFamily, chain: &str, depth: usize) -> Result<End, ReadError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(End::Maybe);
    };
    let mut some_returned = false;
    for rule in rules.chain(family, Table::Filter, chain)?.unwrap_or_default() {
        let is_for_all = rule.matches.iter().all(|m| *m == Match::Neutral);
        let end = match &rule.target {
            Target::Accept | Target::Map(_) | Target::OneOf(_) => return Ok(End::Maybe),
            Target::Return if is_for_all => return Ok(End::Open),
            Target::Return => {
                some_returned = true;
                continue;
            }
            Target::Drop | Target::Reject => End::Dead(DeadEnd {
                chain: chain.to_owned(),
                rejects: rule.target == Target::Reject,
            }),
            Target::Chain(next) => follow(rules, family, next, depth)?,
            Target::Continue | Target::Dnat(_) | Target::Masquerade | Target::Other(_) => continue,
        };
        match end {
            End::Maybe => return Ok(End::Maybe),
            // Those that the rule does not take go on.
            End::Dead(_) if !is_for_all => {}
            End::Dead(_) if some_returned => return Ok(End::Open),
            End::Dead(end) => return Ok(End::Dead(end)),
            End::Open => {}
        }
    }
    Ok(End::Open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{Layout, Rule, Verdict};

    /// Chains of table filter by name.
    struct Chains(Vec<(&'static str, Vec<Rule>)>);

    impl Ruleset for Chains {
        fn layout(&self) -> Layout {
            Layout::Iptables
        }

        fn chain(&self, _: IpFamily, _: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
            let found = self.0.iter().find(|(name, _)| *name == chain);
            Ok(found.map(|(_, rules)| rules.clone()))
        }

        fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
            Ok(None)
        }
    }

    fn all(target: Target) -> Rule {
        Rule {
            matches: vec![Match::Neutral],
            target,
        }
    }

    fn some(target: Target) -> Rule {
        Rule {
            matches: vec![Match::Other("mark".to_owned())],
            target,
        }
    }

    fn to(chain: &str) -> Target {
        Target::Chain(chain.to_owned())
    }

    fn end(chains: Vec<(&'static str, Vec<Rule>)>) -> Option<(String, bool)> {
        let end = dead_end(&Chains(chains), IpFamily::V4, "OUTPUT").unwrap();
        end.map(|end| (end.chain, end.rejects))
    }

    #[test]
    fn a_drop_that_lost_its_mark_ends_everything() {
        let firewall = |drop| {
            vec![
                ("OUTPUT", vec![all(to("KUBE-FIREWALL"))]),
                ("KUBE-FIREWALL", vec![drop]),
            ]
        };
        let dead = end(firewall(all(Target::Drop)));
        assert_eq!(dead, Some(("KUBE-FIREWALL".to_owned(), false)));
        assert_eq!(end(firewall(some(Target::Drop))), None);
    }

    #[test]
    fn what_may_be_accepted_before_gets_through() {
        let rules = |first| vec![("OUTPUT", vec![first, all(Target::Reject)])];
        assert_eq!(end(rules(some(Target::Drop))), Some(("OUTPUT".to_owned(), true)));
        assert_eq!(end(rules(some(Target::Accept))), None);
        assert_eq!(end(rules(some(Target::Return))), None);
    }

    #[test]
    fn chains_that_return_are_gone_through() {
        let rules = |user| {
            vec![
                ("OUTPUT", vec![all(to("USER")), all(Target::Reject)]),
                ("USER", user),
            ]
        };
        assert!(end(rules(vec![all(Target::Return)])).is_some());
        assert!(end(rules(vec![some(Target::Return), all(Target::Drop)])).is_some());
        assert_eq!(end(rules(vec![some(Target::Accept)])), None);
        assert_eq!(end(vec![("OUTPUT", vec![all(to("OUTPUT"))])]), None, "a circle");
    }
}
