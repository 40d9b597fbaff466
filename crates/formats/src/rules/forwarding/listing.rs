//! The listing of `iptables -L`, which people paste where `iptables-save` would say more.
//!
//! A listing does not show everything: without `-v` no links, and of `iptables -L FORWARD` not the chains that it leads to. What
//! is not shown may accept.
//!
//! Source: iptables' iptables/iptables.c (`print_firewall`, `print_header`).

use std::{collections::BTreeSet, net::IpAddr};

use super::{Chains, Fit, Forwarding, Rule, Verdict, both, of_link, of_network};

/// Targets that let a packet go on. What the others do is not known.
const GOES_ON: [&str; 9] = [
    "LOG", "NFLOG", "MARK", "CONNMARK", "CT", "TCPMSS", "TRACE", "CHECKSUM", "CLASSIFY",
];

/// What a listing shows of forwarded packets; `pods` are addresses of endpoints. None where it has no chain FORWARD.
#[must_use]
pub fn of_listing(text: &str, pods: &[IpAddr]) -> Option<Forwarding> {
    let shown: BTreeSet<&str> = text.lines().filter_map(title).map(|(name, _)| name).collect();
    let mut chains = Chains::default();
    let mut chain = "";
    let mut columns = Columns::default();
    for line in text.lines() {
        if let Some((name, policy)) = title(line) {
            chain = name;
            if name == "FORWARD" {
                // Packets go through one chain of this name only once.
                let drops = policy == Some("DROP");
                chains.bases = vec![(("filter", "FORWARD"), drops)];
            }
        } else if let Some(header) = Columns::of(line) {
            columns = header;
        } else if let Some(rule) = columns.rule(line, &shown, pods) {
            chains.add(("filter", chain), rule);
        }
    }
    (!chains.bases.is_empty()).then(|| chains.judge())
}

/// `Chain FORWARD (policy DROP 12 packets, 720 bytes)`, `Chain KUBE-FORWARD (1 references)`.
fn title(line: &str) -> Option<(&str, Option<&str>)> {
    let (name, rest) = line.trim_end().strip_prefix("Chain ")?.split_once(" (")?;
    let policy = rest
        .strip_prefix("policy ")
        .and_then(|p| p.split([' ', ')']).next());
    Some((name, policy))
}

/// Which columns there are before and behind the target.
#[derive(Clone, Copy, Default)]
struct Columns {
    /// Numbers before the target: of the line, and counters.
    before: usize,
    /// Whether the links are shown.
    has_links: bool,
}

impl Columns {
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let target = words.iter().position(|word| *word == "target")?;
        (words.get(target + 1) == Some(&"prot")).then(|| Self {
            before: target,
            has_links: words.contains(&"in") && words.contains(&"out"),
        })
    }

    /// `[NUM] [PKTS BYTES] [TARGET] PROT OPT [IN OUT] SOURCE DESTINATION MATCHES`. Without a target a rule only counts.
    fn rule<'a>(self, line: &'a str, shown: &BTreeSet<&str>, pods: &[IpAddr]) -> Option<Rule<'a>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let own = words.get(self.before..)?;
        let is_opt = |word: Option<&&str>| matches!(word, Some(&("--" | "-f" | "!f")));
        if !is_opt(own.get(2)) {
            return None;
        }
        let (target, protocol) = (*own.first()?, *own.get(1)?);
        let mut rest = own.get(3..)?.iter().copied();
        let mut fit = of_protocol(protocol);
        if self.has_links {
            fit = both(fit, of_shown_link(rest.next()?));
            fit = both(fit, of_shown_link(rest.next()?));
        } else {
            fit = both(fit, Fit::Maybe);
        }
        fit = both(fit, of_shown_network(rest.next()?, pods));
        fit = both(fit, of_shown_network(rest.next()?, pods));
        fit = both(fit, of_matches(rest));
        let verdict = match target {
            "ACCEPT" => Verdict::Accept,
            "DROP" => Verdict::Drop,
            "REJECT" => Verdict::Reject,
            "RETURN" => Verdict::Return,
            chain if shown.contains(chain) || GOES_ON.contains(&chain) => Verdict::Chain(chain),
            _ => Verdict::Accept,
        };
        Some(Rule { fit, verdict })
    }
}

/// Its name, or with `-n` its number in newer versions.
fn of_protocol(protocol: &str) -> Fit {
    match protocol {
        "all" | "0" => Fit::Always,
        "icmp" | "1" | "icmpv6" | "ipv6-icmp" | "58" => Fit::Never,
        _ => Fit::Maybe,
    }
}

fn of_shown_link(link: &str) -> Fit {
    match (link, link.strip_prefix('!')) {
        ("*" | "any", _) => Fit::Always,
        (_, Some(other)) => of_link(other, true),
        (link, None) => of_link(link, false),
    }
}

/// Without `-n`, names of hosts stand for addresses that nobody knows.
fn of_shown_network(network: &str, pods: &[IpAddr]) -> Fit {
    let (network, is_not) = match network.strip_prefix('!') {
        Some(network) => (network, true),
        None => (network, false),
    };
    let address = network.split('/').next().unwrap_or_default();
    match (network, is_not) {
        ("0.0.0.0/0" | "anywhere", false) => Fit::Always,
        _ if address.parse::<IpAddr>().is_err() => Fit::Maybe,
        _ => of_network(network, pods, is_not),
    }
}

/// What stands behind the addresses: comments, and what a rule asks besides.
fn of_matches<'a>(words: impl Iterator<Item = &'a str>) -> Fit {
    let mut words = words;
    let mut fit = Fit::Always;
    while let Some(word) = words.next() {
        let of = match word {
            "/*" => {
                let _ = words.by_ref().find(|word| *word == "*/");
                continue;
            }
            // Of the target: how it rejects.
            "reject-with" => {
                let _ = words.next();
                continue;
            }
            "ctstate" | "state" => {
                let states = words.next().unwrap_or_default();
                match states.split(',').any(|state| state == "NEW") {
                    true => Fit::Always,
                    false => Fit::Never,
                }
            }
            // Only of what kube-proxy masquerades.
            "mark" => match (words.next(), words.next()) {
                (Some("match"), Some("0x4000/0x4000")) => Fit::Never,
                _ => Fit::Maybe,
            },
            _ => Fit::Maybe,
        };
        fit = both(fit, of);
    }
    fit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 5))];

    const KUBE: &str = "
Chain KUBE-FORWARD (1 references)
 pkts bytes target     prot opt in     out     source               destination
    0     0 DROP       all  --  *      *       0.0.0.0/0            0.0.0.0/0            ctstate INVALID nfacct-name  ct_state_invalid_dropped_pkts
    0     0 ACCEPT     all  --  *      *       0.0.0.0/0            0.0.0.0/0            /* kubernetes forwarding rules */ mark match 0x4000/0x4000
    4   240 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            /* kubernetes forwarding conntrack rule */ ctstate RELATED,ESTABLISHED
";

    fn forward(policy: &str, rules: &str) -> String {
        format!(
            "Chain FORWARD (policy {policy} 12 packets, 720 bytes)\n pkts bytes target     prot opt in     out     source               destination\n   \
             12   720 KUBE-FORWARD  all  --  *      *       0.0.0.0/0            0.0.0.0/0            /* kubernetes forwarding rules */\n{rules}{KUBE}"
        )
    }

    #[test]
    fn a_policy_drops_what_no_rule_of_pods_accepts() {
        let drops = |text: &str| of_listing(text, &POD).and_then(|f| f.drops);
        assert_eq!(drops(&forward("DROP", "")), Some(true));
        assert_eq!(drops(&forward("ACCEPT", "")), Some(false));
        for accepted in [
            "    0     0 ACCEPT     all  --  cni0   *       0.0.0.0/0            0.0.0.0/0\n",
            "    0     0 ACCEPT     all  --  *      *       10.244.0.0/16        0.0.0.0/0            /* flanneld forward */\n",
            // A chain that is not shown, and a target that may do anything.
            "    0     0 cali-FORWARD  all  --  *      *       0.0.0.0/0            0.0.0.0/0\n",
        ] {
            assert_eq!(drops(&forward("DROP", accepted)), Some(false), "{accepted}");
        }
        for other in [
            "    0     0 ACCEPT     all  --  docker0 !docker0  0.0.0.0/0            0.0.0.0/0\n",
            "    0     0 LOG        all  --  *      *       0.0.0.0/0            0.0.0.0/0\n",
            "    0     0 ACCEPT     icmp --  *      *       0.0.0.0/0            0.0.0.0/0\n",
            "    0     0            all  --  *      *       0.0.0.0/0            0.0.0.0/0\n",
        ] {
            assert_eq!(drops(&forward("DROP", other)), Some(true), "{other}");
        }
        assert_eq!(
            of_listing(
                "Chain INPUT (policy DROP)\ntarget prot opt source destination\n",
                &POD
            ),
            None
        );
    }

    #[test]
    fn a_rule_that_may_be_of_one_link_only_is_no_dead_end() {
        let rule = "REJECT     all  --  0.0.0.0/0            0.0.0.0/0            reject-with icmp-host-prohibited\n";
        let without_links = format!(
            "Chain FORWARD (policy ACCEPT)\ntarget     prot opt source               destination\n{rule}"
        );
        assert_eq!(of_listing(&without_links, &POD).unwrap().dead_ends, []);
        let with_links = forward(
            "ACCEPT",
            "    0     0 REJECT     all  --  *      *       0.0.0.0/0            0.0.0.0/0            reject-with icmp-host-prohibited\n",
        );
        assert_eq!(of_listing(&with_links, &POD).unwrap().dead_ends.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(Chain FORWARD \\(policy DROP\\)|target prot opt in out|all|--|\\*|0\\.0\\.0\\.0/0|/\\*| |\n|é|\\PC){0,40}") {
            let _ = of_listing(&text, &POD);
        }
    }
}
