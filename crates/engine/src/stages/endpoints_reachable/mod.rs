//! Do the Pods answer when the Service is bypassed?

mod between_nodes;
mod untranslated;
mod wrong_family;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts, Finding,
    dialling::{self, Case, advice::advice, describe},
    evidence::{
        Evidence,
        dials::{Failed, is_udp},
        listening,
    },
    text::{self, quoted},
    workloads,
};
use svcdiag_api::{Answer, ConditionType, Reason};
use svcdiag_objects::Object;

/// What was not done where nobody looked.
const WHAT: &str = "The endpoints were not dialled";

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if facts.service.as_deref().is_some_and(|s| s.is_external_name()) {
        return Finding::not_applicable("An ExternalName Service has no endpoints.");
    }
    if facts.service.as_deref().is_some_and(|s| s.spec.ports.is_empty()) {
        return Finding::not_applicable("The Service lists no port.");
    }
    let reports = &evidence.reports;
    if let Some(finding) = dialling::unjudged(evidence, WHAT) {
        return finding;
    }
    let dials = &evidence.direct;
    if let Some(fault) = fault(evidence) {
        return fault;
    }
    if let Some(finding) = untranslated::judge(evidence) {
        return finding;
    }
    if let Some(pod) = dials.reset_by_mesh.filter(|_| !dials.reaches_clients()) {
        return dialling::reset_by_mesh(pod);
    }
    if dials.is_intercepted && !dials.has_clients() && reports.incomplete().is_none() {
        return dialling::intercepted();
    }
    if evidence.ends.targets.is_empty() {
        return Finding::not_applicable("No endpoint is ready. Terminating endpoints are not dialled.");
    }
    if dials.is_node_shut_out && dials.succeeded() == 0 && !dials.is_shut_out {
        return Finding::unknown(
            Reason::ProbeFailed,
            "The endpoints were dialled only from nodes, and a NetworkPolicy may block nodes.",
        );
    }
    if dials.made() == 0
        && !dials.is_intercepted
        && reports.problem(ConditionType::EndpointsReachable).is_none()
        && reports.incomplete().is_none()
    {
        return Finding::unknown(
            Reason::NoVantagePoint,
            format!("{WHAT}: no client Pod or endpoint runs on a probed node."),
        );
    }
    dialling::left_open(evidence, dials, (ConditionType::EndpointsReachable, WHAT)).unwrap_or_else(|| {
        Finding::yes(
            Reason::AllEndpointsAnswer,
            format!(
                "The endpoints {}, dialled {}.",
                dials.answer(),
                from_where(evidence)
            ),
        )
    })
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
    let facts = evidence.facts;
    let dials = &evidence.direct;
    let mut cases: Vec<Case> = dials
        .failures
        .iter()
        .map(|failed| classify(evidence, failed))
        .collect();
    // A port that nobody reaches says more than an endpoint that somebody does not.
    if cases.iter().any(|c| dials.is_dead_for(c.failed)) {
        cases.retain(|c| dials.is_dead_for(c.failed));
    } else {
        let is_of_a_way = |c: &Case| {
            dialling::is_explained(c.reason)
                || c.reason == Reason::CrossNodeUnreachable
                || c.failed.is_of_large_answers()
        };
        if cases.iter().any(is_of_a_way) {
            cases.retain(is_of_a_way);
        } else if let Some(finding) = some_endpoints(evidence, &cases) {
            return Some(finding);
        }
    }
    let (reason, of) = dialling::foremost(&cases, ConditionType::EndpointsReachable.faults())?;
    let (mut message, remediation) = describe_cases(evidence, reason, &of);
    dialling::with_circumstances(evidence, dials, reason, &dialling::failures(&of), &mut message);
    if matches!(
        reason,
        Reason::TimedOut | Reason::NoRouteToHost | Reason::CrossNodeUnreachable
    ) {
        dialling::with_other_kinds(facts, &mut message);
    }
    Some(if dials.is_all_dead() {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    })
}

/// Whether somebody said that the packets are not let through, or the endpoint's own node had them: whatever
/// carries packets between the nodes has carried these.
fn is_turned_away(facts: &Facts, failed: &Failed<'_>) -> bool {
    let by = crate::dialling::advice::rejecting_node(facts, failed);
    failed.answer == Answer::Rejected
        || crate::dialling::advice::is_prohibited(failed)
        || by.is_some() && by == failed.target.and_then(|t| t.node)
}

fn classify<'a, 'b>(evidence: &Evidence<'a>, failed: &'b Failed<'a>) -> Case<'a, 'b> {
    let facts = evidence.facts;
    let mut case = dialling::case(evidence, failed);
    if failed.answer == Answer::Refused {
        case.reason = match listening::why_refused(evidence, failed) {
            Reason::ConnectionRefused if wrong_family::answers_in_the_other(evidence, failed) => {
                Reason::WrongFamilyListening
            }
            reason => reason,
        };
    } else if case.explanation.is_none() && !is_turned_away(facts, failed) && is_cross_node(evidence, failed)
    {
        case.reason = Reason::CrossNodeUnreachable;
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
                .is_some_and(|e| evidence.is_reached_at_home(e, &f.dial.port))
    };
    if dials.failures.iter().any(is_kept_at_home) {
        return false;
    }
    if evidence.is_reached_at_home(endpoint, &failed.dial.port) {
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
            .filter(|c| c.port == failed.dial.port && c.is_v4 == failed.is_v4())
    };
    let same_node_works = of_port().any(|c| c.same_node == Some(true) && c.succeeded > 0);
    let others_work = of_port().any(|c| c.same_node == Some(false) && c.succeeded > 0);
    !fails_at_home && same_node_works && !others_work
}

/// Endpoints that fail from everywhere, beside others that answer.
fn some_endpoints(evidence: &Evidence<'_>, cases: &[Case<'_, '_>]) -> Option<Finding> {
    let facts = evidence.facts;
    let fails_everywhere = |c: &&Case| {
        c.failed
            .endpoint
            .is_some_and(|e| evidence.fails_from_everywhere(e, &c.failed.dial.port))
    };
    let of: Vec<&Case> = cases.iter().filter(fails_everywhere).collect();
    if of.is_empty() {
        return None;
    }
    let failures = dialling::failures(&of);
    // An endpoint with several ports is one.
    let failing: BTreeSet<_> = failures.iter().filter_map(|f| Some(f.endpoint?.ip())).collect();
    let all: BTreeSet<IpAddr> = evidence.ends.targets.keys().map(SocketAddr::ip).collect();
    let mut message = format!(
        "{} of {} endpoints {}, while {}. {}.",
        failing.len(),
        all.len(),
        if failing.len() == 1 { "fails" } else { "fail" },
        what_others_do(evidence, cases, &failing),
        describe::endpoints(&failures)
    );
    let nothing_listens: Vec<&Failed> = of
        .iter()
        .filter(|c| c.reason == Reason::NotListening)
        .map(|c| c.failed)
        .collect();
    if !nothing_listens.is_empty() {
        message.push_str(&format!(" {}", listens_elsewhere(evidence, &nothing_listens)));
    }
    let is_local = |c: &&Case| {
        matches!(
            c.reason,
            Reason::ListensOnLoopbackOnly | Reason::WrongFamilyListening
        )
    };
    if of.iter().all(is_local) {
        message.push_str(&format!(
            " The application listens only on {}.",
            text::list(&listening::addresses(evidence, &failures))
        ));
    }
    let remediation =
        different_pod(facts, &failures).unwrap_or_else(|| advice(facts, Reason::TimedOut, &failures));
    Some(Finding::part_fails(
        Reason::SomeEndpointsFailing,
        message,
        remediation,
    ))
}

/// What the endpoints do that do not fail from everywhere.
fn what_others_do(
    evidence: &Evidence<'_>,
    cases: &[Case<'_, '_>],
    failing: &BTreeSet<IpAddr>,
) -> &'static str {
    let others: BTreeSet<IpAddr> = evidence.ends.targets.keys().map(SocketAddr::ip).collect();
    let others: BTreeSet<&IpAddr> = others.difference(failing).collect();
    let fails_for_some = cases
        .iter()
        .filter_map(|c| Some(c.failed.endpoint?.ip()))
        .any(|ip| others.contains(&ip));
    // In a window not all were dialled.
    let is_of_all = !fails_for_some && !evidence.ends.is_in_a_window();
    let is_udp = cases.iter().all(|c| is_udp(&c.failed.dial.port));
    match (is_udp, is_of_all, others.len()) {
        (true, true, 1) => "the other does not refuse",
        (true, true, _) => "the others do not refuse",
        (true, false, _) => "others do not refuse",
        (false, true, 1) => "the other answers",
        (false, true, _) => "the others answer",
        (false, false, _) => "others answer",
    }
}

/// What to do about the first of the Pods that fail. That of a Job is not to serve anybody.
fn different_pod(facts: &Facts, failures: &[&Failed<'_>]) -> Option<String> {
    let pod = failures
        .iter()
        .filter_map(|f| f.target?.pod)
        .min_by_key(|p| p.name())?;
    let ns = quoted(&facts.namespace);
    let (kind, owner) = workloads::owner(facts, pod);
    Some(if kind == "Job" {
        format!(
            "Pod {} belongs to Job {owner}. If the Job should not serve clients, add a label that the Job's Pods lack to the selector of the Service: `kubectl -n {ns} edit service {}`.",
            pod.name(),
            quoted(&facts.spec.service_name)
        )
    } else {
        let pod = quoted(pod.name());
        format!(
            "Find out how Pod {pod} differs from the others: `kubectl -n {ns} describe pod {pod}` and `kubectl -n {ns} logs {pod}`."
        )
    })
}

fn listens_elsewhere(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> String {
    let open = listening::open_ports(evidence, failures);
    let whose = match describe::pods(failures).len() {
        1 => "this Pod",
        _ => "these Pods",
    };
    if open.is_empty() {
        format!("No other port of {whose} is open to clients.")
    } else {
        format!("Open ports of {whose}: {}.", text::list(&open))
    }
}

fn describe_cases(evidence: &Evidence<'_>, reason: Reason, cases: &[&Case<'_, '_>]) -> (String, String) {
    let facts = evidence.facts;
    let all = dialling::failures(cases);
    let Some(first) = all.first() else {
        return (String::new(), String::new());
    };
    // What is said of a port is said of the Pods that fail at that port.
    let number_of = |f: &Failed<'_>| f.endpoint.map(|e| e.port());
    let is_of_port = |f: &&&Failed<'_>| f.dial.port == first.dial.port && number_of(f) == number_of(first);
    let failures: Vec<&Failed> = all.iter().filter(is_of_port).copied().collect();
    let namespace = quoted(&facts.namespace);
    let number = first.endpoint.map_or(0, |e| e.port());
    let wanted = format!("{number}/{}", listening::protocol(first));
    let pods = describe::pods(&failures);
    let (who, listen) = match pods.as_slice() {
        [one] => (format!("Pod {one}"), "listens"),
        several => (text::count(several.len(), "Pod"), "listen"),
    };
    let port = describe::port(evidence, &first.dial.port);
    let endpoints = describe::endpoints(&failures);
    match reason {
        Reason::NotListening => (
            format!(
                "Nothing listens on port {wanted} in {who}. {endpoints}. {}",
                listens_elsewhere(evidence, &failures)
            ),
            format!(
                "Set targetPort of Service port {port} to a port that the Pods listen on: `kubectl -n {namespace} edit service {}`. Or make the application listen on {number}.",
                quoted(&facts.spec.service_name)
            ),
        ),
        Reason::ListensOnLoopbackOnly => (
            format!(
                "{who} {listen} on port {wanted} only at {}, which is unreachable from outside the Pod. {endpoints}.",
                text::list(&listening::addresses(evidence, &failures))
            ),
            format!(
                "Make the application listen on all addresses (0.0.0.0, or :: for both families). Check how it is configured: `kubectl -n {namespace} describe pod {}`.",
                quoted(pods.first().copied().unwrap_or_default())
            ),
        ),
        Reason::WrongFamilyListening => wrong_family::describe(evidence, &failures, &who, listen, &wanted),
        Reason::CrossNodeUnreachable => between_nodes::describe(evidence, &all),
        _ => match dialling::settings(cases) {
            Some((sentence, remediation)) => {
                (format!("{sentence}. {}.", describe::endpoints(&all)), remediation)
            }
            None => (
                format!(
                    "Endpoints of Service port {port} do not answer as expected. {endpoints}.{}",
                    what_else(evidence, &failures)
                ),
                refused_by_pod(evidence, reason, &failures)
                    .unwrap_or_else(|| advice(facts, reason, &failures)),
            ),
        },
    }
}

/// What is known of endpoints that do not answer some, beside that.
fn what_else(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> String {
    let facts = evidence.facts;
    let answers_at_home = |f: &&Failed<'_>| {
        f.endpoint
            .is_some_and(|e| evidence.is_reached_at_home(e, &f.dial.port))
    };
    let Some(first) = failures.first() else {
        return String::new();
    };
    if first.answer == Answer::Reset
        && let Some(pod) = evidence.ends.resets_for_its_mesh(first)
    {
        return format!(
            " The sidecar of Pod {pod} resets the connections, as a sidecar that accepts only mutual TLS from its service mesh does."
        );
    }
    if first.is_of_large_answers() {
        return " Small responses arrive and large ones do not, as when packets exceed the MTU of the path."
            .to_owned();
    }
    if !failures.iter().all(answers_at_home) {
        return String::new();
    }
    match (
        first.answer,
        crate::dialling::advice::rejecting_node(facts, first),
    ) {
        (Answer::NoAnswer, _) => {
            " They answer on their own node, so packets that exceed the MTU between the nodes may be lost."
                .to_owned()
        }
        (Answer::Unreachable | Answer::Rejected, Some(by))
            if crate::dialling::advice::is_prohibited(first) =>
        {
            format!(" They answer on their own node. A firewall rule on node {by} rejects the packets.")
        }
        (Answer::Unreachable | Answer::Rejected, Some(by)) => {
            format!(
                " They answer on their own node. Node {by} rejects the packets, because of a firewall or a missing route."
            )
        }
        // Their own node may have done no more than connect.
        (Answer::Unexpected, _) => String::new(),
        _ if failures.iter().any(|f| is_udp(&f.dial.port)) => String::new(),
        _ => " They answer on their own node.".to_owned(),
    }
}

/// A Pod that refuses: what it does can be seen in its log, and what it was to do in its ports.
fn refused_by_pod(evidence: &Evidence<'_>, reason: Reason, failures: &[&Failed<'_>]) -> Option<String> {
    let facts = evidence.facts;
    let pod = quoted(describe::pods(failures).first()?);
    let by_pod = failures.iter().all(|f| f.answer == Answer::Refused);
    if reason != Reason::ConnectionRefused || !by_pod {
        return None;
    }
    let (namespace, service) = (quoted(&facts.namespace), quoted(&facts.spec.service_name));
    let declared = match dialling::undeclared_port(evidence, failures) {
        Some((_, declared)) => format!(" (its containers declare {declared})"),
        None => String::new(),
    };
    Some(format!(
        "Find out whether the application listens, and on which port{declared}: `kubectl -n {namespace} logs {pod}` may show it. If it is not the targetPort, set targetPort to it: `kubectl -n {namespace} edit service {service}`."
    ))
}
