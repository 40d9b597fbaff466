//! What the firewall of a node does with packets that Pods open a connection with, as saved rules show: which chain
//! that packets are forwarded through lets none of them go on.
//!
//! [`of_iptables`], [`of_listing`] and [`of_nft`] reduce each rule to how it bears on such packets (`Fit`) and what becomes of
//! those that it takes (`Verdict`); the chains are then followed from the hook of forwarded packets.

mod iptables;
mod listing;
mod nft;

use std::{collections::BTreeMap, net::IpAddr};

use svcdiag_api::DeadEndRule;

pub use iptables::of_iptables;
pub use listing::of_listing;
pub use nft::of_nft;

/// Chains nest no deeper; a circle ends here.
const MAX_DEPTH: usize = 16;

/// Links of programs that have nothing to do with Pods.
const OTHER_LINKS: [&str; 5] = ["docker", "br-", "virbr", "lxdbr", "podman"];

/// How a rule bears on packets from or to Pods that open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Never,
    Maybe,
    Always,
}

/// What becomes of the packets that a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Accept,
    Drop,
    Reject,
    Return,
    Chain(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule<'a> {
    fit: Fit,
    verdict: Verdict<'a>,
}

/// What becomes of the packets that come into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End<'a> {
    /// They go on behind it.
    Open,
    /// Some may be let through.
    Maybe,
    /// All end, at a rule of a chain.
    Dead { chain: &'a str, rejects: bool },
}

/// What is forwarded, as a file of rules shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether a chain drops by its policy what no rule has accepted, and none accepts packets of Pods; None where the
    /// file shows no such chain.
    pub drops: Option<bool>,
    /// Rules that end all packets of Pods.
    pub dead_ends: Vec<DeadEndRule>,
}

/// A table and a chain of it.
type Name<'a> = (&'a str, &'a str);

/// The rules that packets of Pods can take, and the chains that the kernel sends forwarded packets through.
#[derive(Default)]
struct Chains<'a> {
    rules: BTreeMap<Name<'a>, Vec<Rule<'a>>>,
    /// With whether their policy drops.
    bases: Vec<(Name<'a>, bool)>,
}

impl<'a> Chains<'a> {
    /// Adds a rule to its chain, unless it changes nothing: a text of repeated lines stays small.
    fn add(&mut self, chain: Name<'a>, rule: Rule<'a>) {
        let rules = self.rules.entry(chain).or_default();
        if rule.fit != Fit::Never && rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }

    fn judge(&self) -> Forwarding {
        let mut forwarding = Forwarding::default();
        let mut known = BTreeMap::new();
        for (base, drops) in &self.bases {
            let end = self.follow(*base, MAX_DEPTH, &mut known);
            let by_policy = *drops && end == End::Open;
            forwarding.drops = Some(by_policy || forwarding.drops == Some(true));
            if let End::Dead { chain, rejects } = end {
                forwarding.dead_ends.push(DeadEndRule {
                    hook: "FORWARD".to_owned(),
                    chain: chain.to_owned(),
                    rejects,
                });
            }
        }
        forwarding
    }

    /// Follows every chain once, however many rules lead to it.
    fn follow(&self, chain: Name<'a>, depth: usize, known: &mut BTreeMap<Name<'a>, End<'a>>) -> End<'a> {
        if let Some(end) = known.get(&chain) {
            return *end;
        }
        let Some(depth) = depth.checked_sub(1) else {
            return End::Maybe;
        };
        // What a circle comes back to is not known yet.
        known.insert(chain, End::Maybe);
        let end = self.end_of(chain, depth, known);
        known.insert(chain, end);
        end
    }

    fn end_of(
        &self,
        (table, chain): Name<'a>,
        depth: usize,
        known: &mut BTreeMap<Name<'a>, End<'a>>,
    ) -> End<'a> {
        let mut some_returned = false;
        for rule in self.rules.get(&(table, chain)).into_iter().flatten() {
            let end = match rule.verdict {
                Verdict::Accept => return End::Maybe,
                Verdict::Return if rule.fit == Fit::Always => return End::Open,
                Verdict::Return => {
                    some_returned = true;
                    continue;
                }
                Verdict::Drop | Verdict::Reject => End::Dead {
                    chain,
                    rejects: rule.verdict == Verdict::Reject,
                },
                Verdict::Chain(next) => self.follow((table, next), depth, known),
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

fn both(one: Fit, other: Fit) -> Fit {
    match (one, other) {
        (Fit::Never, _) | (_, Fit::Never) => Fit::Never,
        (Fit::Always, Fit::Always) => Fit::Always,
        _ => Fit::Maybe,
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

    #[test]
    fn chains_that_lead_to_each_other_many_times_are_followed_once() {
        let rules: Vec<String> = (0..14)
            .flat_map(|n| (0..400).map(move |k| format!("-A C{n} -m x{k} -j C{}", n + 1 + k % 2)))
            .collect();
        let forwarding = iptables("DROP", &format!("-A FORWARD -j C0\n{}", rules.join("\n")));
        assert_eq!(forwarding.drops, Some(true));
    }
}
