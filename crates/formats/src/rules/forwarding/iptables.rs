//! Rules of IPv4 as `iptables-save` writes them.

use std::net::IpAddr;

use super::{Chains, Fit, Forwarding, Rule, Verdict, both, of_link, of_network};

/// What the output of `iptables-save` shows of forwarded packets; `pods` are addresses of endpoints.
#[must_use]
pub fn of_iptables(saved: &str, pods: &[IpAddr]) -> Forwarding {
    let mut chains = Chains::default();
    let mut table = "";
    for line in saved.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if table != "filter" {
        } else if let Some(policy) = line.strip_prefix(":FORWARD ") {
            let drops = policy.split_whitespace().next() == Some("DROP");
            chains.bases.push(((table, "FORWARD"), drops));
        } else if let Some((chain, rule)) = appended(line)
            && let Some(rule) = read(rule, pods)
        {
            chains.add((table, chain), rule);
        }
    }
    chains.judge()
}

/// `-A CHAIN RULE`, with counters before it or not.
fn appended(line: &str) -> Option<(&str, &str)> {
    let line = match line.starts_with('[') {
        true => line.split_once("] ")?.1,
        false => line,
    };
    line.strip_prefix("-A ")?.split_once(' ')
}

fn read<'a>(rule: &'a str, pods: &[IpAddr]) -> Option<Rule<'a>> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let at = words.iter().position(|word| matches!(*word, "-j" | "-g"))?;
    let verdict = match *words.get(at + 1)? {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "REJECT" => Verdict::Reject,
        "RETURN" => Verdict::Return,
        // Targets of modules (MARK, LOG, ...) are chains without rules here, and let everything go on.
        name => Verdict::Chain(name),
    };
    let mut fit = Fit::Always;
    let mut words = words.get(..at)?.iter().copied();
    let mut is_not = false;
    while let Some(word) = words.next() {
        let of = match word {
            "!" => {
                is_not = true;
                continue;
            }
            "-m" => {
                let _ = words.next();
                continue;
            }
            "--comment" => {
                skip_quoted(&mut words);
                continue;
            }
            "-s" | "-d" => of_network(words.next()?, pods, is_not),
            "-i" | "-o" => of_link(words.next()?, is_not),
            "-p" => of_protocol(words.next()?, is_not),
            "--ctstate" | "--state" => match words.next()?.split(',').any(|s| s == "NEW") == is_not {
                true => Fit::Never,
                false => Fit::Always,
            },
            // Only of what kube-proxy masquerades.
            "--mark" if words.clone().next() == Some("0x4000/0x4000") => Fit::Never,
            "--icmp-type" => Fit::Never,
            _ => Fit::Maybe,
        };
        is_not = false;
        fit = both(fit, of);
    }
    Some(Rule { fit, verdict })
}

/// A comment of several words is quoted.
fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let first = words.next().unwrap_or_default();
    let mut ends = !first.starts_with('"') || (first.len() > 1 && first.ends_with('"'));
    while !ends {
        ends = words.next().is_none_or(|word| word.ends_with('"'));
    }
}

fn of_protocol(protocol: &str, is_not: bool) -> Fit {
    match protocol.starts_with("icmp") || protocol.starts_with("ipv6") {
        true if !is_not => Fit::Never,
        _ => Fit::Maybe,
    }
}
