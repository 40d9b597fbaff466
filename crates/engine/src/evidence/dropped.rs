//! Which packets that the kernel dropped explain a failure.
//!
//! A drop is of the very dial that failed, so it outranks every setting. It explains a failure and makes none: of dials
//! that were answered drops are not looked at.

use std::net::{IpAddr, SocketAddr};

use crate::{
    evidence::{
        Evidence,
        dials::Failed,
        explaining::{Explanation, bridge_netfilter},
        lossy_settings::Setting,
        reports::Report,
        targets::key,
    },
    text::quoted,
};
use svcdiag_api::{Answer, DialPath, DropCause, DropPlace, Hairpin, IpFamily, PacketDrop, Reason};
use svcdiag_objects::{Object, Pod};

/// The packets of a failed dial that its node dropped.
pub(crate) fn of<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Vec<&'a PacketDrop> {
    let reports = evidence.reports.current.iter();
    let drops = reports
        .filter(|r| r.node == failed.node)
        .flat_map(|r| &r.facts.drops);
    let dial = failed.dial;
    let is_its = |drop: &&PacketDrop| {
        let endpoint = drop.endpoint.as_deref();
        let is_that_way =
            endpoint.is_none() || dial.endpoint.is_none() || endpoint == dial.endpoint.as_deref();
        drop.from == dial.from && drop.target == dial.target && is_that_way
    };
    drops.filter(is_its).collect()
}

/// The packets of a Pod's dial to itself that its node dropped.
pub(crate) fn of_hairpin<'a>(
    report: &Report<'a>,
    hairpin: &Hairpin,
    pod: Option<&Pod>,
) -> impl Iterator<Item = &'a PacketDrop> {
    let facts = report.facts;
    // As a client the Pod also dials the others behind the same address.
    let is_its = move |drop: &&PacketDrop| {
        let is_own = |ip: IpAddr| pod.is_none_or(|pod| pod.ips().any(|own| own.parse() == Ok(ip)));
        let is_back = |to: &str| to.parse::<SocketAddr>().is_ok_and(|to| is_own(to.ip()));
        drop.from.as_ref() == Some(&hairpin.pod)
            && drop.target == hairpin.target
            && drop.endpoint.as_deref().is_none_or(is_back)
    };
    let failed = hairpin.answer.is_some_and(|answer| answer != Answer::Accepted);
    facts.drops.iter().filter(move |drop| failed && is_its(drop))
}

/// Whether the endpoint of a failed dial had no room for more connections. Its own node sees that, whoever dials.
pub(crate) fn finds_no_room(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let home = failed.target.and_then(|target| target.node);
    let reports = evidence.reports.current.iter();
    let mut drops = reports
        .filter(|r| Some(r.node) == home)
        .flat_map(|r| &r.facts.drops);
    failed.answer == Answer::TimedOut
        && drops.any(|drop| {
            drop.cause == DropCause::AcceptQueueFull
                && drop.endpoint.is_some()
                && drop.endpoint == failed.dial.endpoint
        })
}

/// Why the packets of a failed dial were dropped, if the kernel said it.
pub(super) fn explain(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<Explanation> {
    let drops = of(evidence, failed);
    let explained = drops.into_iter().filter_map(|drop| {
        let explanation = of_drop(evidence, failed, drop)?;
        Some((std::cmp::Reverse(drop.packets), explanation))
    });
    explained.min().map(|(_, explanation)| explanation)
}

fn of_drop(evidence: &Evidence<'_>, failed: &Failed<'_>, drop: &PacketDrop) -> Option<Explanation> {
    if !leads_to(drop.cause, failed.answer) {
        return None;
    }
    let node = failed.node;
    let family = failed.family();
    let on_node = drop.place == DropPlace::Node;
    let settings = evidence.settings(node);
    match drop.cause {
        DropCause::Firewall => {
            let is_full = settings.is_some_and(|s| s.conntrack_full == Some(true));
            // Rules have functions of their own; this one drops for policies and for conntrack.
            if is_full && on_node && drop.function.as_deref().is_none_or(|f| f == "nf_hook_slow") {
                // Without the function's name it may be a rule as well.
                let is_seen = drop.function.is_some();
                return Some(Explanation {
                    is_seen,
                    ..set(Reason::ConntrackTableFull, node, Setting::ConntrackFull)
                });
            }
            Some(firewall(evidence, failed, drop))
        }
        DropCause::ForwardingDisabled if on_node => {
            let forwards = settings.and_then(|s| match family {
                IpFamily::V4 => s.ipv4_forwarding,
                IpFamily::V6 => s.ipv6_forwarding,
            });
            Some(match (forwards, &drop.interface) {
                (Some(true), Some(interface)) => forwarding_of(node, interface, family),
                _ => set(
                    Reason::IPForwardingDisabled,
                    node,
                    Setting::NoForwarding(forwarding_sysctl(family)),
                ),
            })
        }
        DropCause::ReversePathFilter if on_node => {
            Some(set(Reason::ReversePathFiltering, node, Setting::ReversePath))
        }
        // Only a bridge that Pod and endpoint share carries the answer past the translation.
        DropCause::AnswerNotTranslated
            if failed.dial.path == DialPath::Service
                && failed.dial.same_bridge
                && drop.place == DropPlace::Client
                && !failed.from_host =>
        {
            bridge_netfilter(node, settings?).map(seen)
        }
        DropCause::TrafficControl => Some(traffic_control(evidence, failed, drop)),
        DropCause::NoRoute | DropCause::NeighbourFailed if on_node => no_way(failed, drop),
        _ => None,
    }
}

/// Whether a dial whose packets are dropped for this ends so.
fn leads_to(cause: DropCause, answer: Answer) -> bool {
    match answer {
        Answer::TimedOut => true,
        Answer::Unreachable => matches!(cause, DropCause::NoRoute | DropCause::NeighbourFailed),
        // Rules that reject drop as well, and what they answer says more.
        _ => false,
    }
}

fn seen(explanation: Explanation) -> Explanation {
    Explanation {
        is_seen: true,
        ..explanation
    }
}

fn set(reason: Reason, node: &str, setting: Setting) -> Explanation {
    Explanation {
        reason,
        node: node.to_owned(),
        setting,
        is_seen: true,
    }
}

fn said(reason: Reason, node: &str, sentence: String, remediation: String) -> Explanation {
    set(
        reason,
        node,
        Setting::Dropped {
            sentence,
            remediation,
        },
    )
}

fn forwarding_sysctl(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "net.ipv4.ip_forward",
        IpFamily::V6 => "net.ipv6.conf.all.forwarding",
    }
}

/// The kernel's own words: `NETFILTER_DROP in nft_do_chain, interface veth3a`.
fn kernel_says(drop: &PacketDrop) -> String {
    let function = drop.function.as_deref().map(|function| format!(" in {function}"));
    let interface = drop
        .interface
        .as_deref()
        .map(|name| format!(", interface {name}"));
    format!(
        "{}{}{}",
        drop.reason,
        function.unwrap_or_default(),
        interface.unwrap_or_default()
    )
}

/// Whose network it is: `node n1`, `Pod shop/web`.
fn whose(drop: &PacketDrop, node: &str, endpoint: Option<&Pod>) -> String {
    match (drop.place, drop.from.as_deref(), endpoint) {
        (DropPlace::Node, ..) => format!("node {node}"),
        (DropPlace::Client, Some(client), _) => format!("Pod {client}"),
        (DropPlace::Client, None, _) => "the client".to_owned(),
        (DropPlace::Endpoint, _, Some(pod)) => format!("Pod {}", key(pod)),
        (DropPlace::Endpoint, _, None) => "the endpoint's Pod".to_owned(),
    }
}

fn pod_behind<'a>(failed: &Failed<'a>) -> Option<&'a Pod> {
    failed.target.and_then(|target| target.pod)
}

fn firewall(evidence: &Evidence<'_>, failed: &Failed<'_>, drop: &PacketDrop) -> Explanation {
    let node = failed.node;
    let what = if drop.answers { "answers" } else { "packets" };
    let says = kernel_says(drop);
    let (sentence, remediation) = match drop.place {
        DropPlace::Node => (
            format!("A firewall on node {node} drops the {what} ({says})"),
            format!(
                "Find the rule or the policy on node {node}: `nft list ruleset` there (and `iptables-legacy-save`). The names of tables and chains hint at what wrote it (for example firewalld, ufw, Docker or the network plugin). \
                 Then have that firewall accept the packets of the Pod network."
            ),
        ),
        DropPlace::Client | DropPlace::Endpoint => {
            let whose = whose(drop, node, pod_behind(failed));
            let remediation = match pod_of(evidence, failed, drop) {
                Some((namespace, name)) => format!(
                    "Find out which of its containers writes firewall rules, for example an init container or a sidecar: `kubectl -n {} describe pod {}`.",
                    quoted(namespace),
                    quoted(name)
                ),
                None => "Find out which container of the Pod writes firewall rules.".to_owned(),
            };
            (
                format!("A firewall rule inside the network of {whose} itself drops the {what} ({says})"),
                remediation,
            )
        }
    };
    said(Reason::FirewallDrops, node, sentence, remediation)
}

/// Namespace and name of the Pod whose network dropped packets.
fn pod_of<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>, drop: &PacketDrop) -> Option<(&'a str, &'a str)> {
    let pod = match drop.place {
        DropPlace::Node => None,
        DropPlace::Client => evidence.ends.pod(failed.dial.from.as_deref()?),
        DropPlace::Endpoint => pod_behind(failed),
    }?;
    Some((pod.namespace(), pod.name()))
}

fn forwarding_of(node: &str, interface: &str, family: IpFamily) -> Explanation {
    let family = match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    };
    said(
        Reason::IPForwardingDisabled,
        node,
        format!(
            "IP forwarding is off for packets that come in by interface {interface} of node {node} (net.{family}.conf.{interface}.forwarding)"
        ),
        format!(
            "Find out on node {node} what turned forwarding off for that interface, for example a file in /etc/sysctl.d or the program that manages its network."
        ),
    )
}

fn traffic_control(evidence: &Evidence<'_>, failed: &Failed<'_>, drop: &PacketDrop) -> Explanation {
    let whose = whose(drop, failed.node, pod_behind(failed));
    let says = kernel_says(drop);
    let kinds = crate::policies::describe::other_kinds(evidence.facts);
    let policies = kinds.map_or_else(String::new, |kinds| {
        format!(" A policy of another kind ({kinds}) may be what it enforces; these are not evaluated.")
    });
    said(
        Reason::TimedOut,
        failed.node,
        format!("An eBPF program on {whose} drops the packets ({says})"),
        format!(
            "Find out on node {} whose program it is: `bpftool net` there. Network plugins such as Cilium and Calico enforce policies with such programs.{policies}",
            quoted(failed.node)
        ),
    )
}

fn no_way(failed: &Failed<'_>, drop: &PacketDrop) -> Option<Explanation> {
    let node = failed.node;
    let to = if drop.answers {
        "the client".to_owned()
    } else {
        let address = drop.endpoint.as_deref().unwrap_or(&drop.target);
        address.parse::<std::net::SocketAddr>().ok()?.ip().to_string()
    };
    let says = kernel_says(drop);
    let sentence = match drop.cause {
        DropCause::NoRoute => format!("Node {node} has no route to {to} ({says})"),
        _ => format!("Nobody on the links of node {node} answers for the address {to} ({says})"),
    };
    let check = match drop.answers {
        true => format!("Check the routes of node {node} to the client."),
        false => format!(
            "Check the route to {to} on node {}: `ip route get {to}`.",
            quoted(node)
        ),
    };
    Some(said(
        Reason::NoRouteToHost,
        node,
        sentence,
        format!(
            "{check} The network plugin writes the routes and links of Pods: check its Pod on that node."
        ),
    ))
}

/// A drop as an observation: `6 packets dropped by a firewall (NETFILTER_DROP in nft_do_chain, interface veth3a) on node n1`.
pub(crate) fn observed(drop: &PacketDrop, node: &str, endpoint: Option<&Pod>) -> String {
    let why = match drop.cause {
        DropCause::Firewall => "dropped by a firewall",
        DropCause::ForwardingDisabled => "dropped, as IP forwarding is off",
        DropCause::NoRoute => "dropped for want of a route",
        DropCause::ReversePathFilter => "dropped by reverse path filtering",
        DropCause::HairpinPortOff => "not sent back by the bridge port",
        DropCause::HairpinNotMasqueraded => "dropped, as they have the Pod's own address as their source",
        DropCause::AnswerNotTranslated => "refused, as they come from the endpoint's own address",
        DropCause::AcceptQueueFull => "dropped, as the accept queue is full",
        DropCause::TooBig => "dropped, as they are larger than the MTU",
        DropCause::TrafficControl => "dropped by an eBPF program",
        DropCause::NeighbourFailed => "dropped, as nobody answers for the address on the link",
    };
    let what = match (drop.answers, drop.packets) {
        (false, 1) => "1 packet".to_owned(),
        (false, n) => format!("{n} packets"),
        (true, 1) => "1 packet of the answer".to_owned(),
        (true, n) => format!("{n} packets of the answer"),
    };
    let at = match drop.place {
        DropPlace::Node => "on",
        DropPlace::Client | DropPlace::Endpoint => "in",
    };
    let whose = whose(drop, node, endpoint);
    format!("{what} {why} ({}) {at} {whose}", kernel_says(drop))
}
