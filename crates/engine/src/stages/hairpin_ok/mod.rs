//! Can a Pod reach itself through the Service?

mod describe;
mod setup;

use crate::{
    Finding,
    evidence::{Evidence, dropped, reports::Report, targets},
    policies::effects,
    stages::checks::{Check, no_service, not_proxied},
};
use svcdiag_api::{Answer, ConditionType, DropCause, Hairpin, PacketDrop, Reason};
use svcdiag_objects::{Pod, Protocol};

const WHAT: &str = "No Pod dialled itself through the Service";

/// Whether the question arises, and what saved settings of kubelets say of it.
const APPLIES: [Check; 6] = [
    no_pods_are_selected,
    not_proxied,
    nobody_looked,
    no_service,
    cannot_happen,
    setup::judge,
];

/// What the Pods' dials to themselves say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 7] = [
    pods_do_not_reach_themselves,
    endpoints_have_changed,
    reports_are_missing,
    policies_are_unread,
    policies_may_block,
    pods_reach_themselves,
    bridges_and_rules_are_set_up,
];

/// A dial of a Pod to itself, with the report of its node.
#[derive(Clone, Copy)]
struct HairpinDial<'a> {
    report: &'a Report<'a>,
    hairpin: &'a Hairpin,
    pod: Option<&'a Pod>,
}

/// What the Pods' dials to themselves say.
struct Survey<'a> {
    evidence: &'a Evidence<'a>,
    /// Whether there were any, be it of Pods that are no longer endpoints.
    was_tried: bool,
    /// Those of today's endpoints.
    dials: Vec<HairpinDial<'a>>,
    /// Those that failed.
    faults: Vec<(Reason, HairpinDial<'a>)>,
    /// Whether some failed that a policy may have blocked.
    may_be_policy: bool,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let survey = Survey::of(evidence);
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| unseen(&survey))
}

fn no_pods_are_selected(evidence: &Evidence<'_>) -> Option<Finding> {
    let has_none = evidence.service.is_some_and(|s| !s.has_selector());
    has_none.then(|| Finding::not_applicable("The Service selects no Pods."))
}

fn nobody_looked(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.reports.nobody(WHAT)
}

fn cannot_happen(evidence: &Evidence<'_>) -> Option<Finding> {
    why_never(evidence).map(Finding::not_applicable)
}

/// Whether a setting of bridge or rules explains a failure.
fn is_explained(reason: Reason) -> bool {
    matches!(reason, Reason::HairpinModeDisabled | Reason::MasqueradeMissing)
}

impl<'a> Survey<'a> {
    fn of(evidence: &'a Evidence<'a>) -> Self {
        let all = evidence.reports.current.iter().flat_map(|report| {
            let hairpins = report.facts.hairpins.iter();
            hairpins.map(move |hairpin| HairpinDial {
                report,
                hairpin,
                pod: evidence.ends.pod(&hairpin.pod),
            })
        });
        let all: Vec<HairpinDial<'_>> = all
            .filter(|d| !evidence.ends.has_sidecar(&d.hairpin.pod))
            .collect();
        let of_today = all.iter().copied().filter(|d| is_of_today(evidence, d.hairpin));
        let mut dials: Vec<HairpinDial<'_>> = of_today.collect();
        dials.sort_by_cached_key(|d| (d.report.node, d.hairpin.pod.clone(), format!("{:?}", d.hairpin)));
        let faults = dials.iter().filter_map(|d| Some((fault(*d)?, *d)));
        // What no setting explains may be a policy's doing, be it one that nobody could read: the packets
        // come from the node's address.
        let is_of_policy = |(reason, dial): &(Reason, HairpinDial<'_>)| {
            let pod = evidence.ends.pod(&dial.hairpin.pod);
            !is_explained(*reason) && effects::may_be_closed_to_nodes(evidence.facts, pod)
        };
        let (by_policy, faults): (Vec<_>, Vec<_>) = faults.partition(is_of_policy);
        Self {
            evidence,
            was_tried: !all.is_empty(),
            dials,
            faults,
            may_be_policy: !by_policy.is_empty(),
        }
    }
}

/// The first fault in the order of the table, with all Pods that have it. What no setting explains may be part of
/// something that other nodes are about to report.
fn pods_do_not_reach_themselves(survey: &Survey<'_>) -> Option<Finding> {
    let of = |reason: Reason| -> Vec<HairpinDial<'_>> {
        let faults = survey.faults.iter();
        faults.filter(|(r, _)| *r == reason).map(|(_, d)| *d).collect()
    };
    let mut order = ConditionType::HairpinOK.faults().iter().copied();
    let reason = order.find(|reason| !of(*reason).is_empty())?;
    let is_certain = is_explained(reason) || survey.evidence.reports.waiting.is_empty();
    is_certain.then(|| describe::build(reason, &of(reason)))
}

fn endpoints_have_changed(survey: &Survey<'_>) -> Option<Finding> {
    let are_all_gone = survey.was_tried && survey.dials.is_empty();
    are_all_gone.then(|| {
        Finding::unknown(
            Reason::Pending,
            "The Pods that dialled themselves are no longer endpoints. Waiting for the next round of the agents.",
        )
    })
}

fn reports_are_missing(survey: &Survey<'_>) -> Option<Finding> {
    survey.evidence.reports.incomplete()
}

fn policies_are_unread(survey: &Survey<'_>) -> Option<Finding> {
    let unread = survey.evidence.facts.why_unreadable("networkpolicies");
    let why = unread.filter(|_| survey.may_be_policy)?;
    Some(Finding::unknown(
        Reason::ProbeFailed,
        format!(
            "Pods did not reach themselves. NetworkPolicies could not be read, so one may be blocking their nodes: {why}."
        ),
    ))
}

fn policies_may_block(survey: &Survey<'_>) -> Option<Finding> {
    survey.may_be_policy.then(|| {
        Finding::not_applicable(
            "A policy may isolate the Pods: their packets to themselves come from the node's address, which the policy may block.",
        )
    })
}

fn pods_reach_themselves(survey: &Survey<'_>) -> Option<Finding> {
    let is_accepted = |d: &&HairpinDial<'_>| d.hairpin.answer == Some(Answer::Accepted);
    let message = match survey.dials.iter().filter(is_accepted).count() {
        0 => return None,
        1 => "1 Pod reached itself through the Service.".to_owned(),
        works => format!("{works} Pods reached themselves through the Service."),
    };
    Some(Finding::yes(Reason::HairpinWorks, message))
}

fn bridges_and_rules_are_set_up(survey: &Survey<'_>) -> Option<Finding> {
    let all = |is: fn(&Hairpin) -> bool| survey.dials.iter().all(|d| is(d.hairpin));
    let is_set_up =
        !survey.dials.is_empty() && all(|h| h.masqueraded == Some(true) && h.hairpin_mode != Some(false));
    is_set_up.then(|| {
        Finding::yes(
            Reason::HairpinConfigured,
            match all(|h| h.hairpin_mode == Some(true)) {
                true => {
                    "The bridge ports send packets back (hairpin mode) and the rules masquerade them. No dial happened to come back to its own Pod."
                }
                false => {
                    "The rules masquerade packets that a Pod sends to itself, and no bridge port keeps them from coming back. No dial happened to come back to its own Pod."
                }
            },
        )
    })
}

/// Why nothing was seen of the Pods' ways to themselves.
fn unseen(survey: &Survey<'_>) -> Finding {
    let evidence = survey.evidence;
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
        None if survey.was_tried => {
            "No dial of a Pod came back to that Pod, and its bridge port and rules are inconclusive."
                .to_owned()
        }
        None => format!("{WHAT}."),
    };
    Finding::unknown(Reason::ProbeFailed, why)
}

/// Why no Pod can meet itself, or nobody could see it, if so.
fn why_never(evidence: &Evidence<'_>) -> Option<&'static str> {
    let facts = evidence.facts;
    let service = facts.service.as_deref()?;
    if !service.spec.ports.iter().any(|p| p.protocol == Protocol::Tcp) {
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

/// Why a Pod does not reach itself. Bridge port and rules only explain what the dial has shown, unless the kernel said
/// why it dropped the packets.
fn fault(dial: HairpinDial<'_>) -> Option<Reason> {
    let hairpin = dial.hairpin;
    match hairpin.answer? {
        // Whoever takes the connection was met, whatever it says.
        Answer::Accepted | Answer::Reset | Answer::NoAnswer | Answer::Unexpected => None,
        Answer::Refused | Answer::Rejected => Some(Reason::HairpinRefused),
        Answer::TimedOut | Answer::Unreachable => Some(match killer(dial).map(|drop| drop.cause) {
            Some(DropCause::HairpinPortOff) => Reason::HairpinModeDisabled,
            Some(DropCause::HairpinNotMasqueraded) => Reason::MasqueradeMissing,
            Some(_) => Reason::HairpinTimedOut,
            None if hairpin.hairpin_mode == Some(false) => Reason::HairpinModeDisabled,
            None if hairpin.masqueraded == Some(false) => Reason::MasqueradeMissing,
            None => Reason::HairpinTimedOut,
        }),
    }
}

/// The packets of a Pod's dial to itself that were dropped. In several places: those that only a packet on the way back
/// to its sender can meet with, then most of them.
fn killer(dial: HairpinDial<'_>) -> Option<&PacketDrop> {
    let drops = dropped::of_hairpin(dial.report, dial.hairpin, dial.pod);
    let is_of_hairpins = |drop: &PacketDrop| {
        matches!(
            drop.cause,
            DropCause::HairpinPortOff | DropCause::HairpinNotMasqueraded
        )
    };
    drops.max_by_key(|drop| (is_of_hairpins(drop), drop.packets, std::cmp::Reverse(*drop)))
}
