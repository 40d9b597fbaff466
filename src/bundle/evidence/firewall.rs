//! What the firewall of a node does with packets that Pods open a connection with, as saved rules show: which chain
//! that packets are forwarded through lets none of them go on.

use std::{collections::BTreeMap, net::IpAddr};

use crate::api::DeadEndRule;

/// Chains nest no deeper; a circle ends here.
const MAX_DEPTH: usize = 16;

/// Links of programs that have nothing to do with Pods.
const OTHER_LINKS: [&str; 5] = ["docker", "br-", "virbr", "lxdbr", "podman"];

/// How a rule bears on packets from or to Pods that open a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Never,
    Maybe,
    Always,
}

enum Verdict {
    Accept,
    Drop,
    Reject,
    Return,
    Chain(String),
}

struct Rule {
    fit: Fit,
    verdict: Verdict,
}

/// What becomes of the packets that come into a chain.
enum End {
    /// They go on behind it.
    Open,
    /// Some may be let through.
    Maybe,
    /// All end, at a rule of a chain.
    Dead { chain: String, rejects: bool },
}

/// What is forwarded, as a file of rules shows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// Whether a chain drops by its policy what no rule has accepted, and none accepts packets of Pods; None where the
    /// file shows no such chain.
    pub drops: Option<bool>,
    /// Rules that end all packets of Pods.
    pub dead_ends: Vec<DeadEndRule>,
}

/// Chains by table and name, and those that the kernel sends forwarded packets through, with their policies.
#[derive(Default)]
struct Chains<'a> {
    rules: BTreeMap<(&'a str, &'a str), Vec<Rule>>,
    bases: Vec<((&'a str, &'a str), bool)>,
}

/// Reads rules of IPv4 as `iptables-save` writes them; `pods` are addresses of endpoints.
pub(super) fn of_iptables(saved: &str, pods: &[IpAddr]) -> Forwarding {
    let mut chains = Chains::default();
    let mut table = "";
    for line in saved.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if table != "filter" {
        } else if let Some(policy) = line.strip_prefix(":FORWARD ") {
            let drops = policy.split_whitespace().next() == Some("DROP");
            chains.bases.push(((table, "FORWARD"), drops));
        } else if let Some((chain, rule)) = appended(line) {
            let rules = chains.rules.entry((table, chain)).or_default();
            rules.extend(iptables_rule(rule, pods));
        }
    }
    chains.judge()
}

/// Reads rules as `nft list ruleset` writes them.
pub(super) fn of_nft(listed: &str, pods: &[IpAddr]) -> Forwarding {
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
                if let Some(chain) = chain {
                    let rules = chains.rules.entry((table, chain)).or_default();
                    rules.extend(nft_rule(line, pods));
                }
            }
        }
    }
    chains.judge()
}

impl Chains<'_> {
    fn judge(&self) -> Forwarding {
        let mut forwarding = Forwarding::default();
        for (base, drops) in &self.bases {
            let end = self.follow(base.0, base.1, MAX_DEPTH);
            let by_policy = *drops && matches!(end, End::Open);
            forwarding.drops = Some(by_policy || forwarding.drops == Some(true));
            if let End::Dead { chain, rejects } = end {
                let hook = "FORWARD".to_owned();
                forwarding.dead_ends.push(DeadEndRule { hook, chain, rejects });
            }
        }
        forwarding
    }

    fn follow(&self, table: &str, chain: &str, depth: usize) -> End {
        let Some(depth) = depth.checked_sub(1) else {
            return End::Maybe;
        };
        let mut some_returned = false;
        for rule in self.rules.get(&(table, chain)).into_iter().flatten() {
            let end = match (&rule.verdict, rule.fit) {
                (_, Fit::Never) => continue,
                (Verdict::Accept, _) => return End::Maybe,
                (Verdict::Return, Fit::Always) => return End::Open,
                (Verdict::Return, Fit::Maybe) => {
                    some_returned = true;
                    continue;
                }
                (Verdict::Drop | Verdict::Reject, _) => End::Dead {
                    chain: chain.to_owned(),
                    rejects: matches!(rule.verdict, Verdict::Reject),
                },
                (Verdict::Chain(next), _) => self.follow(table, next, depth),
            };
            match end {
                End::Maybe => return End::Maybe,
                // Those that the rule does not take go on.
                End::Dead { .. } if rule.fit == Fit::Always && !some_returned => return end,
                End::Dead { .. } if rule.fit == Fit::Always => return End::Maybe,
                End::Dead { .. } | End::Open => {}
            }
        }
        End::Open
    }
}

/// `-A CHAIN RULE`, with counters before it or not.
fn appended(line: &str) -> Option<(&str, &str)> {
    let line = match line.starts_with('[') {
        true => line.split_once("] ")?.1,
        false => line,
    };
    line.strip_prefix("-A ")?.split_once(' ')
}

fn iptables_rule(rule: &str, pods: &[IpAddr]) -> Option<Rule> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let at = words.iter().position(|word| matches!(*word, "-j" | "-g"))?;
    let verdict = match *words.get(at + 1)? {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "REJECT" => Verdict::Reject,
        "RETURN" => Verdict::Return,
        // Targets of modules (MARK, LOG, ...) are chains without rules here, and let everything go on.
        name => Verdict::Chain(name.to_owned()),
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

fn nft_rule(line: &str, pods: &[IpAddr]) -> Option<Rule> {
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
        _ => Verdict::Chain((*words.get(at + 1)?).to_owned()),
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

fn both(one: Fit, other: Fit) -> Fit {
    match (one, other) {
        (Fit::Never, _) | (_, Fit::Never) => Fit::Never,
        (Fit::Always, Fit::Always) => Fit::Always,
        _ => Fit::Maybe,
    }
}

/// A comment of several words is quoted.
fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let first = words.next().unwrap_or_default();
    let mut ends = !first.starts_with('"') || (first.len() > 1 && first.ends_with('"'));
    while !ends {
        ends = words.next().is_none_or(|word| word.ends_with('"'));
    }
}

fn of_network(network: &str, pods: &[IpAddr], is_not: bool) -> Fit {
    let is_of_pods = pods.iter().any(|pod| contains(network, *pod));
    match (is_of_pods, is_not) {
        (false, false) if contains(network, IpAddr::from([0, 0, 0, 0])) => Fit::Maybe,
        (false, false) if !network.contains(['@', '{', '!', '=']) => Fit::Never,
        _ => Fit::Maybe,
    }
}

/// Whether a network of IPv4, `10.244.0.0/16`, has an address.
fn contains(network: &str, ip: IpAddr) -> bool {
    let (base, bits) = network.split_once('/').unwrap_or((network, "32"));
    let (Ok(base), Ok(bits), IpAddr::V4(ip)) = (base.parse::<std::net::Ipv4Addr>(), bits.parse::<u32>(), ip)
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
    base.to_bits() & mask == ip.to_bits() & mask
}

fn of_link(link: &str, is_not: bool) -> Fit {
    let is_other = link == "lo" || OTHER_LINKS.iter().any(|other| link.starts_with(other));
    match is_other && !is_not {
        true => Fit::Never,
        false => Fit::Maybe,
    }
}

fn of_protocol(protocol: &str, is_not: bool) -> Fit {
    match protocol.starts_with("icmp") || protocol.starts_with("ipv6") {
        true if !is_not => Fit::Never,
        _ => Fit::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iptables(policy: &str, rules: &str) -> Forwarding {
        let saved = format!(
            "*nat\n:FORWARD DROP [0:0]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:FORWARD {policy} [2:3]\n{rules}\nCOMMIT\n"
        );
        of_iptables(&saved, &[IpAddr::from([10, 244, 1, 5])])
    }

    const KUBE: &str = "-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name x -j DROP\n\
        -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
        -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n";

    #[test]
    fn a_policy_drops_what_no_rule_of_pods_accepts() {
        assert_eq!(iptables("DROP", KUBE).drops, Some(true));
        assert_eq!(iptables("ACCEPT", KUBE).drops, Some(false));
        assert_eq!(
            of_iptables("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", &[]).drops,
            None
        );
        for (rules, drops) in [
            (
                "-A FORWARD -j FLANNEL-FWD\n-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT",
                false,
            ),
            ("-A FORWARD -i cni0 -j ACCEPT", false),
            ("[3:4] -A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT", false),
            ("-A FORWARD -d 10.42.0.0/16 -j ACCEPT", true),
            ("-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT", true),
        ] {
            assert_eq!(
                iptables("DROP", &format!("{KUBE}{rules}")).drops,
                Some(drops),
                "{rules}"
            );
        }
    }

    #[test]
    fn a_rule_that_rejects_all_pods_is_a_dead_end() {
        let dead = |forwarding: Forwarding| {
            let ends = forwarding.dead_ends.into_iter();
            ends.map(|end| (end.chain, end.rejects)).collect::<Vec<_>>()
        };
        let reject = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited";
        assert_eq!(
            dead(iptables("ACCEPT", &format!("{KUBE}{reject}"))),
            [("FORWARD".to_owned(), true)]
        );
        let healthy = format!("{KUBE}-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n{reject}");
        assert_eq!(dead(iptables("ACCEPT", &healthy)), []);
        let firewalld = |more: &str| {
            of_nft(
                &format!(
                    "table inet firewalld {{\n\tchain filter_FORWARD {{\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\
                     \t\tct state {{ established, related }} accept\n\t\tct status dnat accept\n\t\tiifname \"lo\" accept\n{more}\
                     \t\tct state invalid drop\n\t\treject with icmpx admin-prohibited\n\t}}\n}}\n"
                ),
                &[IpAddr::from([10, 244, 1, 5])],
            )
        };
        assert_eq!(dead(firewalld("")), [("filter_FORWARD".to_owned(), true)]);
        assert_eq!(dead(firewalld("\t\tip saddr 10.244.0.0/16 accept\n")), []);
        assert_eq!(
            dead(firewalld(
                "\t\tjump filter_FORWARD_POLICIES\n\t}\n\tchain filter_FORWARD_POLICIES {\n\t\taccept\n\t}\n\tchain x {\n"
            )),
            []
        );
    }
}
