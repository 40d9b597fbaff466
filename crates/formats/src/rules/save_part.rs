//! What `iptables-save | grep NAME` leaves of the rules, and what can be concluded from it.
//!
//! kube-proxy writes the Service's name into a comment of nearly every rule of the Service. Those rules that
//! have no such comment never survive a `grep` for it, so that their absence says nothing: the hooks of the
//! built-in chains, the way from KUBE-SERVICES to the node ports and the last rule of KUBE-EXT-*. They are
//! taken to be there. Lines without the head of a table may be of the table nat or filter: only rules of
//! the latter accept, drop or reject.
//!
//! Whether the lines were chosen by the Service's name is known where the command itself is in the text, as
//! in `u@node$ iptables-save | grep hostnames`. Else only what stands there is known.

use std::net::IpAddr;

use super::{
    chain_in_words,
    chain_names::{is_asked_by_name, is_of_a_service},
    save_index::split_rule,
    save_text::{Extent, Text},
};
use svcdiag_kube_proxy::{IpFamily, Match, ReadError, Rule, Table, Target};

const SERVICES: &str = "KUBE-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";

/// Whether the text shows that lines were chosen from the output of iptables-save.
pub(super) fn is_chosen(text: &str) -> bool {
    text.lines()
        .any(|line| line.contains("tables") && line.contains("-save") && line.contains("| grep "))
}

/// Whether the text shows that its lines were chosen by a part of a Service's name.
pub(super) fn is_chosen_for(text: &str, service: &str) -> bool {
    let mut commands = text
        .lines()
        .filter(|line| line.contains("grep ") && split_rule(line).is_none());
    commands.any(|line| {
        let mut greps = line.split("grep ").skip(1).peekable();
        greps.peek().is_some()
            && greps.all(|words| {
                let mut words = words.split(['|', ' ', '\r']).filter(|w| !w.is_empty());
                let pattern = words.find(|word| !word.starts_with('-')).unwrap_or_default();
                let pattern = pattern.trim_matches(['"', '\'']);
                !pattern.is_empty() && service.contains(pattern)
            })
    })
}

/// The rules of a chain, with those that cannot be among the lines.
pub(super) fn chain(
    text: &Text,
    family: IpFamily,
    table: Table,
    chain: &str,
    is_chosen: bool,
) -> Result<Option<Vec<Rule>>, ReadError> {
    let (runs, why) = text.runs(family, table, chain, Extent::Loose);
    let unknown = |why: &str| ReadError {
        what: chain_in_words(table.name(), chain),
        why: why.to_owned(),
    };
    if let Some(why) = why {
        return Err(unknown(why));
    }
    let mut rules = text.rules(&runs, family, chain)?;
    rules.retain(|rule| is_of(rule, table));
    if table != Table::Nat {
        return Ok(Some(rules));
    }
    match chain {
        "PREROUTING" | "OUTPUT" => assume(&mut rules, Target::Chain(SERVICES.to_owned())),
        "KUBE-POSTROUTING" => assume(&mut rules, Target::Masquerade),
        SERVICES => assume_node_ports(&mut rules),
        _ if rules.iter().any(is_for_all) => {}
        _ => {
            if let Some(hash) = chain.strip_prefix("KUBE-EXT-")
                && let Some(next) = behind_external(text, family, hash)
            {
                assume(&mut rules, Target::Chain(next));
            } else if !(is_asked_by_name(chain) || is_chosen && is_of_a_service(chain) || ends(chain, &rules))
            {
                return Err(unknown("the saved lines are only a part of it"));
            }
        }
    }
    Ok(Some(rules))
}

/// The rules of a long chain towards a destination, from those of both tables.
pub(super) fn rules_towards(
    mut rules: Vec<Rule>,
    table: Table,
    chain: &str,
    destination: (Option<IpAddr>, u8, u16),
    is_shown: bool,
) -> Result<Vec<Rule>, ReadError> {
    // A Service without endpoints only has rules of the table filter: those show that its lines are there.
    let has_lines = !rules.is_empty() || destination.0.is_none() && chain == SERVICES;
    rules.retain(|rule| is_of(rule, table));
    let is_refusal_unknown = table == Table::Filter && rules.is_empty();
    if !is_shown && (!has_lines || is_refusal_unknown) {
        return Err(ReadError {
            what: chain_in_words(table.name(), chain),
            why: "the saved lines are only a part and have no rule for this destination".to_owned(),
        });
    }
    if table == Table::Nat && chain == SERVICES {
        let (address, protocol, port) = destination;
        assume_node_ports(&mut rules);
        rules.retain(|rule| rule.can_take(address, protocol, port));
    }
    Ok(rules)
}

fn is_of(rule: &Rule, table: Table) -> bool {
    let is_of_filter = matches!(rule.target, Target::Accept | Target::Drop | Target::Reject);
    is_of_filter == (table == Table::Filter)
}

fn assume(rules: &mut Vec<Rule>, target: Target) {
    if rules.iter().all(|rule| rule.target != target) {
        rules.push(Rule {
            matches: Vec::new(),
            target,
        });
    }
}

fn assume_node_ports(rules: &mut Vec<Rule>) {
    if rules.iter().all(|rule| rule.leads_to() != Some(NODE_PORTS)) {
        rules.push(Rule {
            matches: vec![Match::DestinationIsLocal],
            target: Target::Chain(NODE_PORTS.to_owned()),
        });
    }
}

/// The chain that the last rule of KUBE-EXT-* leads to: that of the local endpoints where there is one.
fn behind_external(text: &Text, family: IpFamily, hash: &str) -> Option<String> {
    ["KUBE-SVL-", "KUBE-SVC-"]
        .into_iter()
        .map(|kind| format!("{kind}{hash}"))
        .find(|next| !text.runs(family, Table::Nat, next, Extent::Loose).0.is_empty())
}

/// Whether no packet goes past the rule, so that the chain is all there.
fn is_for_all(rule: &Rule) -> bool {
    let is_end = match &rule.target {
        Target::Dnat(_) => true,
        Target::Chain(next) => !next.starts_with("KUBE-MARK-"),
        _ => false,
    };
    is_end && rule.is_for_all_senders() && !rule.matches.contains(&Match::Random)
}

/// Whether the last rule is that of KUBE-FW-*, for packets of all others than the admitted sources.
fn ends(chain: &str, rules: &[Rule]) -> bool {
    chain.starts_with("KUBE-FW-") && rules.last().is_some_and(Rule::is_for_all_senders)
}
