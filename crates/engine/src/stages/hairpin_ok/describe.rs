//! What is said of Pods that do not reach themselves, and what to do on their nodes.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    Finding,
    dialling::describe,
    evidence::{
        dropped, dropped_text,
        droppers::{self, Droppers},
        lossy_settings::{self, Places, Setting},
        proxies,
        reports::Report,
    },
    stages::hairpin_ok::{HairpinDial, killer},
    text::{self, SHOWN, quoted},
};
use svcdiag_api::{Answer, DropCause, DropPlace, PacketDrop, Reason};

pub(super) fn build(reason: Reason, dials: &[HairpinDial<'_>]) -> Finding {
    let seen: Vec<String> = dials.iter().map(HairpinDial::describe).collect();
    let seen = text::list(&seen);
    let is_one = dials.len() == 1;
    let who = match is_one {
        true => "a Pod does not reach itself",
        false => "Pods do not reach themselves",
    };
    let is_seen = dials.iter().all(|dial| killer(*dial).is_some());
    let so = if is_seen { "so" } else { "which is probably why" };
    let (mut message, remediation) = match reason {
        Reason::HairpinModeDisabled => (
            format!(
                "Bridge ports do not send packets back to the Pod they came from (hairpin_mode is 0), {so} {who} through the Service. {seen}."
            ),
            enable_on_ports(dials),
        ),
        Reason::MasqueradeMissing => (
            format!(
                "kube-proxy's rules do not masquerade packets that a Pod sends to itself through the Service: they arrive with the Pod's own address as their source, {}. {seen}.",
                match is_seen {
                    true => "and the Pod drops them".to_owned(),
                    false => format!("which is probably why {who}"),
                }
            ),
            rewrite(dials),
        ),
        Reason::HairpinRefused => (
            format!("A Pod's connection to itself through the Service is refused. {seen}."),
            of_first(dials, |dial, ip| match killer(*dial) {
                Some(drop) if drop.cause == DropCause::Firewall && drop.place != DropPlace::Node => {
                    firewall(dial, drop)
                }
                _ => format!(
                    "On node {}, look for a rule that rejects packets from Pod {} to {ip} or to the Pod's own address: `nft list ruleset` (and `iptables-legacy-save`).",
                    dial.report.node,
                    with_address(dial)
                ),
            }),
        ),
        _ => (
            format!("{} through the Service. {seen}.", text::capitalized(who)),
            of_first(dials, |dial, ip| match killer(*dial) {
                Some(drop) if is_table_full(dial) && dropped::may_be_of_conntrack(drop) => format!(
                    "{} If the table has room, {}",
                    make_room(dial.report.node),
                    text::uncapitalized(&firewall(dial, drop))
                ),
                Some(drop) if drop.cause == DropCause::Firewall => firewall(dial, drop),
                _ => format!(
                    "Find out what drops packets from Pod {} to itself on node {}: `nft list ruleset` there (and `iptables-legacy-save`), or `tcpdump -ni any host {ip}` while it connects.",
                    dial.hairpin.pod, dial.report.node
                ),
            }),
        ),
    };
    message.push_str(&full_tables(dials));
    Finding::part_fails(reason, message, remediation)
}

fn is_table_full(dial: &HairpinDial<'_>) -> bool {
    dial.report.facts.settings.conntrack_full == Some(true)
}

fn make_room(node: &str) -> String {
    let places = Places {
        nodes: BTreeSet::from([node]),
        ..Places::default()
    };
    lossy_settings::remediation(&[(&Setting::ConntrackFull, places)])
}

/// That the table of tracked connections was full where packets were lost, unless somebody saw something else drop them.
fn full_tables(dials: &[HairpinDial<'_>]) -> String {
    let lost = dials.iter().filter(|dial| {
        let is_lost = dial.hairpin.answer == Some(Answer::TimedOut);
        is_lost && is_table_full(dial) && killer(**dial).is_none_or(dropped::may_be_of_conntrack)
    });
    let nodes: BTreeSet<&str> = lost.map(|dial| dial.report.node).collect();
    match nodes.is_empty() {
        true => String::new(),
        false => format!(
            " {}, so packets may be lost there.",
            lossy_settings::full_tables(&nodes)
        ),
    }
}

impl HairpinDial<'_> {
    fn describe(&self) -> String {
        let answer = self.hairpin.answer.map_or("no answer", describe::result);
        let dropped = killer(*self).map_or_else(String::new, |drop| {
            format!("; {}", dropped::observed(drop, self.report.node, None))
        });
        format!(
            "Pod {} on node {} dialled itself at {}: {answer}{dropped}",
            self.hairpin.pod, self.report.node, self.hairpin.target
        )
    }
}

/// The Pod that dialled itself: `shop/web (10.244.2.6)`.
fn with_address(dial: &HairpinDial<'_>) -> String {
    let pod = &dial.hairpin.pod;
    let own = dial.pod.and_then(|pod| pod.ips().next());
    own.map_or_else(|| pod.clone(), |own| format!("{pod} ({own})"))
}

/// What to do about a firewall that drops a Pod's packets to itself.
fn firewall(dial: &HairpinDial<'_>, drop: &PacketDrop) -> String {
    if drop.place != DropPlace::Node {
        return dropped_text::firewall_of_pods(&Places {
            of: BTreeSet::from([dial.hairpin.pod.as_str()]),
            ..Places::default()
        });
    }
    let on = format!("node {}", dial.report.node);
    if let Some(of_rule) = Droppers::of(drop).remediation(&on, droppers::OF_PODS) {
        return of_rule;
    }
    let legacy = match dropped::is_of_nftables(drop) {
        true => "",
        false => " (and `iptables-legacy-save`)",
    };
    format!(
        "Find the rule or chain policy on node {} that drops packets from Pod {} to itself: `nft list ruleset` there{legacy}. Then have that firewall accept them.",
        dial.report.node,
        with_address(dial)
    )
}

/// What to look at for the first dial; it is given the address that the Pod dialled.
fn of_first(dials: &[HairpinDial<'_>], describe: impl Fn(&HairpinDial<'_>, &str) -> String) -> String {
    dials.first().map_or_else(String::new, |dial| {
        let target = &dial.hairpin.target;
        let ip = target
            .parse::<SocketAddr>()
            .map_or_else(|_| quoted(target), |a| a.ip().to_string());
        describe(dial, &ip)
    })
}

/// A command for the port of each Pod.
fn enable_on_ports(dials: &[HairpinDial<'_>]) -> String {
    let each = dials.iter().take(SHOWN).map(|dial| {
        let dropped = killer(*dial).filter(|drop| drop.cause == DropCause::HairpinPortOff);
        let port = dropped.and_then(|drop| drop.interface.as_deref());
        let command = match port.or(dial.hairpin.bridge_port.as_deref()) {
            Some(port) => format!("`bridge link set dev {} hairpin on`", quoted(port)),
            None => "`bridge -d link` shows the ports that have \"hairpin off\"".to_owned(),
        };
        let whose = match dials {
            [_] => "the Pod's bridge port".to_owned(),
            _ => format!("the bridge port of Pod {}", dial.hairpin.pod),
        };
        format!(
            "Enable hairpin mode on {whose} on node {}: {command}.",
            dial.report.node
        )
    });
    let each: Vec<String> = each.collect();
    format!(
        "{} For future Pods, set hairpinMode to true in the configuration of the bridge plugin in /etc/cni/net.d.",
        each.join(" ")
    )
}

/// How rules that masquerade are written again on the nodes.
fn rewrite(dials: &[HairpinDial<'_>]) -> String {
    let mut reports: Vec<&Report<'_>> = dials.iter().map(|d| d.report).collect();
    reports.dedup_by_key(|r| r.node);
    proxies::for_each_way_to_run(&reports, |first, others| {
        format!(
            "On node {}, look for what removes the masquerading rule or precedes it: `nft list ruleset`. Then, to have the rules rewritten, {}.{others}",
            first.node,
            proxies::restart(first)
        )
    })
}
