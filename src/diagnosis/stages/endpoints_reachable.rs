//! Do the Pods answer when the Service is bypassed?

use std::collections::BTreeSet;

use super::{
    super::{
        Facts, Finding,
        paths::{Dials, Failed, Paths, Way, is_udp},
        told,
        vantage::{self, Vantage},
        words,
    },
    listening,
    reaching::{self, Case},
};
use crate::api::{Answer, ConditionType, Reason};

/// What was not done where nobody looked.
const WHAT: &str = "The endpoints were not dialled";

pub(super) fn judge(facts: &Facts) -> Finding {
    if facts.service.as_deref().is_some_and(|s| s.is_external_name()) {
        return Finding::not_applicable("An ExternalName Service has no endpoints.");
    }
    let vantage = Vantage::of(facts);
    if let Some(finding) = vantage.nobody(WHAT) {
        return finding;
    }
    let Some(paths) = Paths::of(facts, &vantage) else {
        return Finding::not_applicable("There is no Service.");
    };
    if !paths.has_ports_to_dial() {
        return Finding::not_applicable("The Service lists no port that can be dialled (TCP or UDP).");
    }
    let dials = paths.dials(Way::Direct);
    if let Some(fault) = fault(facts, &paths, &dials) {
        return fault;
    }
    if dials.is_intercepted && !dials.has_clients() && vantage.incomplete(WHAT).is_none() {
        return reaching::intercepted();
    }
    if paths.targets.is_empty() {
        return Finding::not_applicable("No endpoint is ready; those that are ending are not dialled.");
    }
    if dials.is_node_shut_out && dials.succeeded() == 0 && !dials.is_shut_out {
        return Finding::unknown(
            Reason::ProbeFailed,
            "Only nodes dialled the endpoints, and a NetworkPolicy may keep nodes away from them.",
        );
    }
    if dials.made() == 0
        && !dials.is_intercepted
        && vantage.problem().is_none()
        && vantage.incomplete(WHAT).is_none()
    {
        return Finding::unknown(
            Reason::NoVantagePoint,
            format!("{WHAT}: neither a client Pod nor an endpoint is on a node that was asked."),
        );
    }
    reaching::left_open(facts, &vantage, &dials, WHAT).unwrap_or_else(|| {
        let from = if dials.has_clients() {
            "from client Pods and from their own nodes"
        } else {
            "from their own nodes"
        };
        Finding::yes(
            Reason::AllEndpointsAnswer,
            format!("The endpoints {}, dialled {from}.", dials.answer()),
        )
    })
}

fn fault(facts: &Facts, paths: &Paths<'_>, dials: &Dials<'_>) -> Option<Finding> {
    let mut cases: Vec<Case> = dials
        .failures
        .iter()
        .map(|failed| classify(paths, dials, failed))
        .collect();
    // A port that nobody reaches says more than an endpoint that somebody does not.
    if cases.iter().any(|c| dials.is_dead(&c.failed.dial.port)) {
        cases.retain(|c| dials.is_dead(&c.failed.dial.port));
    } else {
        let is_of_a_way =
            |c: &Case| reaching::is_explained(c.reason) || c.reason == Reason::CrossNodeUnreachable;
        if cases.iter().any(is_of_a_way) {
            cases.retain(is_of_a_way);
        } else if let Some(finding) = some_endpoints(facts, paths, dials, &cases) {
            return Some(finding);
        }
    }
    let (reason, of) = reaching::foremost(&cases, ConditionType::EndpointsReachable.faults())?;
    let (mut message, remediation) = told(facts, paths, reason, &of);
    if matches!(
        reason,
        Reason::TimedOut | Reason::NoRouteToHost | Reason::CrossNodeUnreachable
    ) {
        reaching::with_other_kinds(facts, &mut message);
    }
    Some(if dials.is_all_dead() {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    })
}

fn classify<'a, 'b>(paths: &Paths<'a>, dials: &Dials<'a>, failed: &'b Failed<'a>) -> Case<'a, 'b> {
    let mut case = reaching::case(paths, failed);
    if failed.dial.answer == Answer::Refused {
        case.reason = listening::why_refused(paths, failed);
    } else if case.explanation.is_none() && is_cross_node(paths, dials, failed) {
        case.reason = Reason::CrossNodeUnreachable;
    }
    case
}

/// Whether the way between the nodes is at fault: the endpoint answers at home, or, where nobody tried
/// there, all endpoints on other nodes fail and those on the same node do not.
fn is_cross_node(paths: &Paths<'_>, dials: &Dials<'_>, failed: &Failed<'_>) -> bool {
    let Some(endpoint) = failed.endpoint else {
        return false;
    };
    let is_lost = matches!(
        failed.dial.answer,
        Answer::TimedOut | Answer::Unreachable | Answer::Rejected
    );
    if !is_lost || failed.dial.same_node != Some(false) {
        return false;
    }
    if paths.is_reached_at_home(dials, endpoint, &failed.dial.port) {
        return true;
    }
    let fails_at_home = dials
        .failures
        .iter()
        .any(|f| f.endpoint == Some(endpoint) && f.dial.same_node == Some(true));
    let of_port = || dials.counts.iter().filter(|c| c.port == failed.dial.port);
    let same_node_works = of_port().any(|c| c.same_node == Some(true) && c.succeeded > 0);
    let others_work = of_port().any(|c| c.same_node == Some(false) && c.succeeded > 0);
    !fails_at_home && same_node_works && !others_work
}

/// Endpoints that fail from everywhere, beside others that answer.
fn some_endpoints(
    facts: &Facts,
    paths: &Paths<'_>,
    dials: &Dials<'_>,
    cases: &[Case<'_, '_>],
) -> Option<Finding> {
    let fails_everywhere = |c: &&Case| {
        c.failed
            .endpoint
            .is_some_and(|e| paths.fails_from_everywhere(dials, e, &c.failed.dial.port))
    };
    let of: Vec<&Case> = cases.iter().filter(fails_everywhere).collect();
    if of.is_empty() {
        return None;
    }
    let failures = reaching::failures(&of);
    // An endpoint with several ports is one.
    let failing: BTreeSet<_> = failures.iter().filter_map(|f| Some(f.endpoint?.ip())).collect();
    let all: BTreeSet<_> = paths.targets.keys().map(std::net::SocketAddr::ip).collect();
    let pods = told::pods(&failures);
    let mut message = format!(
        "{} of {} endpoints fail though the others {}: {}.",
        failing.len(),
        all.len(),
        if failures.iter().all(|f| is_udp(&f.dial.port)) {
            "do not refuse"
        } else {
            "answer"
        },
        told::endpoints(&failures)
    );
    if of.iter().any(|c| c.reason == Reason::NotListening) {
        message.push_str(&format!(" {}", listens_elsewhere(paths, &failures)));
    }
    let remediation = match pods.first() {
        Some(pod) => format!(
            "See what is different there: `kubectl -n {ns} describe pod {pod}`, `kubectl -n {ns} logs {pod}`; have it made anew: `kubectl -n {ns} delete pod {}`.",
            pods.join(" "),
            ns = facts.namespace
        ),
        None => reaching::advice(facts, Reason::TimedOut, &failures),
    };
    Some(Finding::part_fails(
        Reason::SomeEndpointsFailing,
        message,
        remediation,
    ))
}

fn listens_elsewhere(paths: &Paths<'_>, failures: &[&Failed<'_>]) -> String {
    let open = listening::open_ports(paths, failures);
    if open.is_empty() {
        "No other port is open there.".to_owned()
    } else {
        format!("Open ports: {}.", words::list(&open))
    }
}

fn told(facts: &Facts, paths: &Paths<'_>, reason: Reason, cases: &[&Case<'_, '_>]) -> (String, String) {
    let failures = reaching::failures(cases);
    let Some(first) = failures.first() else {
        return (String::new(), String::new());
    };
    let namespace = &facts.namespace;
    let number = first.endpoint.map_or(0, |e| e.port());
    let wanted = format!("{number}/{}", listening::protocol(first));
    let pods = told::pods(&failures);
    let (who, listen) = match pods.as_slice() {
        [one] => (format!("Pod {one}"), "listens"),
        several => (words::count(several.len(), "Pod"), "listen"),
    };
    let port = told::port(paths, &first.dial.port);
    let endpoints = told::endpoints(&failures);
    match reason {
        Reason::NotListening => (
            format!(
                "Nothing listens on port {wanted} in {who}: {endpoints}. {}",
                listens_elsewhere(paths, &failures)
            ),
            format!(
                "Set targetPort of port {port} to a port that the Pods listen on: `kubectl -n {namespace} edit service {}`, or let the application listen on {number}.",
                facts.spec.service_name
            ),
        ),
        Reason::ListensOnLoopbackOnly => (
            format!(
                "{who} {listen} on port {wanted} at {} only, where nobody else reaches it: {endpoints}.",
                words::list(&listening::addresses(paths, &failures))
            ),
            format!(
                "Let the application listen on all addresses (0.0.0.0, or :: for both families); see how it is told: `kubectl -n {namespace} describe pod {}`.",
                pods.first().copied().unwrap_or_default()
            ),
        ),
        Reason::WrongFamilyListening => (
            format!(
                "{who} {listen} on port {wanted} at {} only, which is the other IP family than the Service's: {endpoints}.",
                words::list(&listening::addresses(paths, &failures))
            ),
            format!(
                "Let the application listen in both families, or give the Service the other one in ipFamilies; see how it is told: `kubectl -n {namespace} describe pod {}`.",
                pods.first().copied().unwrap_or_default()
            ),
        ),
        Reason::CrossNodeUnreachable => {
            let nodes: BTreeSet<&str> = failures
                .iter()
                .flat_map(|f| [Some(f.node), f.target.and_then(|t| t.node)])
                .flatten()
                .collect();
            let nodes: Vec<&str> = nodes.into_iter().collect();
            let ip = first.endpoint.map(|e| e.ip().to_string()).unwrap_or_default();
            (
                format!("Endpoints answer on their own node but not from other nodes: {endpoints}."),
                format!(
                    "Mend the Pod network between {}: see the way there, `ip route get {ip}` on node {}, and the way back; the network plugin's Pods: `kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={}`.",
                    vantage::nodes(&nodes),
                    first.node,
                    first.target.and_then(|t| t.node).unwrap_or(first.node)
                ),
            )
        }
        _ => match reaching::settings(cases) {
            Some((sentence, remediation)) => (format!("{sentence}: {endpoints}."), remediation),
            None => (
                format!("Endpoints of port {port} do not answer as they should: {endpoints}."),
                refused_by_pod(facts, reason, &failures)
                    .unwrap_or_else(|| reaching::advice(facts, reason, &failures)),
            ),
        },
    }
}

/// A Pod that refuses: what it does can be seen in its log.
fn refused_by_pod(facts: &Facts, reason: Reason, failures: &[&Failed<'_>]) -> Option<String> {
    let pod = told::pods(failures).first().copied()?;
    let by_pod = failures.iter().all(|f| f.dial.answer == Answer::Refused);
    (reason == Reason::ConnectionRefused && by_pod).then(|| {
        format!(
            "See on which port the application listens: `kubectl -n {} logs {pod}`; targetPort has to be that port: `kubectl -n {} edit service {}`.",
            facts.namespace, facts.namespace, facts.spec.service_name
        )
    })
}
