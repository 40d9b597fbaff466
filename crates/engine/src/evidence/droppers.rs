//! Rules and policies that dropped packets, in words: which, how that is known, and how to see them.
//!
//! An agent names one only if its counter says so or nothing else is left. Otherwise it lists those that may have been it,
//! and so do the messages.

use crate::text::{SHOWN, quoted};
use svcdiag_api::{Dropper, DropperEvidence, FilterFamily, FilterHook, FilterTool, PacketDrop};

/// What a firewall is to accept, most often.
pub(crate) const OF_PODS: &str = "the packets of the Pod network";

/// What a firewall dropped packets with, as far as an agent could tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Droppers(Vec<Dropper>);

/// Who writes tables and chains with certain names.
struct Owner {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A firewall, or something else that guards the node.
    Firewall,
    /// A network plugin, or what enforces policies.
    Plugin,
    /// Kubernetes itself.
    Kubernetes,
}

/// Beginnings of the names of tables.
const TABLES: [(&str, &str, Kind); 10] = [
    ("calico", "Calico", Kind::Plugin),
    ("cni_", "a CNI plugin", Kind::Plugin),
    ("crowdsec", "CrowdSec", Kind::Firewall),
    ("docker", "Docker", Kind::Firewall),
    ("firewalld", "firewalld", Kind::Firewall),
    ("flannel", "flannel", Kind::Plugin),
    ("kube-network-policies", "kube-network-policies", Kind::Plugin),
    ("kube-proxy", "kube-proxy", Kind::Kubernetes),
    ("libvirt", "libvirt", Kind::Firewall),
    ("netavark", "Podman", Kind::Firewall),
];

/// Beginnings of the names of chains; the first that fits counts.
const CHAINS: [(&str, &str, Kind); 20] = [
    ("AZURE-NPM", "Azure NPM", Kind::Plugin),
    ("CILIUM_", "Cilium", Kind::Plugin),
    ("CNI-", "a CNI plugin", Kind::Plugin),
    ("DOCKER", "Docker", Kind::Firewall),
    ("FLANNEL-", "flannel", Kind::Plugin),
    ("ISTIO_", "Istio", Kind::Plugin),
    ("KUBE-FIREWALL", "the kubelet", Kind::Kubernetes),
    ("KUBE-MARK-DROP", "the kubelet", Kind::Kubernetes),
    ("KUBE-NWPLCY-", "kube-router", Kind::Plugin),
    ("KUBE-POD-FW-", "kube-router", Kind::Plugin),
    ("KUBE-ROUTER-", "kube-router", Kind::Plugin),
    ("KUBE-", "kube-proxy", Kind::Kubernetes),
    ("LIBVIRT_", "libvirt", Kind::Firewall),
    ("NETAVARK", "Podman", Kind::Firewall),
    ("WEAVE-", "Weave Net", Kind::Plugin),
    ("cali-", "Calico", Kind::Plugin),
    ("f2b-", "fail2ban", Kind::Firewall),
    ("ts-", "Tailscale", Kind::Firewall),
    ("ufw-", "ufw", Kind::Firewall),
    ("ufw6-", "ufw", Kind::Firewall),
];

/// Who writes a table or a chain, by its name.
fn owner(dropper: &Dropper) -> Option<Owner> {
    let named = |known: &[(&str, &'static str, Kind)], name: &str| {
        let found = known.iter().find(|(begin, ..)| name.starts_with(begin));
        found.map(|(_, name, kind)| Owner { name, kind: *kind })
    };
    named(&TABLES, &dropper.table).or_else(|| named(&CHAINS, &dropper.chain))
}

impl Droppers {
    /// What dropped packets. By how much a counter rose is another number each time.
    pub(crate) fn of(drop: &PacketDrop) -> Self {
        let droppers = drop.droppers.iter().cloned().map(|dropper| Dropper {
            rose: dropper.rose.map(|rose| rose.min(1)),
            ..dropper
        });
        Self(droppers.collect())
    }

    /// The one that did, if that is certain.
    fn certain(&self) -> Option<&Dropper> {
        let [only] = &self.0[..] else { return None };
        (only.evidence != DropperEvidence::Candidate).then_some(only)
    }

    /// What follows a sentence on a firewall that drops packets, without a full stop.
    pub(super) fn describe(&self) -> String {
        if let Some(certain) = self.certain() {
            let how = match certain.evidence {
                DropperEvidence::Counted => "Its counter rose while the dials were repeated",
                DropperEvidence::Only | DropperEvidence::Candidate => {
                    "Nothing else there can drop these packets without an answer"
                }
            };
            return format!(": {}. {how}", name(certain));
        }
        let shown = self.0.iter().take(SHOWN).map(|dropper| match dropper.rose {
            Some(1..) => format!("{}, whose counter rose meanwhile", name(dropper)),
            _ => name(dropper),
        });
        let shown: Vec<String> = shown.collect();
        match (shown.split_last(), self.0.len().saturating_sub(shown.len())) {
            (None, _) => String::new(),
            (Some((only, [])), _) => format!(". It may be {only}"),
            (Some((last, others)), 0) => format!(". It may be {}; or {last}", others.join("; ")),
            (_, more) => format!(". It may be {}; or one of {more} more", shown.join("; ")),
        }
    }

    /// What to do about it on nodes, so that it accepts something; None where nothing is named that can be shown.
    pub(crate) fn remediation(&self, on: &str, accepted: &str) -> Option<String> {
        let mut commands: Vec<String> = self.0.iter().take(SHOWN).filter_map(show).collect();
        commands.dedup();
        let see = match commands.as_slice() {
            [] => return None,
            commands => commands.join(", "),
        };
        let Some(certain) = self.certain() else {
            return Some(format!(
                "Find the rule or chain policy that drops them on {on}: {see}. If the network plugin wrote it, check its policies; \
                 otherwise have that firewall accept {accepted}."
            ));
        };
        let owner = owner(certain);
        let then = match owner.as_ref().map(|owner| (owner.kind, owner.name)) {
            Some((Kind::Firewall, name)) => {
                format!("{} writes it: have it accept {accepted}.", capitalized(name))
            }
            Some((Kind::Plugin, name)) => format!("{} writes it: check its policies.", capitalized(name)),
            Some((Kind::Kubernetes, name)) => format!(
                "{} writes it, for packets that must not pass: find out why these are among them.",
                capitalized(name)
            ),
            None => format!(
                "If the network plugin wrote it, check its policies; otherwise have that firewall accept {accepted}."
            ),
        };
        Some(format!("See it on {on}: {see}. {then}"))
    }
}

/// firewalld and ufw write themselves in lower case.
fn capitalized(name: &str) -> String {
    match name.split_once(' ') {
        Some((article @ ("a" | "the"), _)) => crate::text::capitalized(article) + &name[article.len()..],
        _ => name.to_owned(),
    }
}

/// The rule or policy that dropped packets, for an observation; None if it is not certain.
pub(super) fn observed(drop: &PacketDrop) -> Option<String> {
    let [dropper] = &drop.droppers[..] else {
        return None;
    };
    match (dropper.evidence, dropper.rose) {
        (DropperEvidence::Candidate, _) => None,
        (DropperEvidence::Counted, Some(rose)) => {
            Some(format!("{}, whose counter rose by {rose}", name(dropper)))
        }
        (DropperEvidence::Counted | DropperEvidence::Only, _) => Some(name(dropper)),
    }
}

/// `nftables, table inet firewalld, chain filter_FORWARD (firewalld's; hook forward, priority 10), rule "..."`.
fn name(dropper: &Dropper) -> String {
    let is_v6 = dropper.family == FilterFamily::Ip6;
    let tool = match dropper.tool {
        FilterTool::Nftables => "nftables",
        FilterTool::IptablesNft if is_v6 => "ip6tables-nft",
        FilterTool::IptablesNft => "iptables-nft",
        FilterTool::IptablesLegacy if is_v6 => "ip6tables-legacy",
        FilterTool::IptablesLegacy => "iptables-legacy",
    };
    let table = match dropper.tool {
        FilterTool::Nftables => format!("{} {}", family(dropper.family), dropper.table),
        FilterTool::IptablesNft | FilterTool::IptablesLegacy => dropper.table.clone(),
    };
    let owner = owner(dropper).map_or_else(String::new, |owner| match owner.name {
        name if name.ends_with('s') => format!("of {name}; "),
        name => format!("{name}'s; "),
    });
    let from = match dropper.chain == dropper.base_chain {
        true => String::new(),
        false => format!("reached from {}, ", dropper.base_chain),
    };
    let what = match (dropper.is_policy, &dropper.text, dropper.rule) {
        (true, ..) => "policy drop".to_owned(),
        (false, Some(text), _) => format!("rule \"{text}\""),
        (false, None, Some(number)) if dropper.tool == FilterTool::IptablesLegacy => format!("rule {number}"),
        (false, None, Some(handle)) => format!("the rule with handle {handle}"),
        (false, None, None) => "a rule".to_owned(),
    };
    format!(
        "{tool}, table {table}, chain {} ({owner}{from}hook {}, priority {}), {what}",
        dropper.chain,
        hook(dropper.hook),
        dropper.priority
    )
}

fn family(family: FilterFamily) -> &'static str {
    match family {
        FilterFamily::Ip => "ip",
        FilterFamily::Ip6 => "ip6",
        FilterFamily::Inet => "inet",
        FilterFamily::Bridge => "bridge",
        FilterFamily::Netdev => "netdev",
    }
}

fn hook(hook: FilterHook) -> &'static str {
    match hook {
        FilterHook::Ingress => "ingress",
        FilterHook::Prerouting => "prerouting",
        FilterHook::Input => "input",
        FilterHook::Forward => "forward",
        FilterHook::Output => "output",
        FilterHook::Postrouting => "postrouting",
        FilterHook::Egress => "egress",
    }
}

/// The command that shows a chain, between backquotes. nft reads its arguments as one text, so no quotes of a shell keep it
/// from taking a name for something else: only plain names are typed.
fn show(dropper: &Dropper) -> Option<String> {
    // An agent cuts names at 64 bytes.
    let is_plain = |name: &str| {
        name.len() < 64
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
    };
    (is_plain(&dropper.table) && is_plain(&dropper.chain)).then_some(())?;
    let (table, chain) = (quoted(&dropper.table), quoted(&dropper.chain));
    Some(match (dropper.tool, dropper.family) {
        (FilterTool::IptablesLegacy, FilterFamily::Ip6) => {
            format!("`ip6tables-legacy -t {table} -S {chain}`")
        }
        (FilterTool::IptablesLegacy, _) => format!("`iptables-legacy -t {table} -S {chain}`"),
        (FilterTool::Nftables | FilterTool::IptablesNft, of) => {
            format!("`nft -a list chain {} {table} {chain}`", family(of))
        }
    })
}
