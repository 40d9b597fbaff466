//! Does the Service work by IP, tried from client Pods?

use crate::{
    Facts, Finding, Verdict, applicable,
    clients::{Clients, Role},
    dialling::{self, Case, advice::advice, describe},
    evidence::{
        Evidence,
        dials::{Dials, Failed},
        losses,
    },
    stages::checks::{Check, without_address},
    text::{self, quoted},
};
use svcdiag_api::{ConditionType, LossyPath, Reason};

const WHAT: &str = "The Service's addresses were not dialled from client Pods";

/// Whether the question arises.
const APPLIES: [Check; 3] = [without_address, no_clients, nothing_to_judge];

/// What the clients' dials say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 6] = [
    service_is_lost,
    endpoints_are_lost,
    sidecar_resets,
    dialled_from_nodes_in_files,
    no_client_dialled,
    left_open,
];

/// The failed dials of clients to the Service, sorted by what they prove.
struct Survey<'a> {
    evidence: &'a Evidence<'a>,
    /// Those of clients that reach the endpoint past the Service.
    own: Vec<&'a Failed<'a>>,
    /// Those of clients that fail at the endpoint as well.
    explained: Vec<&'a Failed<'a>>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let dials = &evidence.from_clients;
    let failures = dials.failures.iter();
    let (explained, own): (Vec<&Failed<'_>>, Vec<&Failed<'_>>) =
        failures.partition(|f| is_explained(evidence, f));
    let survey = Survey {
        evidence,
        own,
        explained,
    };
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| {
        Finding::yes(
            Reason::Reachable,
            format!(
                "The Service's addresses {}, dialled from client Pods.{}",
                dials.answer(),
                losses::hint(evidence, losses::From::Clients, &[LossyPath::Service])
            ),
        )
    })
}

fn no_clients(evidence: &Evidence<'_>) -> Option<Finding> {
    applicable::no_clients(evidence)
}

fn nothing_to_judge(evidence: &Evidence<'_>) -> Option<Finding> {
    dialling::unjudged(evidence, WHAT)
}

fn service_is_lost(survey: &Survey<'_>) -> Option<Finding> {
    fault(survey.evidence, &survey.own)
}

fn endpoints_are_lost(survey: &Survey<'_>) -> Option<Finding> {
    let is_explained = !survey.explained.is_empty();
    is_explained.then(|| Finding::blocked(ConditionType::EndpointsReachable))
}

fn sidecar_resets(survey: &Survey<'_>) -> Option<Finding> {
    let dials = &survey.evidence.from_clients;
    let pod = dials.reset_by_mesh.filter(|_| dials.succeeded() == 0)?;
    Some(dialling::reset_by_mesh(pod))
}

/// Whether no client has dialled, though all nodes have reported and nothing is known to have kept them from it.
fn is_untried(evidence: &Evidence<'_>) -> bool {
    let dials = &evidence.from_clients;
    let is_kept = dials.is_intercepted || dials.is_shut_out;
    dials.made() == 0 && evidence.reports.incomplete().is_none() && !is_kept
}

fn dialled_from_nodes_in_files(survey: &Survey<'_>) -> Option<Finding> {
    from_nodes_in_files(survey.evidence).filter(|_| is_untried(survey.evidence))
}

fn no_client_dialled(survey: &Survey<'_>) -> Option<Finding> {
    let evidence = survey.evidence;
    if !is_untried(evidence) {
        return None;
    }
    let reports = &evidence.reports;
    if reports.current.iter().all(|r| r.asked.clients.is_empty()) {
        return Some(Finding::unknown(
            Reason::NoVantagePoint,
            format!("{WHAT}: no client Pod runs on a probed node."),
        ));
    }
    let has_problem = reports.problem(ConditionType::ServiceReachable).is_some();
    (!has_problem).then(|| nothing_to_dial(evidence))
}

fn left_open(survey: &Survey<'_>) -> Option<Finding> {
    let stage = (ConditionType::ServiceReachable, WHAT);
    dialling::left_open(survey.evidence, &survey.evidence.from_clients, stage)
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
    let dials = &evidence.from_clients;
    let mut cases = dialling::cases(evidence, dials, failures);
    for case in &mut cases {
        let is_part = !dials.is_dead_for(case.failed) && reaches_others(dials, case.failed);
        if (!dialling::is_explained(case.reason) || case.is_of_a_rule()) && is_part {
            case.reason = Reason::PartiallyReachable;
        }
    }
    let (reason, of) = dialling::foremost(&cases, ConditionType::ServiceReachable.faults())?;
    let said = describe_cases(evidence, reason, &of);
    Some(dialling::finish(
        evidence,
        dials,
        (reason, &of),
        said,
        dials.is_all_dead(),
    ))
}

/// What is said of failures for one reason, and what to do.
fn describe_cases(evidence: &Evidence<'_>, reason: Reason, cases: &[&Case<'_, '_>]) -> (String, String) {
    let facts = evidence.facts;
    let dials = &evidence.from_clients;
    let failures = dialling::failures(cases);
    let routes = describe::routes(&failures);
    let clients = match failures.iter().all(|f| dials.is_dead_for(f)) {
        true => "client Pods",
        false => "some dials from client Pods",
    };
    let twice = dialling::translated_twice(facts).filter(|_| reason == Reason::TimedOut);
    if let Some((why, remediation)) = twice {
        let message = format!("The Service does not answer {clients}. {routes}. {why}");
        return (message, remediation);
    }
    let refused = |open: &[&Failed<'_>]| {
        dialling::refused_unseen(evidence, open).filter(|_| reason != Reason::PartiallyReachable)
    };
    let what_to_do = |open: &[&Failed<'_>]| refused(open).unwrap_or_else(|| advice(evidence, reason, open));
    if let Some((sentence, remediation)) = dialling::cause(evidence, cases, |open| what_to_do(open)) {
        return (format!("{sentence}. {routes}."), remediation);
    }
    if let Some(of) = dialling::masquerading(evidence, &failures) {
        let message = format!("The Service does not answer {clients}. {routes}. {}", of.said);
        return (message, of.remediation);
    }
    let advice = || advice(evidence, reason, &failures);
    match reason {
        Reason::PartiallyReachable => some_are_lost(evidence, &failures, &routes),
        Reason::UnexpectedResponse => (
            format!("The Service does not answer {clients} as expected. {routes}."),
            advice(),
        ),
        _ if failures.iter().all(|f| f.dial.port.is_udp()) => (
            format!(
                "The Service does not accept datagrams from client Pods{}. {routes}.",
                although(evidence, "endpoints do not refuse them when dialled directly")
            ),
            advice(),
        ),
        _ => (
            format!(
                "The Service does not answer {clients}{}. {routes}.",
                although(evidence, "endpoints do when dialled directly")
            ),
            what_to_do(&failures),
        ),
    }
}

/// Clients that get through now and then, or to some endpoints.
fn some_are_lost(evidence: &Evidence<'_>, failures: &[&Failed<'_>], routes: &str) -> (String, String) {
    let advice = advice(evidence, Reason::PartiallyReachable, failures);
    if failures.iter().all(|f| f.is_of_some_requests()) {
        return (
            format!(
                "Some requests through the Service get no answer while others do. {routes}. It has {}: the requests to one or some of them may be the ones that are lost.",
                text::count(evidence.ends.targets.len(), "endpoint")
            ),
            format!(
                "Connect to each endpoint directly instead of through the Service, from the same place: `curl IP:PORT`. {advice}"
            ),
        );
    }
    (
        format!(
            "Some endpoints do not answer through the Service{}. {routes}.",
            although(evidence, "they do when dialled directly")
        ),
        advice,
    )
}

/// What nobody dialled past the Service is not said to answer there.
fn although(evidence: &Evidence<'_>, past_it: &str) -> String {
    match evidence.direct.succeeded() {
        0 => String::new(),
        _ => format!(", although {past_it}"),
    }
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
            " All other checks pass. If none of this explains it, save what was observed \
             (`kubectl -n {} get servicediagnoses,nodeprobes,services,endpointslices -o yaml > {}.yaml`), remove what should not be public, and ask for help: \
             https://kubernetes.io/docs/tasks/debug/#slack or https://discuss.kubernetes.io.",
            quoted(&facts.namespace),
            quoted(&facts.spec.service_name)
        ));
    }
}
