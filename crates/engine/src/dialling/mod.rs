//! What the stages that judge dials have in common: from failures to a reason, and from the absence of
//! failures to an answer.

pub(crate) mod addresses;
pub(crate) mod advice;
mod cause;
pub(crate) mod describe;
mod masquerading;
mod rejections;

use std::{collections::BTreeSet, net::SocketAddr};

pub(crate) use self::{
    cause::{cause, certain_cause, found},
    masquerading::{Masquerading, checksums, masquerading, reaches_directly},
};

use crate::{
    Facts, Finding,
    evidence::{
        Evidence,
        dials::{Dials, Failed},
        dropped_text::{Dropped, DroppedBy},
        explaining::{Explanation, closed_chains, explain, full_tables},
        lossy_settings::{self, Setting},
        sender::Sender,
    },
    text::{self, quoted},
};
use svcdiag_api::{Answer, ConditionType, DropPlace, PortProtocol, Reason};
use svcdiag_objects::{Object, Open, Protocol};

/// Why nothing is judged by what was dialled, if so; `what` says what was not done.
pub(crate) fn unjudged(evidence: &Evidence<'_>, what: &str) -> Option<Finding> {
    if let Some(finding) = evidence.reports.nobody(what) {
        return Some(finding);
    }
    if evidence.service.is_none() {
        return Some(Finding::not_applicable("There is no Service."));
    }
    (!evidence.ends.has_ports_to_dial())
        .then(|| Finding::not_applicable("The Service lists no port that can be dialled (TCP or UDP)."))
}

/// A failure and what is thought of it.
pub(crate) struct Case<'a, 'b> {
    pub failed: &'b Failed<'a>,
    pub reason: Reason,
    pub explanation: Option<Explanation>,
}

impl Case<'_, '_> {
    /// Whether the kernel said who dropped the packets.
    pub(crate) fn is_seen(&self) -> bool {
        self.explanation.as_ref().is_some_and(|e| e.is_seen)
    }

    /// Whether a firewall was seen to drop the packets, or one in a Pod said that it rejects them: a rule may be about
    /// these alone, unlike a setting of the node.
    pub(crate) fn is_of_a_rule(&self) -> bool {
        self.is_seen() && self.reason == Reason::FirewallDrops || self.failed.is_rejected_in_a_pod()
    }

    /// Whether what stopped the packets is certain.
    pub(crate) fn is_certain(&self) -> bool {
        self.is_seen() || self.failed.is_rejected_by_a_rule()
    }
}

/// Takes a failure for what its answer says, unless a setting of a node explains it.
pub(crate) fn case<'a, 'b>(evidence: &Evidence<'a>, failed: &'b Failed<'a>) -> Case<'a, 'b> {
    // Of those that somebody says to reject only a rule that rejects says more.
    let is_rejected = failed.is_rejected_by_a_rule();
    let says_more = |e: &Explanation| !is_rejected || matches!(e.setting, Setting::DeadEnd { .. });
    let explanation = explain(evidence, failed).filter(says_more);
    let by_answer = match failed.answer {
        _ if failed.is_prohibited() => Reason::FirewallRejects,
        Answer::Refused | Answer::Rejected => Reason::ConnectionRefused,
        Answer::Unreachable => Reason::NoRouteToHost,
        Answer::TimedOut | Answer::NoAnswer | Answer::Accepted => Reason::TimedOut,
        Answer::Reset | Answer::Unexpected => Reason::UnexpectedResponse,
    };
    Case {
        failed,
        reason: match &explanation {
            Some(explanation) if by_answer != Reason::FirewallRejects => explanation.reason,
            _ => by_answer,
        },
        explanation,
    }
}

/// What is thought of failures; where some left nothing of a port, only of those.
pub(crate) fn cases<'a, 'b>(
    evidence: &Evidence<'a>,
    dials: &Dials<'a>,
    failures: &[&'b Failed<'a>],
) -> Vec<Case<'a, 'b>> {
    let is_dead = failures.iter().any(|f| dials.is_dead_for(f));
    let decisive = failures.iter().filter(|f| !is_dead || dials.is_dead_for(f));
    let mut cases: Vec<Case> = decisive.map(|f| case(evidence, f)).collect();
    leave_out_rationed(&mut cases);
    cases
}

/// A rule that rejects packets drops them as well, and the kernel rations the messages that say so (icmp_ratelimit): where
/// a client got some for a port, what a firewall in the same network namespace drops of that is no finding of its own.
pub(crate) fn leave_out_rationed(cases: &mut Vec<Case<'_, '_>>) {
    let rejected = cases.iter().filter(|c| c.reason == Reason::FirewallRejects);
    let ways: BTreeSet<Way> = rejected.filter_map(|c| Way::of_rejection(c.failed)).collect();
    cases.retain(|c| Way::of_drop(c).is_none_or(|way| !ways.contains(&way)));
}

/// The packets that a rule of one network namespace stops.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Way<'a> {
    /// Those of a client, or of the node itself, to a port, on the node where they begin.
    Node(&'a str, Option<&'a str>, PortProtocol),
    /// The same in the network namespace of the client.
    Client(&'a str, PortProtocol),
    /// Those to an endpoint in its own.
    Endpoint(SocketAddr),
}

impl<'a> Way<'a> {
    fn of(place: DropPlace, failed: &Failed<'a>) -> Option<Self> {
        let dial = failed.dial;
        Some(match place {
            DropPlace::Node => Self::Node(failed.node, dial.from.as_deref(), dial.port),
            DropPlace::Client => Self::Client(dial.from.as_deref()?, dial.port),
            DropPlace::Endpoint => Self::Endpoint(failed.endpoint?),
        })
    }

    /// A node has addresses that are not known here.
    fn of_rejection(failed: &Failed<'a>) -> Option<Self> {
        match failed.sender()? {
            Sender::Client(_) => Self::of(DropPlace::Client, failed),
            Sender::Endpoint(_) => Self::of(DropPlace::Endpoint, failed),
            by if by.may_be(failed.node) => Self::of(DropPlace::Node, failed),
            _ => None,
        }
    }

    fn of_drop(case: &Case<'a, '_>) -> Option<Self> {
        let explanation = case.explanation.as_ref().filter(|e| e.is_seen)?;
        let Setting::Dropped(Dropped { by, .. }) = &explanation.setting else {
            return None;
        };
        match by {
            DroppedBy::Firewall { .. } => Self::of(DropPlace::Node, case.failed),
            DroppedBy::FirewallOfPods(place, _) => Self::of(*place, case.failed),
            _ => None,
        }
    }
}

/// The cases of the reason that takes precedence; the weakest of the stage, if it has none of theirs.
pub(crate) fn foremost<'a, 'b, 'c>(
    cases: &'c [Case<'a, 'b>],
    order: &[Reason],
) -> Option<(Reason, Vec<&'c Case<'a, 'b>>)> {
    let first = order.iter().find_map(|reason| {
        let of: Vec<&Case> = cases.iter().filter(|c| c.reason == *reason).collect();
        (!of.is_empty()).then_some((*reason, of))
    });
    first.or_else(|| (!cases.is_empty()).then_some((*order.last()?, cases.iter().collect())))
}

/// The failures of some cases.
pub(crate) fn failures<'a, 'b>(cases: &[&Case<'a, 'b>]) -> Vec<&'b Failed<'a>> {
    cases.iter().map(|c| c.failed).collect()
}

/// Whether a setting of a node, or somebody on the way, is the reason.
pub(crate) fn is_explained(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BridgeNetfilterDisabled
            | Reason::IPForwardingDisabled
            | Reason::FirewallDrops
            | Reason::FirewallRejects
            | Reason::ConntrackTableFull
            | Reason::ReversePathFiltering
    )
}

/// What is wrong where endpoints are cluster IPs of Services, and what to do.
pub(crate) fn translated_twice(facts: &Facts) -> Option<(String, String)> {
    let (ip, service) = facts.endpoints_of_services.first()?;
    Some((
        format!(
            "Endpoint {ip} is the cluster IP of Service {service}, and no rule translates an address twice, so it cannot be reached this way."
        ),
        format!(
            "Point the Service at the Pods themselves, with a selector or with their own addresses in its EndpointSlice, or have clients use Service {service}. See `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`.",
            quoted(&facts.namespace),
            quoted(&facts.spec.service_name)
        ),
    ))
}

/// What to do where connections are refused and nobody dialled the Pods past the Service: the ports that their
/// containers declare may show that targetPort is another one.
pub(crate) fn refused_unseen(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<String> {
    let facts = evidence.facts;
    let direct = &evidence.direct;
    let are_refused = failures
        .iter()
        .all(|f| f.answer == Answer::Refused && !f.dial.port.is_udp());
    if !are_refused || direct.made() > 0 {
        return None;
    }
    let (namespace, service) = (quoted(&facts.namespace), quoted(&facts.spec.service_name));
    Some(match undeclared_port(evidence, failures) {
        Some((number, declared)) => format!(
            "The Service sends to port {number} of its Pods, whose containers declare {declared}. If they listen there, set targetPort to it: `kubectl -n {namespace} edit service {service}`."
        ),
        None => format!(
            "Find out whether the application listens, and on which port: `kubectl -n {namespace} logs service/{service}` may show it. If it is not the targetPort, set targetPort to it: `kubectl -n {namespace} edit service {service}`."
        ),
    })
}

/// The port that a Service sends to, and those that the containers of its Pods declare, where it is none of them.
pub(crate) fn undeclared_port(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<(u16, String)> {
    let facts = evidence.facts;
    let port = failures.first()?.dial.port;
    let name = evidence.ends.service_port(port)?.name();
    let (number, pod) = facts.slices.iter().find_map(|slice| {
        let (_, number) = slice
            .numbers(&Open::Known(Protocol::Tcp))
            .find(|(of, _)| *of == name)?;
        let of_slice = |e: &SocketAddr| slice.ready().any(|(ip, _)| *e == SocketAddr::new(ip, number));
        let (_, target) = evidence
            .ends
            .targets
            .iter()
            .find(|(e, t)| of_slice(e) && t.pod.is_some())?;
        Some((number, target.pod?))
    })?;
    let declared: BTreeSet<i32> = pod
        .long_running()
        .flat_map(|c| &c.ports)
        .map(|p| p.container_port)
        .collect();
    let is_declared = declared.contains(&i32::from(number));
    let declared: Vec<String> = declared.iter().map(i32::to_string).collect();
    (!declared.is_empty() && !is_declared).then(|| (number, text::list(&declared)))
}

/// The finding on cases of one reason: with what else may have cost the packets, unless somebody saw what did.
pub(crate) fn finish<'a>(
    evidence: &Evidence<'a>,
    dials: &Dials<'a>,
    (reason, cases): (Reason, &[&Case<'a, '_>]),
    (mut message, remediation): (String, String),
    is_all: bool,
) -> Finding {
    if let Some(family) = dials.fails_in_one_family() {
        message.push_str(&format!(" Only dials over {family} fail."));
    }
    let open: Vec<&Case> = cases.iter().copied().filter(|c| !c.is_certain()).collect();
    let open = failures(&open);
    match reason {
        Reason::AcceptQueueFull | Reason::PathMTUTooSmall => {}
        // No setting of either node costs what was seen to leave the one and not to arrive at the other.
        Reason::LostBetweenNodes => with_addresses(evidence, &open, &mut message),
        _ if is_explained(reason) => {}
        _ => with_circumstances(evidence, &open, &mut message),
    }
    if may_be_of_another_kind(reason) {
        with_other_kinds(evidence.facts, &mut message);
    }
    if is_all {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    }
}

/// Whether a policy that is not evaluated may be behind failures for a reason.
fn may_be_of_another_kind(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TimedOut
            | Reason::NoRouteToHost
            | Reason::FirewallDrops
            | Reason::FirewallRejects
            | Reason::LostBetweenNodes
            | Reason::CrossNodeUnreachable
            | Reason::PartiallyReachable
    )
}

/// Adds what else may have cost packets on the way.
fn with_circumstances(evidence: &Evidence<'_>, failures: &[&Failed<'_>], message: &mut String) {
    with_addresses(evidence, failures, message);
    let closed: Vec<&str> = closed_chains(evidence, failures).into_iter().collect();
    if !closed.is_empty() {
        message.push_str(&format!(
            " The policy of the FORWARD chain on {} is to drop what no rule accepts; `iptables -S FORWARD` there shows whether a rule accepts the packets of the Pods.",
            text::nodes(&closed)
        ));
    }
    let full = full_tables(evidence, failures);
    if !full.is_empty() {
        message.push_str(&format!(
            " {}, so packets may be lost there.",
            lossy_settings::full_tables(&full)
        ));
    }
}

/// Adds what may be wrong with the addresses of the dials, as far as the message does not say it yet.
pub(crate) fn with_addresses(evidence: &Evidence<'_>, failures: &[&Failed<'_>], message: &mut String) {
    for said in addresses::trouble(evidence, failures) {
        if !message.contains(&said) {
            message.push_str(&format!(" {said}"));
        }
    }
}

/// Policies of other kinds are not judged, and may be what drops the packets.
fn with_other_kinds(facts: &Facts, message: &mut String) {
    if let Some(kinds) = crate::policies::describe::other_kinds(facts) {
        message.push_str(&format!(
            " A policy of another kind ({kinds}) may drop the packets; these are not evaluated."
        ));
    }
}

/// Why dials without a failure that counts leave the question open, if so.
pub(crate) fn left_open(
    evidence: &Evidence<'_>,
    dials: &Dials<'_>,
    (stage, what): (ConditionType, &str),
) -> Option<Finding> {
    let reports = &evidence.reports;
    if dials.is_stale {
        return Some(Finding::unknown(
            Reason::Pending,
            "The failed dials belong to an earlier state of the Service or its endpoints. Waiting for the next round of the agents.",
        ));
    }
    if let Some(finding) = reports.incomplete() {
        return Some(finding);
    }
    if dials.is_shut_out && evidence.clients.are_named() {
        return Some(kept_away(evidence));
    }
    if dials.succeeded() > 0 {
        return None;
    }
    Some(if dials.is_shut_out {
        kept_away(evidence)
    } else if dials.is_intercepted {
        intercepted()
    } else {
        let message = match reports.problem(stage) {
            Some(why) => format!("{what}. {why}"),
            None => format!("{what}: no dial could be made."),
        };
        Finding::unknown(Reason::ProbeFailed, message)
    })
}

/// Nobody but sidecars spoke.
pub(crate) fn intercepted() -> Finding {
    Finding::unknown(
        Reason::InterceptedByMesh,
        "A proxy next to the clients (service mesh) intercepts their connections, so these prove nothing. Set spec.probe.http to make the agents speak HTTP through it.",
    )
}

/// Nobody got through but those of the mesh, if anybody.
pub(crate) fn reset_by_mesh(pod: &str) -> Finding {
    Finding::unknown(
        Reason::InterceptedByMesh,
        format!(
            "The sidecar of Pod {pod} resets connections from Pods that may not belong to its service mesh, as a sidecar that accepts only mutual TLS (mTLS) does. Name the clients in spec.clients.podSelector."
        ),
    )
}

fn kept_away(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if let Some(why) = facts.why_unreadable("networkpolicies") {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "Dials failed. NetworkPolicies could not be read, so one may be blocking the clients: {why}."
            ),
        );
    }
    if evidence.clients.are_named() {
        return Finding::blocked(ConditionType::NetworkPolicyAllows);
    }
    let name = facts.service.as_deref().map(|s| s.name()).unwrap_or_default();
    Finding::unknown(
        Reason::NoClientPods,
        format!(
            "The dials of the candidate client Pods prove nothing: policies keep, or may keep, these Pods from {name}. To have the actual clients checked, name them in spec.clients.podSelector."
        ),
    )
}
