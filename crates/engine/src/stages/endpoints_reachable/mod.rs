//! Do the Pods answer when the Service is bypassed?

mod arrived;
mod between_nodes;
mod describe;
mod path_mtu;
mod untranslated;
mod wrong_family;

use crate::{
    Finding,
    dialling::{self, Case},
    evidence::{
        Evidence, arrivals,
        dials::Failed,
        dropped, listening, losses,
        packet_sizes::{self, NarrowPath, narrow_paths},
        sender::Sender,
    },
    stages::checks::Check,
};
use svcdiag_api::{Answer, ConditionType, LossyPath, Reason};
use svcdiag_objects::Service;

/// What was not done where nobody looked.
const WHAT: &str = "The endpoints were not dialled";

/// In the order of precedence.
const CHECKS: [Check; 12] = [
    endpoints_of_an_alias,
    no_ports,
    nothing_to_dial,
    fault,
    path_mtu::judge,
    untranslated::judge,
    sidecar_resets,
    sidecar_intercepts,
    no_endpoint_is_ready,
    policies_may_block_nodes,
    not_dialled,
    left_open,
];

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let found = CHECKS.iter().find_map(|check| check(evidence));
    found.unwrap_or_else(|| {
        let paths = [LossyPath::SameNode, LossyPath::OtherNode];
        Finding::yes(
            Reason::AllEndpointsAnswer,
            format!(
                "The endpoints {}, dialled {}.{}",
                evidence.direct.answer(),
                from_where(evidence),
                losses::hint(evidence, losses::From::Anybody, &paths)
            ),
        )
    })
}

fn endpoints_of_an_alias(evidence: &Evidence<'_>) -> Option<Finding> {
    let is_alias = evidence.service.is_some_and(Service::is_external_name);
    is_alias.then(|| Finding::not_applicable("An ExternalName Service has no endpoints."))
}

fn no_ports(evidence: &Evidence<'_>) -> Option<Finding> {
    let has_none = evidence.service.is_some_and(|s| s.spec.ports.is_empty());
    has_none.then(|| Finding::not_applicable("The Service lists no port."))
}

fn nothing_to_dial(evidence: &Evidence<'_>) -> Option<Finding> {
    dialling::unjudged(evidence, WHAT)
}

fn sidecar_resets(evidence: &Evidence<'_>) -> Option<Finding> {
    let dials = &evidence.direct;
    let pod = dials.reset_by_mesh.filter(|_| !dials.reaches_clients())?;
    Some(dialling::reset_by_mesh(pod))
}

fn sidecar_intercepts(evidence: &Evidence<'_>) -> Option<Finding> {
    let dials = &evidence.direct;
    let nobody_else = !dials.has_clients() && evidence.reports.incomplete().is_none();
    (dials.is_intercepted && nobody_else).then(dialling::intercepted)
}

fn no_endpoint_is_ready(evidence: &Evidence<'_>) -> Option<Finding> {
    let is_none = evidence.ends.targets.is_empty();
    is_none.then(|| Finding::not_applicable("No endpoint is ready. Terminating endpoints are not dialled."))
}

fn policies_may_block_nodes(evidence: &Evidence<'_>) -> Option<Finding> {
    let dials = &evidence.direct;
    (dials.is_node_shut_out && dials.succeeded() == 0 && !dials.is_shut_out).then(|| {
        Finding::unknown(
            Reason::ProbeFailed,
            "The endpoints were dialled only from nodes, and a NetworkPolicy may block nodes.",
        )
    })
}

fn not_dialled(evidence: &Evidence<'_>) -> Option<Finding> {
    let (dials, reports) = (&evidence.direct, &evidence.reports);
    let is_untried = dials.made() == 0 && !dials.is_intercepted;
    let is_explained =
        reports.problem(ConditionType::EndpointsReachable).is_some() || reports.incomplete().is_some();
    (is_untried && !is_explained).then(|| {
        Finding::unknown(
            Reason::NoVantagePoint,
            format!("{WHAT}: no client Pod or endpoint runs on a probed node."),
        )
    })
}

fn left_open(evidence: &Evidence<'_>) -> Option<Finding> {
    let stage = (ConditionType::EndpointsReachable, WHAT);
    dialling::left_open(evidence, &evidence.direct, stage)
}

fn from_where(evidence: &Evidence<'_>) -> &'static str {
    let dials = &evidence.direct;
    let by_nodes = dials.counts.iter().any(|c| c.from.is_none() && c.made > 0);
    // Endpoints without a node, as those of the API server, are dialled from any.
    let have_nodes = evidence.ends.targets.values().all(|t| t.node.is_some());
    match (dials.has_clients(), by_nodes) {
        (true, false) => "from client Pods",
        (true, true) if have_nodes => "from client Pods and from their own nodes",
        (true, true) => "from client Pods and from nodes",
        (false, _) if have_nodes => "from their own nodes",
        (false, _) => "from nodes",
    }
}

fn fault(evidence: &Evidence<'_>) -> Option<Finding> {
    let dials = &evidence.direct;
    let narrow = narrow_paths(evidence);
    let mut cases: Vec<Case> = dials
        .failures
        .iter()
        .map(|failed| classify(evidence, &narrow, failed))
        .collect();
    // A port that nobody reaches says more than an endpoint that somebody does not.
    if cases.iter().any(|c| dials.is_dead_for(c.failed)) {
        cases.retain(|c| dials.is_dead_for(c.failed));
        dialling::leave_out_rationed(&mut cases);
    } else {
        dialling::leave_out_rationed(&mut cases);
        // What the kernel drops of one endpoint's packets alone is that endpoint's.
        let is_of_a_way = |c: &Case| {
            dialling::is_explained(c.reason) && !c.is_of_a_rule()
                || matches!(
                    c.reason,
                    Reason::LostBetweenNodes | Reason::CrossNodeUnreachable | Reason::PathMTUTooSmall
                )
                || c.failed.is_of_large_answers()
        };
        if cases.iter().any(is_of_a_way) {
            cases.retain(is_of_a_way);
        } else if let Some(finding) = describe::some_endpoints(evidence, &cases) {
            return Some(finding);
        }
    }
    // Of some it may not be known yet, and they are lost alike: together they say where more than one part tells.
    if cases.iter().any(|c| c.reason == Reason::CrossNodeUnreachable) {
        let between = cases.iter_mut().filter(|c| c.reason == Reason::LostBetweenNodes);
        between.for_each(|case| case.reason = Reason::CrossNodeUnreachable);
    }
    let (reason, of) = dialling::foremost(&cases, ConditionType::EndpointsReachable.faults())?;
    let said = describe::describe_cases(evidence, reason, &of);
    Some(dialling::finish(
        evidence,
        dials,
        (reason, &of),
        said,
        dials.is_all_dead(),
    ))
}

/// Whether somebody said that the packets are not let through, or the endpoint's own node had them: whatever
/// carries packets between the nodes has carried these.
fn is_turned_away(failed: &Failed<'_>) -> bool {
    let by = failed.sender().and_then(Sender::node);
    failed.answer == Answer::Rejected
        || failed.is_rejected_by_a_rule()
        || by.is_some() && by == failed.target.and_then(|t| t.node)
}

fn classify<'a, 'b>(
    evidence: &Evidence<'a>,
    narrow: &[NarrowPath<'a>],
    failed: &'b Failed<'a>,
) -> Case<'a, 'b> {
    let mut case = dialling::case(evidence, failed);
    if failed.answer == Answer::Refused {
        case.reason = match listening::why_refused(evidence, failed) {
            Reason::ConnectionRefused if wrong_family::answers_in_the_other(evidence, failed) => {
                Reason::WrongFamilyListening
            }
            reason => reason,
        };
    } else if case.is_seen() && case.reason == Reason::NoRouteToHost && is_cross_node(evidence, failed) {
        case.reason = Reason::CrossNodeUnreachable;
    } else if !case.is_seen() && dropped::finds_no_room(evidence, failed) {
        // Seen on its node, unlike a setting that may explain it.
        case.reason = Reason::AcceptQueueFull;
        case.explanation = None;
    } else if case.explanation.is_none() && packet_sizes::explains(narrow, failed) {
        case.reason = Reason::PathMTUTooSmall;
    } else if case.explanation.is_none() && !is_turned_away(failed) && is_cross_node(evidence, failed) {
        let is_seen = arrivals::of(evidence, failed).is_some_and(|arrival| arrival.is_lost_between());
        case.reason = match is_seen {
            true => Reason::LostBetweenNodes,
            false => Reason::CrossNodeUnreachable,
        };
    }
    case
}

/// Whether the way between the nodes is at fault: the endpoint answers at home, or, where nobody tried
/// there, all endpoints on other nodes fail and those on the same node do not.
fn is_cross_node(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let dials = &evidence.direct;
    let (Some(endpoint), Some(_)) = (failed.endpoint, failed.target.and_then(|t| t.node)) else {
        return false;
    };
    if !failed.is_lost() || failed.dial.same_node != Some(false) {
        return false;
    }
    // Whoever does not even reach those beside it is kept from all by its own node.
    let is_kept_at_home = |f: &Failed<'_>| {
        let is_beside = f.node == failed.node
            && f.dial.from == failed.dial.from
            && f.dial.port == failed.dial.port
            && f.dial.same_node == Some(true);
        is_beside
            && f.is_lost()
            && f.endpoint
                .is_some_and(|e| evidence.is_reached_at_home(e, f.dial.port))
    };
    if dials.failures.iter().any(is_kept_at_home) {
        return false;
    }
    if evidence.is_reached_at_home(endpoint, failed.dial.port) {
        return true;
    }
    let fails_at_home = dials
        .failures
        .iter()
        .any(|f| f.endpoint == Some(endpoint) && f.dial.same_node == Some(true));
    let of_port = || {
        dials
            .counts
            .iter()
            .filter(|c| c.port == failed.dial.port && c.family == failed.family())
    };
    let same_node_works = of_port().any(|c| c.same_node == Some(true) && c.succeeded > 0);
    let others_work = of_port().any(|c| c.same_node == Some(false) && c.succeeded > 0);
    !fails_at_home && same_node_works && !others_work
}
