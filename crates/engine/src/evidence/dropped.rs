//! Which packets that the kernel dropped explain a failure.
//!
//! A drop is of the very dial that failed, so it outranks every setting. It explains a failure and makes none: of dials
//! that were answered drops are not looked at.

use std::net::{IpAddr, SocketAddr};

use crate::evidence::{
    Evidence, arrivals,
    dials::Failed,
    dropped_text::{Dropped, DroppedBy, Filter, Source},
    droppers::{self, Droppers},
    explaining::{Explanation, bridge_netfilter, forwarding},
    lossy_settings::Setting,
    reports::Report,
    targets::{Target, key},
};
use svcdiag_api::{
    Answer, DialFailure, DialPath, DropCause, DropPlace, Hairpin, IpFamily, NodeFacts, PacketDrop, Protocol,
    Reason,
};
use svcdiag_objects::Pod;

/// The packets of a failed dial that its node dropped.
pub(crate) fn of<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> Vec<&'a PacketDrop> {
    let reports = evidence.reports.current.iter();
    let of_node = reports.filter(|r| r.node == failed.node);
    of_node.flat_map(|r| of_dial(r.facts, failed.dial)).collect()
}

/// The packets of a failed dial among those that its node reports.
pub(super) fn of_dial<'a>(
    facts: &'a NodeFacts,
    dial: &'a DialFailure,
) -> impl Iterator<Item = &'a PacketDrop> {
    let is_its = move |drop: &&PacketDrop| {
        let endpoint = drop.endpoint.as_deref();
        let is_that_way =
            endpoint.is_none() || dial.endpoint.is_none() || endpoint == dial.endpoint.as_deref();
        let is_same = drop.from == dial.from && drop.target == dial.target;
        is_same && dial.port.protocol == drop.protocol && is_that_way
    };
    facts.drops.iter().filter(is_its)
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
        // Pods dial themselves over TCP only.
        drop.from.as_ref() == Some(&hairpin.pod)
            && drop.protocol == Protocol::Tcp
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
                && failed.dial.port.protocol == drop.protocol
                && drop.endpoint.is_some()
                && drop.endpoint == failed.dial.endpoint
        })
}

/// Why the packets of a failed dial were dropped, if the kernel said it: that of the client's node, or else that of the
/// endpoint's node.
pub(super) fn explain(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<Explanation> {
    let first = |node: &str, drops: Vec<&PacketDrop>| {
        let explained = drops.into_iter().filter_map(|drop| {
            let explanation = of_drop(evidence, failed, node, drop)?;
            Some((std::cmp::Reverse(drop.packets), explanation))
        });
        explained.min().map(|(_, explanation)| explanation)
    };
    let arrival = arrivals::of(evidence, failed);
    let mut own = of(evidence, failed);
    own.retain(|drop| {
        let is_its = |arrival: &arrivals::Arrival<'_>| arrival.was_to_be_carried_by(drop);
        drop.carrier.is_none() || arrival.as_ref().is_some_and(is_its)
    });
    let is_unheard = own.iter().all(|drop| drop.cause == DropCause::NeighbourFailed);
    let there = || arrival.and_then(|arrival| first(arrival.node, arrival.drops));
    match first(failed.node, own) {
        // Whoever is asked through a tunnel whose packets are dropped does not answer either.
        Some(own) if is_unheard => Some(there().unwrap_or(own)),
        own => own.or_else(there),
    }
}

/// What packets of a dial that a node dropped mean.
fn of_drop(
    evidence: &Evidence<'_>,
    failed: &Failed<'_>,
    node: &str,
    drop: &PacketDrop,
) -> Option<Explanation> {
    if !leads_to(drop.cause, failed.answer) {
        return None;
    }
    let family = failed.family();
    let on_node = drop.place == DropPlace::Node;
    let settings = evidence.settings(node);
    match drop.cause {
        DropCause::Firewall => {
            let is_full = settings.is_some_and(|s| s.conntrack_full == Some(true));
            if is_full && may_be_of_conntrack(drop) {
                // A full table has room for one now and then.
                let is_probable = !evidence.passing.mostly_passed(node, failed.from_host);
                return is_probable.then(|| {
                    Explanation::probable(Reason::ConntrackTableFull, node, Setting::ConntrackFull)
                });
            }
            Some(firewall(evidence, failed, node, drop))
        }
        DropCause::ForwardingDisabled if on_node => {
            let (forwards, sysctl) = forwarding(settings, family);
            match (forwards, &drop.interface) {
                (Some(false), _) => {
                    let setting = Setting::NoForwarding(sysctl);
                    Some(Explanation::seen(Reason::IPForwardingDisabled, node, setting))
                }
                (_, Some(interface)) => Some(said(
                    Reason::IPForwardingDisabled,
                    node,
                    drop,
                    DroppedBy::Interface(interface.clone(), forwarding_of(interface, family)),
                )),
                (_, None) => None,
            }
        }
        DropCause::ReversePathFilter if on_node => {
            let setting = Setting::ReversePath;
            Some(Explanation::seen(Reason::ReversePathFiltering, node, setting))
        }
        // Only a bridge that Pod and endpoint share carries the answer past the translation.
        DropCause::AnswerNotTranslated
            if failed.dial.path == DialPath::Service
                && failed.dial.same_bridge
                && drop.place == DropPlace::Client
                && !failed.from_host =>
        {
            bridge_netfilter(settings?)
                .map(|setting| Explanation::seen(Reason::BridgeNetfilterDisabled, node, setting))
        }
        DropCause::BadChecksum => Some(checksum(evidence, failed, node, drop)),
        DropCause::TrafficControl => Some(traffic_control(evidence, failed, node, drop)),
        DropCause::NoRoute | DropCause::NeighbourFailed if on_node => no_way(evidence, failed, node, drop),
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

/// Whether it may have been conntrack. Rules of nftables have functions of their own; this one drops for conntrack, and
/// for rules of iptables-legacy as well.
pub(crate) fn may_be_of_conntrack(drop: &PacketDrop) -> bool {
    drop.cause == DropCause::Firewall
        && drop.place == DropPlace::Node
        && drop.function.as_deref().is_none_or(|f| f == "nf_hook_slow")
}

fn said(reason: Reason, node: &str, drop: &PacketDrop, by: DroppedBy) -> Explanation {
    let dropped = Dropped {
        by,
        answers: drop.answers,
        carrier: drop.carrier.as_ref().map(arrivals::carrier),
        says: kernel_says(drop),
    };
    Explanation::seen(reason, node, Setting::Dropped(dropped))
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

/// Where it was: `on node n1`, `in Pod shop/web`.
fn place(drop: &PacketDrop, node: &str, endpoint: Option<&Pod>) -> String {
    match (drop.place, drop.from.as_deref(), endpoint) {
        (DropPlace::Node, ..) => format!("on node {node}"),
        (DropPlace::Client, Some(client), _) => format!("in Pod {client}"),
        (DropPlace::Client, None, _) => "in the client".to_owned(),
        (DropPlace::Endpoint, _, Some(pod)) => format!("in Pod {}", key(pod)),
        (DropPlace::Endpoint, _, None) => "in the endpoint's Pod".to_owned(),
    }
}

/// The endpoint that packets were for: what the drop says, where the dial does not.
fn target<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>, drop: &PacketDrop) -> Option<Target<'a>> {
    let of_drop = || {
        let endpoint = drop.endpoint.as_deref()?.parse().ok()?;
        evidence.ends.targets.get(&endpoint).copied()
    };
    failed.target.or_else(of_drop)
}

fn pod_behind<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>, drop: &PacketDrop) -> Option<&'a Pod> {
    target(evidence, failed, drop).and_then(|target| target.pod)
}

/// Whether the kernel named a function of nftables.
pub(crate) fn is_of_nftables(drop: &PacketDrop) -> bool {
    drop.function.as_deref().is_some_and(|f| f.starts_with("nft_"))
}

fn firewall(evidence: &Evidence<'_>, failed: &Failed<'_>, node: &str, drop: &PacketDrop) -> Explanation {
    let by = match drop.place {
        DropPlace::Node => DroppedBy::Firewall {
            is_nftables: is_of_nftables(drop),
            rules: Droppers::of(drop),
        },
        place => DroppedBy::FirewallOfPods(place, Droppers::of(drop)),
    };
    let pod = match drop.place {
        DropPlace::Node => None,
        DropPlace::Client => failed
            .dial
            .from
            .as_deref()
            .and_then(|from| evidence.ends.pod(from)),
        DropPlace::Endpoint => pod_behind(evidence, failed, drop),
    };
    Explanation {
        of: pod.map(key),
        ..said(Reason::FirewallDrops, node, drop, by)
    }
}

/// The sysctl of one interface. A dot in its name would begin another part of the sysctl's.
fn forwarding_of(interface: &str, family: IpFamily) -> String {
    let interface = interface.replace('.', "/");
    match family {
        IpFamily::V4 => format!("net.ipv4.conf.{interface}.forwarding"),
        IpFamily::V6 => format!("net.ipv6.conf.{interface}.forwarding"),
    }
}

fn traffic_control(
    evidence: &Evidence<'_>,
    failed: &Failed<'_>,
    node: &str,
    drop: &PacketDrop,
) -> Explanation {
    let whose = place(drop, node, pod_behind(evidence, failed, drop));
    let policies = crate::policies::describe::other_kinds(evidence.facts);
    let filter = Filter::of(drop, whose, policies);
    said(Reason::TimedOut, node, drop, DroppedBy::Filter(filter))
}

fn checksum(evidence: &Evidence<'_>, failed: &Failed<'_>, node: &str, drop: &PacketDrop) -> Explanation {
    let by = DroppedBy::Checksum {
        place: place(drop, node, pod_behind(evidence, failed, drop)),
        // Answers come from the endpoint's node.
        sender: match (drop.answers, target(evidence, failed, drop).and_then(|t| t.node)) {
            (true, Some(home)) => Some(home.to_owned()),
            (true, None) => None,
            (false, _) => Some(failed.node.to_owned()),
        },
    };
    said(Reason::TimedOut, node, drop, by)
}

fn no_way(
    evidence: &Evidence<'_>,
    failed: &Failed<'_>,
    node: &str,
    drop: &PacketDrop,
) -> Option<Explanation> {
    let family = failed.family();
    let client = evidence.ends.pod(failed.dial.from.as_deref().unwrap_or_default());
    let client = client.filter(|_| !failed.from_host).and_then(|pod| {
        let mut ips = pod.ips().filter_map(|ip| ip.parse::<IpAddr>().ok());
        ips.find(|ip| IpFamily::of(*ip) == family)
    });
    let dialled = drop.endpoint.as_deref().unwrap_or(&drop.target);
    let dialled = Some(dialled.parse::<SocketAddr>().ok()?.ip());
    let (from, to) = match (&drop.carrier, drop.answers) {
        (Some(carrier), _) => (None, carrier.to.parse().ok()),
        (None, true) => (dialled, client),
        (None, false) => (client, dialled),
    };
    // What a node routes that has come in was on its way through.
    let is_forwarded = drop.reason == "IP_INNOROUTES" && !failed.from_host;
    let came = drop.interface.as_ref().zip(from.zip(to)).filter(|_| is_forwarded);
    let from = came.map(|(interface, (address, to))| Source {
        to: to.to_string(),
        node: node.to_owned(),
        address: address.to_string(),
        interface: interface.clone(),
    });
    let is_of_pods_here = match drop.answers {
        true => node == failed.node,
        false => target(evidence, failed, drop).and_then(|t| t.node) == Some(node),
    };
    let by = match drop.cause {
        DropCause::NoRoute => DroppedBy::NoRoute(node.to_owned()),
        _ => DroppedBy::Neighbour {
            // The clients and endpoints of the node's own Pods are on its links.
            is_next_hop: !is_of_pods_here,
            node: node.to_owned(),
        },
    };
    Some(Explanation {
        of: to.map(|to| to.to_string()),
        from,
        ..said(Reason::NoRouteToHost, node, drop, by)
    })
}

/// A drop as an observation: `6 packets dropped by a firewall (NETFILTER_DROP in nft_do_chain, interface veth3a) on node n1`.
pub(crate) fn observed(drop: &PacketDrop, node: &str, endpoint: Option<&Pod>) -> String {
    let rule = droppers::observed(drop).map(|rule| format!("dropped by {rule}"));
    let why = match drop.cause {
        DropCause::Firewall if rule.is_some() => rule.as_deref().unwrap_or_default(),
        DropCause::Firewall if is_of_nftables(drop) => "dropped by a firewall",
        // Conntrack drops there as well.
        DropCause::Firewall => "dropped by netfilter",
        DropCause::ForwardingDisabled => "dropped, as IP forwarding is off",
        DropCause::NoRoute => "dropped for want of a route",
        DropCause::ReversePathFilter => "dropped by reverse path filtering",
        DropCause::HairpinPortOff => "not sent back by the bridge port",
        DropCause::HairpinNotMasqueraded => "dropped, as they have the Pod's own address as their source",
        DropCause::AnswerNotTranslated => "refused, as they come from the endpoint's own address",
        DropCause::AcceptQueueFull => "dropped, as the accept queue is full",
        DropCause::BadChecksum => "dropped, as their checksum is wrong",
        DropCause::TooBig => "dropped, as they are larger than the MTU",
        DropCause::TrafficControl if drop.reason.starts_with("TC_") => "dropped by a tc filter",
        DropCause::TrafficControl => "dropped by an eBPF program",
        DropCause::NeighbourFailed => "dropped, as nobody on the link answers for the next hop",
    };
    let tunnel = drop.carrier.as_ref().map(arrivals::carrier);
    let what = match (drop.answers, drop.packets) {
        (_, n) if tunnel.is_some() => {
            format!(
                "{n} packets of the tunnel ({})",
                tunnel.as_deref().unwrap_or_default()
            )
        }
        (false, 1) => "1 packet".to_owned(),
        (false, n) => format!("{n} packets"),
        (true, 1) => "1 packet of the answer".to_owned(),
        (true, n) => format!("{n} packets of the answer"),
    };
    let place = place(drop, node, endpoint);
    format!("{what} {why} ({}) {place}", kernel_says(drop))
}
