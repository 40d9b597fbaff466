//! Rules as `nft list ruleset` writes them.

use std::net::IpAddr;

use super::{Chains, Fit, Forwarding, Rule, Verdict, of_link, of_network};

/// What the output of `nft list ruleset` shows of forwarded packets; `pods` are addresses of endpoints.
#[must_use]
pub fn of_nft(listed: &str, pods: &[IpAddr]) -> Forwarding {
    let mut chains = Chains::default();
    let (mut table, mut chain) = ("", None);
    for line in listed.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", "ip" | "inet", name, "{"] => (table, chain) = (name, None),
            ["table", ..] => (table, chain) = ("", None),
            ["chain", name, "{"] if !table.is_empty() => chain = Some(*name),
            ["}"] => chain = None,
            ["type", "filter", "hook", hook, rest @ ..] => {
                if let Some(chain) = chain.filter(|_| *hook == "forward") {
                    chains
                        .bases
                        .push(((table, chain), rest.join(" ").contains("policy drop")));
                }
            }
            [] => {}
            _ => {
                if let Some((chain, rule)) = chain.zip(read(line, pods)) {
                    chains.add((table, chain), rule);
                }
            }
        }
    }
    chains.judge()
}

fn read<'a>(line: &'a str, pods: &[IpAddr]) -> Option<Rule<'a>> {
    let line = line.split(" comment ").next()?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| matches!(*word, "accept" | "drop" | "reject" | "return" | "jump" | "goto"))?;
    let verdict = match *words.get(at)? {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "reject" => Verdict::Reject,
        "return" => Verdict::Return,
        _ => Verdict::Chain(words.get(at + 1)?),
    };
    let conditions = words.get(..at)?;
    let joined = conditions.join(" ");
    let fit = match conditions {
        [] | ["counter"] | ["counter", "packets", _, "bytes", _] => Fit::Always,
        ["ct", "state", ..] if !joined.contains('!') => match joined.contains("new") {
            true => Fit::Maybe,
            false => Fit::Never,
        },
        // Of Services, which answer where their endpoints do.
        ["ct", "status", ..] => Fit::Never,
        ["iif" | "oif" | "iifname" | "oifname", link, ..] => of_link(link.trim_matches('"'), false),
        ["ip", "saddr" | "daddr", network, ..] => of_network(network, pods, false),
        ["ip6" | "icmp" | "icmpv6", ..] => Fit::Never,
        _ => Fit::Maybe,
    };
    // What else it wants is not looked at.
    let is_simple = matches!(conditions, [] | ["counter", ..]);
    let fit = if fit == Fit::Always && !is_simple {
        Fit::Maybe
    } else {
        fit
    };
    Some(Rule { fit, verdict })
}
