//! Settings of nodes that lose packets, in words: what is set, and what to do about it.
//!
//! Nodes with one setting are named together, so that a command is printed only beside the nodes that it is for.

use std::collections::BTreeSet;

use crate::{
    evidence::{
        dropped_text::{Dropped, Source},
        explaining::Explanation,
    },
    text::{self, quoted},
};

/// Where a setting was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places<'a> {
    /// The nodes that have it.
    pub nodes: BTreeSet<&'a str>,
    /// The Pods or addresses that it is about, if it is about some.
    pub of: BTreeSet<&'a str>,
    /// Where packets had come from that were not routed.
    pub from: BTreeSet<&'a Source>,
}

impl<'a> Places<'a> {
    /// Where an explanation says that it was found.
    pub(crate) fn add(&mut self, explanation: &'a Explanation) {
        self.nodes.insert(&explanation.node);
        self.of.extend(explanation.of.as_deref());
        self.from.extend(&explanation.from);
    }

    /// `node n1`, `nodes n1 and n2`.
    pub(super) fn nodes(&self) -> String {
        text::nodes(&self.nodes.iter().collect::<Vec<_>>())
    }
}

/// A setting by which a node loses packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    /// A rule lets nothing through.
    DeadEnd {
        /// The chain by which packets get into the firewall.
        hook: &'static str,
        /// The chain that the rule is in.
        chain: String,
        /// Whether it answers what it does not let through.
        rejects: bool,
    },
    /// Nothing is forwarded: this sysctl is 0.
    NoForwarding(&'static str),
    /// The FORWARD chain drops what no rule accepts.
    ForwardPolicy,
    /// There is no room, or next to none, in the table of tracked connections.
    ConntrackFull,
    /// Packets were dropped for the interface that they came in by.
    ReversePath,
    /// Rules do not see what a bridge passes on.
    BridgeNetfilter {
        /// Whether the module is there that would show it to them.
        is_loaded: bool,
    },
    /// No setting, but what the kernel said when it dropped packets.
    Dropped(Dropped),
}

impl Setting {
    /// What is set there, without a full stop.
    pub(crate) fn describe(&self, places: &Places<'_>) -> String {
        let on = places.nodes();
        match self {
            Self::Dropped(dropped) => dropped.describe(places),
            Self::DeadEnd { hook, chain, rejects } => {
                let by = match chain == hook {
                    true => format!("chain {hook}"),
                    false => format!("chain {chain} (reached from {hook})"),
                };
                let does = if *rejects { "rejects" } else { "drops" };
                format!("A rule in {by} on {on} {does} all it gets")
            }
            Self::NoForwarding(sysctl) => format!("IP forwarding is off on {on} ({sysctl} is 0)"),
            Self::ForwardPolicy => {
                format!("On {on}, the policy of the FORWARD chain is to drop what no rule accepts")
            }
            Self::ConntrackFull => full_tables(&places.nodes),
            Self::ReversePath => format!(
                "{} dropped packets that arrived on a different interface from the one their replies would leave by (rp_filter)",
                text::capitalized(&on)
            ),
            Self::BridgeNetfilter { is_loaded: true } => format!(
                "On {on}, replies between Pods on the same bridge bypass kube-proxy's rules (net.bridge.bridge-nf-call-iptables is 0)"
            ),
            Self::BridgeNetfilter { is_loaded: false } => format!(
                "On {on}, replies between Pods on the same bridge bypass kube-proxy's rules (br_netfilter is not loaded)"
            ),
        }
    }

    /// What to do there.
    fn remediation(&self, places: &Places<'_>) -> String {
        let on = places.nodes();
        match self {
            Self::Dropped(dropped) => dropped.remediation(places),
            Self::DeadEnd { hook, chain, .. } => dead_ends(&[(hook, chain, places)]),
            Self::NoForwarding(sysctl) => format!(
                "Enable IP forwarding on {on}: run `sysctl -w {sysctl}=1` there. That lasts until the next reboot; to keep it, use a file in /etc/sysctl.d.{}",
                advertised_routes(sysctl)
            ),
            Self::ForwardPolicy => format!(
                "Look at the chain on {on}: `iptables -S FORWARD`. The names of other chains in it hint at what set the policy (often Docker or ufw); see also whether the network plugin's own rules are missing. \
                 Then have that firewall accept the forwarded packets of the Pod network."
            ),
            Self::ConntrackFull => format!(
                "On {on}, find out what holds so many connections: `conntrack -L` (the output is long). To double the limit there until the next reboot (kube-proxy may also set it when it starts): \
                 `sysctl -w net.netfilter.nf_conntrack_max=$((2 * $(sysctl -n net.netfilter.nf_conntrack_max)))`."
            ),
            Self::ReversePath => format!(
                "Make the routes of {on} symmetric, or loosen the check there on all interfaces: \
                 `sysctl -w net.ipv4.conf.all.rp_filter=2`. That lasts until the next reboot; to keep it, use a file in /etc/sysctl.d."
            ),
            Self::BridgeNetfilter { is_loaded: true } => format!(
                "Make bridged packets on {on} pass the iptables rules: run `sysctl -w net.bridge.bridge-nf-call-iptables=1` there. That lasts until the next reboot; to keep it, use a file in /etc/sysctl.d."
            ),
            Self::BridgeNetfilter { is_loaded: false } => format!(
                "Make bridged packets on {on} pass the iptables rules: run `modprobe br_netfilter` and `sysctl -w net.bridge.bridge-nf-call-iptables=1` there. Both last until the next reboot; to keep them, list br_netfilter in a file in /etc/modules-load.d and the sysctl in a file in /etc/sysctl.d."
            ),
        }
    }
}

/// What to see to before IPv6 is forwarded: a host that becomes a router no longer hears where others route.
pub(super) fn advertised_routes(sysctl: &str) -> &'static str {
    match sysctl.starts_with("net.ipv6.") {
        true => {
            " If the node gets its default route by router advertisements, set accept_ra of that interface to 2 first, or it loses the route."
        }
        false => "",
    }
}

/// `The conntrack table of node n1 is at least 99% full`.
pub(crate) fn full_tables(nodes: &BTreeSet<&str>) -> String {
    let on = text::nodes(&nodes.iter().collect::<Vec<_>>());
    match nodes.len() {
        1 => format!("The conntrack table of {on} is at least 99% full"),
        _ => format!("The conntrack tables of {on} are at least 99% full"),
    }
}

/// What to do about several settings. What is the same for some of them is printed once, with all their places.
pub(crate) fn remediation(found: &[(&Setting, Places<'_>)]) -> String {
    let chains: Vec<(&str, &str, &Places<'_>)> = found
        .iter()
        .filter_map(|(setting, places)| match setting {
            Setting::DeadEnd { hook, chain, .. } => Some((*hook, chain.as_str(), places)),
            _ => None,
        })
        .collect();
    let mut fixes: Vec<(&Setting, Places<'_>)> = Vec::new();
    let others = found
        .iter()
        .filter(|(s, _)| !matches!(s, Setting::DeadEnd { .. }));
    for (setting, places) in others {
        let nowhere = Places::default();
        let fix = setting.remediation(&nowhere);
        match fixes
            .iter_mut()
            .find(|(other, _)| other.remediation(&nowhere) == fix)
        {
            Some((_, all)) => {
                all.nodes.extend(&places.nodes);
                all.of.extend(&places.of);
                all.from.extend(&places.from);
            }
            None => fixes.push((setting, places.clone())),
        }
    }
    let chains = (!chains.is_empty()).then(|| dead_ends(&chains));
    let others = fixes.iter().map(|(setting, places)| setting.remediation(places));
    chains.into_iter().chain(others).collect::<Vec<_>>().join(" ")
}

/// What to do about rules that let nothing through: hook, chain and places of each.
fn dead_ends(chains: &[(&str, &str, &Places<'_>)]) -> String {
    const KUBELETS: &str = "KUBE-FIREWALL";
    let see = chains
        .iter()
        .map(|(_, chain, places)| format!("`iptables -S {}` on {}", quoted(chain), places.nodes()));
    let rules = match chains {
        [(.., places)] if places.nodes.len() <= 1 => "rule, and which rules precede it",
        _ => "rules, and which rules precede them",
    };
    let of_kubelet = chains.iter().any(|(_, chain, _)| *chain == KUBELETS);
    let of_others = chains.iter().any(|(_, chain, _)| *chain != KUBELETS);
    let what = match chains.iter().all(|(hook, ..)| *hook == "FORWARD") {
        true => "forwarded packets of the Pod network",
        false => "packets",
    };
    format!(
        "Find out what wrote the {rules}: {} (or `nft list ruleset`).{}{}",
        text::list(&see.collect::<Vec<_>>()),
        match of_kubelet {
            true =>
                " A KUBE-FIREWALL rule without its mark match comes from two iptables versions that cannot read each other's rules.",
            false => "",
        },
        match of_others {
            true => format!(" Then have that firewall accept the {what}."),
            false => String::new(),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_not_forwarded_at_the_price_of_the_default_route() {
        for (sysctl, is_warned) in [
            ("net.ipv4.ip_forward", false),
            ("net.ipv6.conf.all.forwarding", true),
        ] {
            let said = Setting::NoForwarding(sysctl).remediation(&Places::default());
            assert_eq!(said.contains("accept_ra"), is_warned, "{said}");
        }
    }
}
