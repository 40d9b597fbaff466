//! What is said of endpoints that do not answer, and what to do.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts, Finding,
    dialling::{self, Case, advice::advice, describe},
    evidence::{Evidence, dials::Failed, listening, packet_sizes::narrow_paths, sender::Sender},
    stages::endpoints_reachable::{between_nodes, path_mtu, wrong_family},
    text::{self, quoted},
    workloads,
};
use svcdiag_api::{Answer, Reason};
use svcdiag_objects::Object;

/// Endpoints that fail from everywhere, beside others that answer.
pub(super) fn some_endpoints(evidence: &Evidence<'_>, cases: &[Case<'_, '_>]) -> Option<Finding> {
    let facts = evidence.facts;
    let fails_everywhere = |c: &&Case| {
        c.failed
            .endpoint
            .is_some_and(|e| evidence.fails_from_everywhere(e, c.failed.dial.port))
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
    dialling::with_addresses(evidence, &failures, &mut message);
    if of.iter().all(|c| c.reason == Reason::AcceptQueueFull) {
        message.push_str(" The application does not accept connections there: its accept queue is full.");
    }
    let differs = |failures: &[&Failed<'_>]| {
        different_pod(facts, failures).unwrap_or_else(|| advice(evidence, Reason::TimedOut, failures))
    };
    let remediation = match dialling::certain_cause(evidence, &of, |open| differs(open)) {
        Some((sentence, remediation)) => {
            message.push_str(&format!(" {sentence}."));
            remediation
        }
        None => differs(&failures),
    };
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
    let is_udp = cases.iter().all(|c| c.failed.dial.port.is_udp());
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

pub(super) fn describe_cases(
    evidence: &Evidence<'_>,
    reason: Reason,
    cases: &[&Case<'_, '_>],
) -> (String, String) {
    let facts = evidence.facts;
    let all = dialling::failures(cases);
    let Some(first) = all.first() else {
        return (String::new(), String::new());
    };
    let failures = of_one_port(first, &all);
    let namespace = quoted(&facts.namespace);
    let number = first.endpoint.map_or(0, |e| e.port());
    let wanted = format!("{number}/{}", first.dial.port.protocol);
    let pods = describe::pods(&failures);
    let (who, listen) = match pods.as_slice() {
        [one] => (format!("Pod {one}"), "listens"),
        several => (text::count(several.len(), "Pod"), "listen"),
    };
    let port = describe::port(evidence, first.dial.port);
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
        Reason::AcceptQueueFull => (
            format!(
                "The application in {who} does not accept connections on port {wanted}: its accept queue is full. {endpoints}."
            ),
            format!(
                "Find out what the application is busy with: `kubectl -n {namespace} logs {}`. It may hang, or get more connections than it can handle; then run more replicas, or let it accept faster or with a longer queue (the backlog of listen and the sysctl net.core.somaxconn).",
                quoted(pods.first().copied().unwrap_or_default())
            ),
        ),
        Reason::LostBetweenNodes | Reason::CrossNodeUnreachable => between_nodes(evidence, cases),
        Reason::PathMTUTooSmall => {
            let (message, remediation) = path_mtu::describe(&narrow_paths(evidence)).unwrap_or_default();
            (format!("{message} {}.", describe::endpoints(&all)), remediation)
        }
        _ => match dialling::cause(evidence, cases, |open| what_to_do(evidence, reason, open)) {
            Some((sentence, remediation)) => {
                (format!("{sentence}. {}.", describe::endpoints(&all)), remediation)
            }
            None => (
                format!(
                    "Endpoints of Service port {port} do not answer as expected. {endpoints}.{}",
                    what_else(evidence, &failures)
                ),
                what_to_do(evidence, reason, &failures),
            ),
        },
    }
}

/// Losses between nodes. What explains only some of them is said beside what is known of the way.
fn between_nodes(evidence: &Evidence<'_>, cases: &[&Case<'_, '_>]) -> (String, String) {
    let all = dialling::failures(cases);
    if cases.iter().all(|c| c.is_seen()) {
        let dropped = dialling::found(cases);
        return between_nodes::describe(evidence, &all, dropped);
    }
    let (message, remediation) = between_nodes::describe(evidence, &all, None);
    let of_way = |open: &[&Failed<'_>]| between_nodes::describe(evidence, open, None).1;
    match dialling::cause(evidence, cases, of_way) {
        Some((sentence, remediation)) => (format!("{message} {sentence}."), remediation),
        None => (message, remediation),
    }
}

/// What to do where only the answer is known.
fn what_to_do(evidence: &Evidence<'_>, reason: Reason, failures: &[&Failed<'_>]) -> String {
    refused_by_pod(evidence, reason, failures).unwrap_or_else(|| advice(evidence, reason, failures))
}

/// The failures at the port of the first: what is said of a port is said of the Pods that fail at that port.
fn of_one_port<'a, 'b>(first: &Failed<'_>, all: &[&'b Failed<'a>]) -> Vec<&'b Failed<'a>> {
    let number = |f: &Failed<'_>| f.endpoint.map(|e| e.port());
    let is_of_port = |f: &&&Failed<'_>| f.dial.port == first.dial.port && number(f) == number(first);
    all.iter().filter(is_of_port).copied().collect()
}

/// What is known of endpoints that do not answer some, beside that.
fn what_else(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> String {
    let answers_at_home = |f: &&Failed<'_>| {
        f.endpoint
            .is_some_and(|e| evidence.is_reached_at_home(e, f.dial.port))
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
    match (first.answer, first.sender().and_then(Sender::node_text)) {
        (Answer::NoAnswer, _) => {
            " They answer on their own node, so packets that exceed the MTU between the nodes may be lost."
                .to_owned()
        }
        (Answer::Unreachable | Answer::Rejected, Some(by)) => {
            format!(
                " They answer on their own node. {by} rejects the packets, because of a firewall or a missing route."
            )
        }
        // Their own node may have done no more than connect.
        (Answer::Unexpected, _) => String::new(),
        _ if failures.iter().any(|f| f.dial.port.is_udp()) => String::new(),
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
