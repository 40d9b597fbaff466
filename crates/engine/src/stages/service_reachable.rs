//! Does the Service work by IP, tried from client Pods?

use crate::{
    Facts, Finding, Verdict, applicable,
    clients::{Clients, Role},
    dialling::{self, advice::advice, describe},
    evidence::{
        Evidence,
        dials::{Dials, Failed, is_udp},
    },
    text::{self, quoted},
};
use svcdiag_api::{ConditionType, Reason};

const WHAT: &str = "The Service's addresses were not dialled from client Pods";

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if let Some(finding) = applicable::without_address(facts).or_else(|| applicable::no_clients(evidence)) {
        return finding;
    }
    let reports = &evidence.reports;
    if let Some(finding) = dialling::unjudged(evidence, WHAT) {
        return finding;
    }
    let dials = &evidence.from_clients;
    let (explained, own): (Vec<&Failed>, Vec<&Failed>) =
        dials.failures.iter().partition(|f| is_explained(evidence, f));
    if let Some(finding) = fault(evidence, &own) {
        return finding;
    }
    if !explained.is_empty() {
        return Finding::blocked(ConditionType::EndpointsReachable);
    }
    if let Some(pod) = dials.reset_by_mesh.filter(|_| dials.succeeded() == 0) {
        return dialling::reset_by_mesh(pod);
    }
    let asked = reports.current.iter().any(|r| !r.asked.clients.is_empty());
    if dials.made() == 0 && reports.incomplete().is_none() && !dials.is_intercepted && !dials.is_shut_out {
        if let Some(finding) = from_nodes_in_files(evidence) {
            return finding;
        }
        if !asked {
            return Finding::unknown(
                Reason::NoVantagePoint,
                format!("{WHAT}: no client Pod runs on a probed node."),
            );
        }
        if reports.problem(ConditionType::ServiceReachable).is_none() {
            return nothing_to_dial(evidence);
        }
    }
    dialling::left_open(evidence, dials, (ConditionType::ServiceReachable, WHAT)).unwrap_or_else(|| {
        Finding::yes(
            Reason::Reachable,
            format!(
                "The Service's addresses {}, dialled from client Pods.",
                dials.answer()
            ),
        )
    })
}

/// Whoever goes through the page by hand dials the Service from a node, and leaves it at that.
fn from_nodes_in_files(evidence: &Evidence<'_>) -> Option<Finding> {
    let reports = &evidence.reports;
    let are_files = reports.current.iter().all(|r| r.saved.is_some());
    let dials = &evidence.from_nodes;
    are_files.then(|| {
        if dials.failures.is_empty() && dials.succeeded() > 0 {
            Finding::yes(
                Reason::Reachable,
                format!(
                    "The Service's addresses {}, dialled from a node. The files contain no dial from a client Pod.",
                    dials.answer()
                ),
            )
        } else {
            Finding::unknown(
                Reason::NoVantagePoint,
                format!("{WHAT}: the files contain no such dial."),
            )
        }
    })
}

/// Clients were asked and had nothing to dial: the only endpoint is the client, or a Local policy leaves
/// its node without one.
fn nothing_to_dial(evidence: &Evidence<'_>) -> Finding {
    let are_endpoints = matches!(
        evidence.clients,
        Clients::Pods {
            role: Role::Endpoint,
            ..
        }
    );
    Finding::unknown(
        Reason::NoClientPods,
        match are_endpoints {
            true => {
                "The only candidate client Pods are the Service's own endpoints; nothing else can be tested."
            }
            false => {
                "No client Pod dialled the Service: none has an endpoint other than itself that its node may send packets to."
            }
        },
    )
}

/// Whether the same client fails at the endpoint past the Service, too.
fn is_explained(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let direct = &evidence.direct;
    let mut same_client = direct.failures.iter().filter(|d| {
        d.node == failed.node && d.dial.from == failed.dial.from && d.dial.port == failed.dial.port
    });
    same_client.any(|d| failed.endpoint.is_none() || d.endpoint == failed.endpoint)
}

fn fault<'a>(evidence: &Evidence<'a>, failures: &[&Failed<'a>]) -> Option<Finding> {
    let facts = evidence.facts;
    let dials = &evidence.from_clients;
    let direct = &evidence.direct;
    let mut cases = dialling::cases(evidence, dials, failures);
    for case in &mut cases {
        let is_part = !dials.is_dead_for(case.failed) && reaches_others(dials, case.failed);
        if case.explanation.is_none() && is_part {
            case.reason = Reason::PartiallyReachable;
        }
    }
    let (reason, of) = dialling::foremost(&cases, ConditionType::ServiceReachable.faults())?;
    let failures = dialling::failures(&of);
    let routes = describe::routes(&failures);
    // What nobody dialled past the Service is not said to answer there.
    let though = |past_it: &str| match direct.succeeded() {
        0 => String::new(),
        _ => format!(", although {past_it}"),
    };
    let clients = match failures.iter().all(|f| dials.is_dead_for(f)) {
        true => "client Pods",
        false => "some dials from client Pods",
    };
    let twice = dialling::translated_twice(facts).filter(|_| reason == Reason::TimedOut);
    let (mut message, remediation) = match (dialling::settings(&of), reason) {
        _ if twice.is_some() => {
            let (why, remediation) = twice.unwrap_or_default();
            (
                format!("The Service does not answer {clients}. {routes}. {why}"),
                remediation,
            )
        }
        (Some((sentence, remediation)), _) => (format!("{sentence}. {routes}."), remediation),
        (None, Reason::PartiallyReachable) if failures.iter().all(|f| f.is_of_some_requests()) => (
            format!(
                "Some requests through the Service get no answer while others do. {routes}. It has {}: the requests to one or some of them may be the ones that are lost.",
                text::count(evidence.ends.targets.len(), "endpoint")
            ),
            format!(
                "Connect to each endpoint directly instead of through the Service, from the same place: `curl IP:PORT`. {}",
                advice(facts, reason, &failures)
            ),
        ),
        (None, Reason::PartiallyReachable) => (
            format!(
                "Some endpoints do not answer through the Service{}. {routes}.",
                though("they do when dialled directly")
            ),
            advice(facts, reason, &failures),
        ),
        (None, Reason::UnexpectedResponse) => (
            format!("The Service does not answer {clients} as expected. {routes}."),
            advice(facts, reason, &failures),
        ),
        _ if failures.iter().all(|f| is_udp(&f.dial.port)) => (
            format!(
                "The Service does not accept datagrams from client Pods{}. {routes}.",
                though("endpoints do not refuse them when dialled directly")
            ),
            advice(facts, reason, &failures),
        ),
        _ => (
            format!(
                "The Service does not answer {clients}{}. {routes}.",
                though("endpoints do when dialled directly")
            ),
            dialling::refused_unseen(evidence, &failures).unwrap_or_else(|| advice(facts, reason, &failures)),
        ),
    };
    dialling::with_circumstances(evidence, dials, reason, &failures, &mut message);
    if matches!(
        reason,
        Reason::TimedOut | Reason::NoRouteToHost | Reason::PartiallyReachable
    ) {
        dialling::with_other_kinds(facts, &mut message);
    }
    Some(if dials.is_all_dead() {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    })
}

/// Whether the client that failed at an endpoint got through to others.
fn reaches_others(dials: &Dials<'_>, failed: &Failed<'_>) -> bool {
    (failed.endpoint.is_some() || failed.is_of_some_requests())
        && dials.counts.iter().any(|c| {
            c.node == failed.node
                && c.from == failed.dial.from.as_deref()
                && c.port == failed.dial.port
                && c.succeeded > 0
        })
}

/// Where everything else is as it should be, the page knows no further step but to ask.
pub(super) fn ask_for_help(facts: &Facts, stages: &mut [(ConditionType, Finding)]) {
    let others_are_right = stages
        .iter()
        .all(|(c, f)| *c == ConditionType::ServiceReachable || f.is_satisfied());
    let this = stages
        .iter_mut()
        .find(|(c, _)| *c == ConditionType::ServiceReachable);
    let Some((_, finding)) = this.filter(|_| others_are_right) else {
        return;
    };
    let is_known = dialling::is_explained(finding.reason);
    if let Verdict::False { remediation, .. } = &mut finding.verdict
        && !is_known
    {
        remediation.push_str(&format!(
            " All other checks pass. If nothing of this explains it, save what was observed \
             (`kubectl -n {} get servicediagnoses,nodeprobes,services,endpointslices -o yaml > {}.yaml`), remove what should not be public, and ask for help: \
             https://kubernetes.io/docs/tasks/debug/#slack, https://discuss.kubernetes.io or https://github.com/kubernetes/kubernetes.",
            quoted(&facts.namespace),
            quoted(&facts.spec.service_name)
        ));
    }
}
