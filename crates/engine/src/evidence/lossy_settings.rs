//! Settings of nodes that lose packets, in words: what is set, and what to do about it.
//!
//! Nodes with one setting are named together, so that a command is printed only beside the nodes that it is for.

use crate::text::{self, quoted};

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
    Dropped {
        /// In words, with the node.
        sentence: String,
        /// What to do.
        remediation: String,
    },
}

impl Setting {
    /// What is set on some nodes, without a full stop.
    pub(crate) fn describe<S: AsRef<str>>(&self, nodes: &[S]) -> String {
        let on = text::nodes(nodes);
        let one = nodes.len() == 1;
        match self {
            Self::Dropped { sentence, .. } => sentence.clone(),
            Self::DeadEnd { hook, chain, rejects } => {
                let by = match chain == hook {
                    true => format!("chain {hook}"),
                    false => format!("chain {chain} (reached from {hook})"),
                };
                let does = if *rejects { "rejects" } else { "drops" };
                format!("A rule in {by} on {on} {does} every packet")
            }
            Self::NoForwarding(sysctl) => format!("IP forwarding is off on {on} ({sysctl} is 0)"),
            Self::ForwardPolicy => {
                format!("On {on}, the policy of the FORWARD chain is to drop what no rule accepts")
            }
            Self::ConntrackFull if one => {
                format!("The conntrack table of {on} is full, or within one percent of it")
            }
            Self::ConntrackFull => {
                format!("The conntrack tables of {on} are full, or within one percent of it")
            }
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

    /// What to do on some nodes.
    pub(crate) fn remediation<S: AsRef<str>>(&self, nodes: &[S]) -> String {
        let on = text::nodes(nodes);
        match self {
            Self::Dropped { remediation, .. } => remediation.clone(),
            Self::DeadEnd { chain, .. } => format!(
                "Find out what wrote the rule, and which rules precede it: `iptables -S {}` or `nft list ruleset` on {on}. A KUBE-FIREWALL rule without its mark match comes from two iptables versions that cannot read each other's rules; otherwise it is often the distribution's firewall.",
                quoted(chain)
            ),
            Self::NoForwarding(sysctl) => format!(
                "Enable IP forwarding on {on}: run `sysctl -w {sysctl}=1` there. That lasts until the next reboot; to keep it, use a file in /etc/sysctl.d."
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
