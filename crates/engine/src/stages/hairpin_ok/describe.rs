//! What is said of Pods that do not reach themselves, and what to do on their nodes.

use std::net::SocketAddr;

use crate::{
    Finding,
    dialling::describe,
    evidence::{Evidence, dropped, proxies, reports::Report},
    stages::hairpin_ok::{HairpinDial, killer},
    text::{self, SHOWN, quoted},
};
use svcdiag_api::{DropCause, Reason};

pub(super) fn build(evidence: &Evidence<'_>, reason: Reason, dials: &[HairpinDial<'_>]) -> Finding {
    let seen: Vec<String> = dials.iter().map(HairpinDial::describe).collect();
    let seen = text::list(&seen);
    let is_one = dials.len() == 1;
    let so = match dials.iter().all(|dial| killer(*dial).is_some()) {
        true => "so",
        false => "which is probably why",
    };
    let (message, remediation) = match reason {
        Reason::HairpinModeDisabled => (
            format!(
                "Bridge ports do not send packets back to the Pod they came from (hairpin_mode is 0), {so} {} through the Service. {seen}.",
                if is_one {
                    "a Pod does not reach itself"
                } else {
                    "Pods do not reach themselves"
                }
            ),
            enable_on_ports(dials),
        ),
        Reason::MasqueradeMissing => (
            format!(
                "kube-proxy's rules do not masquerade packets that a Pod sends to itself through the Service, so the packets arrive with the Pod's own address as their source, {so} {} through the Service. {seen}.",
                if is_one {
                    "a Pod does not reach itself"
                } else {
                    "Pods do not reach themselves"
                }
            ),
            rewrite(dials),
        ),
        Reason::HairpinRefused => (
            format!("A Pod's connection to itself through the Service is refused. {seen}."),
            of_first(dials, |dial, ip| {
                let (pod, node) = (&dial.hairpin.pod, dial.report.node);
                let own = evidence.ends.pod(pod).and_then(|pod| pod.ips().next());
                let own = own.map_or_else(String::new, |own| format!(" ({own})"));
                format!(
                    "On node {node}, look for a rule that rejects packets from Pod {pod}{own} to {ip} or to the Pod's own address: `nft list ruleset` (and `iptables-legacy-save`)."
                )
            }),
        ),
        _ => (
            format!(
                "{} through the Service. {seen}.",
                if is_one {
                    "A Pod does not reach itself"
                } else {
                    "Pods do not reach themselves"
                }
            ),
            of_first(dials, |dial, ip| {
                format!(
                    "Find out what drops packets from Pod {} to itself on node {}: `nft list ruleset` there (and `iptables-legacy-save`), or `tcpdump -ni any host {ip}` while it connects.",
                    dial.hairpin.pod, dial.report.node
                )
            }),
        ),
    };
    Finding::part_fails(reason, message, remediation)
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
