//! Can a Pod reach itself through the Service?

mod setup;

use crate::{
    Finding, applicable,
    dialling::describe,
    evidence::{Evidence, proxies, reports::Report, targets},
    text::{self, quoted},
};
use svcdiag_api::{Answer, ConditionType, Hairpin, Reason};

const WHAT: &str = "No Pod dialled itself through the Service";

/// A Pod's way to itself, on its node.
type Look<'a> = (&'a Report<'a>, &'a Hairpin);

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if facts.service.as_deref().is_some_and(|s| !s.has_selector()) {
        return Finding::not_applicable("The Service selects no Pods.");
    }
    if let Some(finding) = applicable::not_proxied(facts) {
        return finding;
    }
    let reports = &evidence.reports;
    if let Some(finding) = reports.nobody(WHAT) {
        return finding;
    }
    if evidence.service.is_none() {
        return Finding::not_applicable("There is no Service.");
    }
    if let Some(why) = cannot_happen(evidence) {
        return Finding::not_applicable(why);
    }
    if let Some(finding) = setup::judge(evidence) {
        return finding;
    }
    let all: Vec<Look> = reports
        .current
        .iter()
        .flat_map(|r| r.facts.hairpins.iter().map(move |h| (r, h)))
        .filter(|(_, h)| !evidence.ends.has_sidecar(&h.pod))
        .collect();
    let mut looks: Vec<Look> = all
        .iter()
        .copied()
        .filter(|(_, h)| is_of_today(evidence, h))
        .collect();
    looks.sort_by_cached_key(|(report, h)| (report.node, h.pod.clone(), format!("{h:?}")));
    let faults: Vec<(Reason, Look)> = looks
        .iter()
        .filter_map(|look| Some((fault(look.1)?, *look)))
        .collect();
    // What no setting explains may be a policy's doing, be it one that nobody could read: the packets
    // come from the node's address.
    let unread = facts.why_unreadable("networkpolicies");
    let (faults, by_policy): (Vec<_>, Vec<_>) = faults.into_iter().partition(|(reason, (_, hairpin))| {
        matches!(reason, Reason::HairpinModeDisabled | Reason::MasqueradeMissing)
            || !crate::policies::effects::may_be_closed_to_nodes(facts, evidence.ends.pod(&hairpin.pod))
    });
    for &reason in ConditionType::HairpinOK.faults() {
        let of: Vec<Look> = faults
            .iter()
            .filter(|(r, _)| *r == reason)
            .map(|(_, l)| *l)
            .collect();
        if of.is_empty() {
            continue;
        }
        // What no setting explains may be part of something that other nodes are about to tell.
        let is_explained = matches!(reason, Reason::HairpinModeDisabled | Reason::MasqueradeMissing);
        if !is_explained && !reports.waiting.is_empty() {
            break;
        }
        return build(evidence, reason, &of);
    }
    if looks.len() < all.len() && looks.is_empty() {
        return Finding::unknown(
            Reason::Pending,
            "The Pods that dialled themselves are no longer endpoints. Waiting for the next round of the agents.",
        );
    }
    if let Some(finding) = reports.incomplete() {
        return finding;
    }
    if let Some(why) = unread.filter(|_| !by_policy.is_empty()) {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "Pods did not reach themselves. NetworkPolicies could not be read, so one may be blocking their nodes: {why}."
            ),
        );
    }
    if !by_policy.is_empty() {
        return Finding::not_applicable(
            "A policy may isolate the Pods: their packets to themselves come from the node's address, which the policy may block.",
        );
    }
    let works = looks
        .iter()
        .filter(|(_, h)| h.answer == Some(Answer::Accepted))
        .count();
    if works > 0 {
        return Finding::yes(
            Reason::HairpinWorks,
            match works {
                1 => "1 Pod reached itself through the Service.".to_owned(),
                _ => format!("{works} Pods reached themselves through the Service."),
            },
        );
    }
    let is_configured = |h: &Hairpin| h.masqueraded == Some(true) && h.hairpin_mode != Some(false);
    if !looks.is_empty() && looks.iter().all(|(_, h)| is_configured(h)) {
        return Finding::yes(
            Reason::HairpinConfigured,
            match looks.iter().all(|(_, h)| h.hairpin_mode == Some(true)) {
                true => {
                    "The bridge ports send packets back (hairpin mode) and the rules masquerade them. No dial happened to come back to its own Pod."
                }
                false => {
                    "The rules masquerade packets that a Pod sends to itself, and no bridge port keeps them from coming back. No dial happened to come back to its own Pod."
                }
            },
        );
    }
    unseen(evidence, !all.is_empty())
}

/// Why nothing was seen of the Pods' ways to themselves.
fn unseen(evidence: &Evidence<'_>, was_tried: bool) -> Finding {
    let reports = &evidence.reports;
    if evidence.from_clients.is_intercepted {
        return Finding::not_applicable(
            "A proxy next to the Pods (service mesh) intercepts their connections.",
        );
    }
    let perhaps = reports.current.iter().filter_map(|r| Some((r, r.saved?)));
    let perhaps = perhaps.flat_map(|(r, s)| s.perhaps_itself.iter().map(move |said| (r.node, said)));
    if let Some((node, said)) = perhaps.min() {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "On node {node} {said}. Those that came back to the Pod itself may be the ones that were lost. For that case bridge ports must send packets back (hairpin_mode 1: `bridge -d link` there), and the rules must masquerade them."
            ),
        );
    }
    let asked = reports.current.iter().any(|r| !r.asked.endpoints.is_empty());
    if !asked {
        // Who types asks nobody for a Pod's way to itself.
        let why = match reports.current.iter().all(|r| r.saved.is_some()) {
            true => "the files contain no such dial",
            false => "no endpoint is on a probed node",
        };
        return Finding::unknown(Reason::NoVantagePoint, format!("{WHAT}: {why}."));
    }
    let why = match reports.problem(ConditionType::HairpinOK) {
        Some(problem) => format!("{WHAT}. {problem}"),
        None if was_tried => {
            "No dial of a Pod came back to that Pod, and its bridge port and rules are inconclusive."
                .to_owned()
        }
        None => format!("{WHAT}."),
    };
    Finding::unknown(Reason::ProbeFailed, why)
}

/// Why no Pod can meet itself, or nobody could see it, if so.
fn cannot_happen(evidence: &Evidence<'_>) -> Option<&'static str> {
    let facts = evidence.facts;
    let service = facts.service.as_deref()?;
    if !service.spec.ports.iter().any(|p| p.protocol() == "TCP") {
        return Some("The Service has no TCP port, and only TCP shows whether a Pod has reached itself.");
    }
    let targets = &evidence.ends.targets;
    if !targets.is_empty() && targets.values().all(|t| t.is_host_network()) {
        return Some(
            "The Pods use the host network, where no packet has to be sent back through a bridge port.",
        );
    }
    let own_pods = targets.values().filter_map(|t| t.pod).map(targets::key);
    let own_pods: Vec<String> = own_pods.collect();
    (!own_pods.is_empty() && own_pods.iter().all(|key| evidence.ends.has_sidecar(key)))
        .then_some("A proxy next to the Pods (service mesh) intercepts their connections.")
}

/// Whether the Pod is still an endpoint, and the address the Service's.
fn is_of_today(evidence: &Evidence<'_>, hairpin: &Hairpin) -> bool {
    let facts = evidence.facts;
    let is_endpoint = evidence
        .ends
        .targets
        .values()
        .any(|t| t.pod.is_some_and(|pod| targets::key(pod) == hairpin.pod));
    let target = hairpin.target.parse::<std::net::SocketAddr>();
    let is_address = facts
        .service
        .as_deref()
        .zip(target.ok())
        .is_some_and(|(service, target)| targets::is_address_of(service, target.ip()));
    is_endpoint && is_address
}

/// Why a Pod does not reach itself. Bridge port and rules only explain what the dial has shown.
fn fault(hairpin: &Hairpin) -> Option<Reason> {
    match hairpin.answer? {
        // Whoever takes the connection was met, whatever it says.
        Answer::Accepted | Answer::Reset | Answer::NoAnswer | Answer::Unexpected => None,
        Answer::TimedOut | Answer::Unreachable if hairpin.hairpin_mode == Some(false) => {
            Some(Reason::HairpinModeDisabled)
        }
        Answer::TimedOut | Answer::Unreachable if hairpin.masqueraded == Some(false) => {
            Some(Reason::MasqueradeMissing)
        }
        Answer::Refused | Answer::Rejected => Some(Reason::HairpinRefused),
        Answer::TimedOut | Answer::Unreachable => Some(Reason::HairpinTimedOut),
    }
}

fn build(evidence: &Evidence<'_>, reason: Reason, looks: &[Look<'_>]) -> Finding {
    let each: Vec<String> = looks
        .iter()
        .map(|(report, h)| {
            let answer = h.answer.map_or("no answer", describe::result);
            format!(
                "Pod {} on node {} dialled itself at {}: {answer}",
                h.pod, report.node, h.target
            )
        })
        .collect();
    let seen = text::list(&each);
    let (node, port, target, pod) = looks.first().map_or(("", None, "", ""), |(report, h)| {
        (
            report.node,
            h.bridge_port.as_deref(),
            h.target.as_str(),
            h.pod.as_str(),
        )
    });
    let ip = target
        .parse::<std::net::SocketAddr>()
        .map_or_else(|_| quoted(target), |a| a.ip().to_string());
    let own = evidence.ends.pod(pod).and_then(|pod| pod.ips().next());
    let own = own.map_or_else(String::new, |own| format!(" ({own})"));
    let (message, remediation) = match reason {
        Reason::HairpinModeDisabled => {
            let command = match port {
                Some(port) => format!("`bridge link set dev {} hairpin on`", quoted(port)),
                None => "`bridge -d link` shows the ports that have \"hairpin off\"".to_owned(),
            };
            (
                format!(
                    "Bridge ports do not send packets back to the Pod they came from (hairpin_mode is 0), so {} through the Service. {seen}.",
                    if looks.len() == 1 {
                        "a Pod does not reach itself"
                    } else {
                        "Pods do not reach themselves"
                    }
                ),
                format!(
                    "Enable hairpin mode on the Pod's bridge port on node {node}: {command}. For future Pods, set hairpinMode to true in the configuration of the bridge plugin in /etc/cni/net.d."
                ),
            )
        }
        Reason::MasqueradeMissing => (
            format!(
                "kube-proxy's rules do not masquerade packets that a Pod sends to itself through the Service, so the packets arrive with the Pod's own address as their source. {seen}."
            ),
            format!(
                "On node {node}, look for what removes the masquerading rule or precedes it: `nft list ruleset`. Then, to have the rules rewritten, {}.",
                looks
                    .first()
                    .map_or_else(String::new, |(report, _)| proxies::restart(report))
            ),
        ),
        Reason::HairpinRefused => (
            format!("A Pod's connection to itself through the Service is refused. {seen}."),
            format!(
                "On node {node}, look for a rule that rejects packets from Pod {pod}{own} to {ip} or to the Pod's own address: `nft list ruleset` (and `iptables-legacy-save`)."
            ),
        ),
        _ => (
            format!(
                "{} through the Service. {seen}.",
                if looks.len() == 1 {
                    "A Pod does not reach itself"
                } else {
                    "Pods do not reach themselves"
                }
            ),
            format!(
                "Find out what drops packets from Pod {pod} to itself on node {node}: `nft list ruleset` there (and `iptables-legacy-save`), or `tcpdump -ni any host {ip}` while it connects."
            ),
        ),
    };
    Finding::part_fails(reason, message, remediation)
}
