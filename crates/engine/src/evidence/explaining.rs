//! Which setting of a node explains that packets were lost.
//!
//! A setting explains a failure only where the packets went through that node in a way that the setting bears
//! on, nothing passed the node in that way in the same round, and the endpoint does not fail on its own node
//! for another reason. It never makes a fault of what works, and alone it is never more than probable.

use std::collections::BTreeSet;

use crate::evidence::{
    Evidence, arrivals,
    dials::Failed,
    dropped,
    dropped_text::Source,
    lossy_settings::Setting,
    passage::{Passage, links},
};
use svcdiag_api::{Answer, DialPath, IpFamily, NodeSettings, Reason};

/// A setting that explains a failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Explanation {
    /// The reason that it is.
    pub reason: Reason,
    /// The node whose setting it is.
    pub node: String,
    /// The setting, or what the kernel said.
    pub setting: Setting,
    /// The Pod or the address that this is about, if it is about one.
    pub of: Option<String>,
    /// Where packets had come from that were not routed, if that is known.
    pub from: Option<Source>,
    /// Whether the kernel dropped packets of the dial for it; else it is but probable.
    pub is_seen: bool,
}

impl Explanation {
    /// A setting that may explain it.
    pub(super) fn probable(reason: Reason, node: &str, setting: Setting) -> Self {
        Self {
            reason,
            node: node.to_owned(),
            setting,
            of: None,
            from: None,
            is_seen: false,
        }
    }

    /// What the kernel dropped packets of the dial for.
    pub(super) fn seen(reason: Reason, node: &str, setting: Setting) -> Self {
        Self {
            is_seen: true,
            ..Self::probable(reason, node, setting)
        }
    }
}

/// The setting that explains why an answer did not come; of several the one with precedence.
pub(crate) fn explain(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<Explanation> {
    let seen = dropped::explain(evidence, failed);
    if seen.is_some() {
        return seen;
    }
    let found = candidates(evidence, failed);
    let of_home = failure_at_home(evidence, failed).map(|home| candidates(evidence, home));
    let arrival = arrivals::of(evidence, failed);
    let is_possible = |e: &Explanation| arrival.as_ref().is_none_or(|a| a.may_be_lost_on(&e.node));
    found
        .into_iter()
        .filter(is_possible)
        .filter(|e| of_home.as_ref().is_none_or(|home| home.contains(e)))
        .min_by_key(|e| (precedence(e.reason), e.node.clone()))
}

/// The failure of those next to an endpoint, where nobody there has reached it: whatever keeps others from it
/// is not what it fails for, unless it keeps these as well.
fn failure_at_home<'e, 'a>(evidence: &'e Evidence<'a>, failed: &Failed<'a>) -> Option<&'e Failed<'a>> {
    let endpoint = failed.endpoint?;
    let port = failed.dial.port;
    let home = failed.target?.node?;
    let is_there = |f: &&Failed<'_>| f.node == home && f.endpoint == Some(endpoint) && f.dial.port == port;
    // The node's own dial says most: fewest things can come in its way.
    let of_home = || evidence.direct.failures.iter().filter(is_there);
    let found = of_home()
        .find(|f| f.dial.from.is_none())
        .or_else(|| of_home().next())?;
    (!evidence.is_reached_at_home(endpoint, port)).then_some(found)
}

/// The settings of the nodes on the way that bear on it and let nothing of the like through.
fn candidates(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Vec<Explanation> {
    if !failed.is_lost() {
        return Vec::new();
    }
    let family = failed.family();
    let ends = failed.target.and_then(|t| t.node).map(|node| (failed.node, node));
    let leaves_node = failed.dial.same_node != Some(true);
    let rejected_by = failed.sender();
    let mut found = Vec::new();
    for (node, passage) in passages(evidence, failed) {
        let Some(settings) = evidence.settings(node) else {
            continue;
        };
        if family == IpFamily::V4 && !evidence.passing.passed(node, passage, family) {
            let hook = match passage {
                Passage::Forwarded => Some("FORWARD"),
                Passage::Local if node == failed.node && failed.from_host => Some("OUTPUT"),
                Passage::Local => Some("INPUT"),
                Passage::Bridged | Passage::Unknown => None,
            };
            // Who said that it rejects the packets is not another node.
            let hook = hook.filter(|_| rejected_by.is_none_or(|by| by.may_be(node)));
            found.extend(hook.and_then(|hook| dead_end(node, settings, hook, failed.answer)));
        }
        if failed.answer != Answer::TimedOut {
            continue;
        }
        let of_node = of_node(node, settings, passage, family, leaves_node).into_iter();
        found.extend(of_node.filter(|e| match e.reason {
            // Which way packets come in by depends on where they come from.
            Reason::ReversePathFiltering => {
                !ends.is_some_and(|(from, to)| evidence.passing.passed_between(from, to, family))
            }
            // Where one such chain lets Pods through, the network plugin sees to that, and does so elsewhere.
            Reason::FirewallDrops => {
                !evidence.passing.passed(node, passage, family) && !some_chain_lets_through(evidence)
            }
            // A full table has room for one now and then.
            Reason::ConntrackTableFull if node == failed.node => {
                !evidence.passing.mostly_passed(node, failed.from_host)
            }
            _ => !evidence.passing.passed(node, passage, family),
        }));
        // What a Pod sends to its own bridge never leaves it, so that the rules are passed by.
        if node == failed.node && failed.dial.same_bridge && failed.dial.path == DialPath::Service {
            let setting = bridge_netfilter(settings);
            found.extend(setting.map(|s| Explanation::probable(Reason::BridgeNetfilterDisabled, node, s)));
        }
    }
    found
}

/// A rule that lets nothing through, and ends dials in the way that this one ended.
fn dead_end(node: &str, settings: &NodeSettings, hook: &'static str, answer: Answer) -> Option<Explanation> {
    let is_told = answer != Answer::TimedOut;
    let rule = settings
        .dead_ends
        .iter()
        .find(|rule| rule.hook == hook && rule.rejects == is_told)?;
    let reason = match answer {
        Answer::TimedOut if hook == "FORWARD" => Reason::FirewallDrops,
        Answer::TimedOut => Reason::TimedOut,
        Answer::Unreachable => Reason::NoRouteToHost,
        _ => Reason::ConnectionRefused,
    };
    let setting = Setting::DeadEnd {
        hook,
        chain: rule.chain.clone(),
        rejects: rule.rejects,
    };
    Some(Explanation::probable(reason, node, setting))
}

fn drops_by_policy(settings: &NodeSettings) -> bool {
    settings.forward_drops == Some(true)
}

fn some_chain_lets_through(evidence: &Evidence<'_>) -> bool {
    let passed = |node: &str| evidence.passing.passed(node, Passage::Forwarded, IpFamily::V4);
    let mut reports = evidence.reports.current.iter();
    reports.any(|r| drops_by_policy(&r.facts.settings) && passed(r.node))
}

/// Nodes on the way of dials whose FORWARD chain drops what no rule accepts, and of which nobody saw that they
/// let Pods' packets through.
pub(crate) fn closed_chains<'a>(evidence: &Evidence<'a>, failures: &[&Failed<'a>]) -> BTreeSet<&'a str> {
    let lost = failures
        .iter()
        .filter(|f| f.answer == Answer::TimedOut && f.family() == IpFamily::V4);
    let forwarded = lost
        .flat_map(|f| passages(evidence, f))
        .filter(|(_, p)| *p == Passage::Forwarded);
    forwarded
        .map(|(node, _)| node)
        .filter(|node| evidence.settings(node).is_some_and(drops_by_policy))
        .filter(|node| !evidence.passing.passed(node, Passage::Forwarded, IpFamily::V4))
        .collect()
}

/// Nodes on the way of dials whose table of tracked connections is full: though some packets pass, others may
/// have been lost for that.
pub(crate) fn full_tables<'a>(evidence: &Evidence<'a>, failures: &[&Failed<'a>]) -> BTreeSet<&'a str> {
    let lost = failures.iter().filter(|f| f.answer == Answer::TimedOut);
    let nodes = lost.flat_map(|f| passages(evidence, f)).map(|(node, _)| node);
    let is_full = |node: &&str| {
        evidence
            .settings(node)
            .is_some_and(|s| s.conntrack_full == Some(true))
    };
    nodes.filter(is_full).collect()
}

/// The order of the table: what the bridge does stands before all.
fn precedence(reason: Reason) -> (bool, Reason) {
    (reason != Reason::BridgeNetfilterDisabled, reason)
}

/// The nodes that the packets of a dial go through, and how.
fn passages<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Vec<(&'a str, Passage)> {
    let elsewhere = failed
        .target
        .and_then(|t| t.node)
        .filter(|node| *node != failed.node);
    let into_host = failed.target.is_some_and(|t| t.is_host_network());
    let through_service = failed.dial.path != DialPath::Endpoint;
    let is_same_node = failed.dial.same_node == Some(true);
    let at_client = match failed.from_host {
        true => Passage::Local,
        false if is_same_node && into_host => Passage::Local,
        // Packets to a Service get another destination, and so are routed though a bridge has both ends.
        false if through_service || !is_same_node => Passage::Forwarded,
        false if failed.dial.same_bridge => Passage::Bridged,
        false => links(&evidence.reports, failed.node, failed.target),
    };
    let mut passages = vec![(failed.node, at_client)];
    if let Some(node) = elsewhere {
        let passage = if into_host {
            Passage::Local
        } else {
            Passage::Forwarded
        };
        passages.push((node, passage));
    }
    passages
}

fn of_node(
    node: &str,
    settings: &NodeSettings,
    passage: Passage,
    family: IpFamily,
    leaves_node: bool,
) -> Vec<Explanation> {
    let mut found = Vec::new();
    let mut add = |reason, setting| found.push(Explanation::probable(reason, node, setting));
    let is_v4 = family == IpFamily::V4;
    let (forwards, sysctl) = forwarding(Some(settings), family);
    if forwards == Some(false) && passage == Passage::Forwarded {
        add(Reason::IPForwardingDisabled, Setting::NoForwarding(sysctl));
    }
    // br_netfilter sends bridged packets through the same chain.
    let is_filtered = match passage {
        Passage::Forwarded => true,
        Passage::Bridged => settings.bridge_netfilter == Some(true),
        Passage::Local | Passage::Unknown => false,
    };
    if drops_by_policy(settings) && is_v4 && is_filtered {
        add(Reason::FirewallDrops, Setting::ForwardPolicy);
    }
    // Without br_netfilter nobody tracks what a bridge passes on.
    let is_tracked = passage != Passage::Bridged || settings.bridge_netfilter == Some(true);
    if settings.conntrack_full == Some(true) && is_tracked {
        add(Reason::ConntrackTableFull, Setting::ConntrackFull);
    }
    if settings.reverse_path_drops == Some(true) && is_v4 && leaves_node {
        add(Reason::ReversePathFiltering, Setting::ReversePath);
    }
    found
}

/// Whether a node forwards packets of an IP family, if that is known, and the sysctl that says so.
pub(super) fn forwarding(settings: Option<&NodeSettings>, family: IpFamily) -> (Option<bool>, &'static str) {
    match family {
        IpFamily::V4 => (settings.and_then(|s| s.ipv4_forwarding), "net.ipv4.ip_forward"),
        IpFamily::V6 => (
            settings.and_then(|s| s.ipv6_forwarding),
            "net.ipv6.conf.all.forwarding",
        ),
    }
}

/// Without br_netfilter the setting does not exist, and bridged packets skip the rules as well.
pub(super) fn bridge_netfilter(settings: &NodeSettings) -> Option<Setting> {
    let is_loaded = match settings.bridge_netfilter {
        Some(true) => return None,
        Some(false) => true,
        // Where nothing could be read this is not known either.
        None if settings.ipv4_forwarding.is_none() => return None,
        None => false,
    };
    Some(Setting::BridgeNetfilter { is_loaded })
}
