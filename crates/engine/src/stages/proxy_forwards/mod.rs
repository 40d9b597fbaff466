//! Is kube-proxy proxying, tried from the nodes?

mod describe;
mod other_nodes;
mod stale_connections;

use std::collections::BTreeSet;

use crate::{
    Facts, Finding,
    dialling::{self, describe as dials},
    evidence::{
        Evidence,
        dials::Failed,
        losses,
        proxies::{self, Proxy},
    },
    stages::{
        checks::{Check, without_address},
        proxy_forwards::stale_connections::stale_connections,
    },
    text,
};
use svcdiag_api::{Answer, ConditionType, LossyPath, Reason};
use svcdiag_kube_proxy::destinations;
use svcdiag_objects::Service;

const WHAT: &str = "The Service's addresses were not dialled from the nodes";

/// Whether the question arises, and what is wrong beside dials.
const APPLIES: [Check; 5] = [
    without_address,
    nobody_looked,
    stale_connections,
    proxy_port_fails,
    nothing_to_dial,
];

/// What the nodes' dials say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 9] = [
    service_is_lost,
    endpoints_are_lost,
    endpoints_nodes_were_not_heard,
    endpoints_were_not_dialled,
    replacement_may_not_serve_nodes,
    policies_may_block_nodes,
    not_dialled_from_nodes,
    no_local_endpoint,
    left_open,
];

/// The failed dials of the nodes to the Service, sorted by what they prove.
struct Survey<'a> {
    evidence: &'a Evidence<'a>,
    /// Of nodes that got an answer past the Service.
    own: Vec<&'a Failed<'a>>,
    /// Of endpoints that fail past the Service as well.
    explained: Vec<&'a Failed<'a>>,
    /// Of endpoints on other nodes of which nothing is known, or not yet: packets may be lost there.
    unanswered: Vec<&'a Failed<'a>>,
    /// Of nodes that have not dialled past the Service.
    doubtful: Vec<&'a Failed<'a>>,
    /// Of nodes where something else does kube-proxy's work.
    replaced: Vec<&'a Failed<'a>>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let survey = Survey::of(evidence);
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| forwards(evidence))
}

impl<'a> Survey<'a> {
    fn of(evidence: &'a Evidence<'a>) -> Self {
        // That an answer is an odd one is no matter of the way it took.
        let is_odd = |f: &&Failed<'_>| matches!(f.answer, Answer::Unexpected | Answer::Reset);
        let lost = evidence.from_nodes.failures.iter().filter(|f| !is_odd(f));
        let (replaced, own): (Vec<&Failed<'_>>, Vec<&Failed<'_>>) =
            lost.partition(|f| is_replaced(evidence, f.node));
        let (explained, own): (Vec<&Failed<'_>>, Vec<&Failed<'_>>) =
            own.into_iter().partition(|f| is_explained(evidence, f));
        let (unanswered, own): (Vec<&Failed<'_>>, Vec<&Failed<'_>>) =
            own.into_iter().partition(|f| is_of_unheard_node(evidence, f));
        let (own, doubtful): (Vec<&Failed<'_>>, Vec<&Failed<'_>>) =
            own.into_iter().partition(|f| is_past_doubt(evidence, f));
        Self {
            evidence,
            own,
            explained,
            unanswered,
            doubtful,
            replaced,
        }
    }
}

fn nobody_looked(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.reports.nobody(WHAT)
}

fn nothing_to_dial(evidence: &Evidence<'_>) -> Option<Finding> {
    dialling::unjudged(evidence, WHAT)
}

fn service_is_lost(survey: &Survey<'_>) -> Option<Finding> {
    describe::fault(survey.evidence, &survey.own)
}

fn endpoints_are_lost(survey: &Survey<'_>) -> Option<Finding> {
    let is_explained = !survey.explained.is_empty();
    is_explained.then(|| Finding::blocked(ConditionType::EndpointsReachable))
}

fn endpoints_nodes_were_not_heard(survey: &Survey<'_>) -> Option<Finding> {
    survey.unanswered.first()?;
    survey.evidence.reports.incomplete()
}

/// Whether packets of a dial are lost, and may be so on the endpoint's node, whose agent has stopped reporting or has not
/// answered yet.
fn is_of_unheard_node(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let node = failed.target.and_then(|target| target.node);
    let is_elsewhere = node.filter(|node| *node != failed.node);
    let reports = &evidence.reports;
    failed.is_lost()
        && is_elsewhere.is_some_and(|node| reports.waiting.contains(&node) || reports.silent.contains(&node))
}

fn endpoints_were_not_dialled(survey: &Survey<'_>) -> Option<Finding> {
    let first = survey.doubtful.first()?;
    let node = first.node;
    let why = match (first.endpoint, dialling::reaches_directly(survey.evidence, first)) {
        (Some(endpoint), Some(_)) => format!(
            "Dials from node {node} to the Service fail, and so does its dial of endpoint {endpoint} past the Service. Something may keep the node itself away, for example a policy that is not evaluated."
        ),
        _ => format!(
            "Dials from node {node} to the Service fail, but its endpoints were not dialled directly from that node, so it is not known whether they answer there."
        ),
    };
    Some(Finding::unknown(Reason::ProbeFailed, why))
}

fn replacement_may_not_serve_nodes(survey: &Survey<'_>) -> Option<Finding> {
    let first = survey.replaced.first()?;
    let Some(Proxy::Replaced(by)) = proxy_of(survey.evidence, first.node) else {
        return None;
    };
    Some(Finding::unknown(
        Reason::ProxyReplaced,
        format!(
            "Dials from the nodes to the Service fail. {by} replaces kube-proxy and may not serve the nodes themselves."
        ),
    ))
}

fn policies_may_block_nodes(survey: &Survey<'_>) -> Option<Finding> {
    let evidence = survey.evidence;
    if !evidence.from_nodes.is_node_shut_out {
        return None;
    }
    Some(match evidence.from_clients.succeeded() {
        0 => Finding::unknown(
            Reason::ProbeFailed,
            "Only dials from nodes fail, and a NetworkPolicy that isolates the Pods may block nodes.",
        ),
        _ => Finding::not_applicable(
            "A NetworkPolicy isolates the Pods and only dials from nodes fail: the policy may block nodes.",
        ),
    })
}

/// Whether no node has dialled, though all have reported.
fn is_untried(survey: &Survey<'_>) -> bool {
    survey.evidence.from_nodes.made() == 0 && survey.evidence.reports.incomplete().is_none()
}

fn not_dialled_from_nodes(survey: &Survey<'_>) -> Option<Finding> {
    let reports = &survey.evidence.reports.current;
    let is_asked = reports.iter().any(|r| r.asked.from_node);
    (is_untried(survey) && !is_asked).then(|| {
        Finding::not_applicable(
            "Some endpoints are not addresses of Pods in the namespace. Such a Service is not dialled from nodes.",
        )
    })
}

fn no_local_endpoint(survey: &Survey<'_>) -> Option<Finding> {
    let reports = &survey.evidence.reports.current;
    let leads = |node: &str| leads_anywhere(survey.evidence.facts, node);
    (is_untried(survey) && reports.iter().all(|r| !leads(r.node))).then(|| {
        Finding::not_applicable(
            "The traffic policy of the Service is Local, and it has no endpoint for the probed nodes.",
        )
    })
}

fn left_open(survey: &Survey<'_>) -> Option<Finding> {
    let dials = &survey.evidence.from_nodes;
    dialling::left_open(survey.evidence, dials, (ConditionType::ProxyForwards, WHAT))
}

fn forwards(evidence: &Evidence<'_>) -> Finding {
    let dials = &evidence.from_nodes;
    let nodes: BTreeSet<&str> = dials
        .counts
        .iter()
        .filter(|c| c.succeeded > 0)
        .map(|c| c.node)
        .collect();
    let outside = match evidence.service.is_some_and(Service::is_for_outside) {
        true => {
            " It was not dialled from outside the cluster, where firewalls and load balancers may be in front of it."
        }
        false => "",
    };
    let closed = other_nodes::closed(evidence).unwrap_or_default();
    let lost = losses::hint(evidence, losses::From::Nodes, &[LossyPath::Service]);
    Finding::yes(
        Reason::Forwards,
        format!(
            "The Service's addresses {}, dialled from {}.{lost}{closed}{outside}",
            dials.answer(),
            text::count(nodes.len(), "node")
        ),
    )
}

/// In userspace mode packets go through kube-proxy itself: where nobody answers on its port, its rules lead
/// nowhere, whatever the endpoints do.
fn proxy_port_fails(evidence: &Evidence<'_>) -> Option<Finding> {
    let reports = &evidence.reports;
    let (report, (port, answer)) = reports
        .current
        .iter()
        .filter_map(|r| Some((r, r.saved?.proxy_port?)))
        .find(|(_, (_, answer))| *answer != Answer::Accepted)?;
    let reason = match answer {
        Answer::TimedOut => Reason::TimedOut,
        Answer::Unreachable => Reason::NoRouteToHost,
        _ => Reason::ConnectionRefused,
    };
    let node = report.node;
    Some(Finding::part_fails(
        reason,
        format!(
            "The rules on node {node} lead to port {port} of kube-proxy (userspace mode), but dials of that port fail: {}.",
            dials::result(answer)
        ),
        format!(
            "Restart kube-proxy on node {node} with -v=4 and look for `Setting endpoints for` in its log: it should name the Service with its endpoints."
        ),
    ))
}

fn proxy_of<'a>(evidence: &Evidence<'a>, node: &str) -> Option<Proxy<'a>> {
    let reports = &evidence.reports;
    reports.current.iter().find(|r| r.node == node).map(proxies::of)
}

fn is_replaced(evidence: &Evidence<'_>, node: &str) -> bool {
    matches!(proxy_of(evidence, node), Some(Proxy::Replaced(_)))
}

/// Whether the node has any endpoint to send packets to.
fn leads_anywhere(facts: &Facts, node: &str) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let seen_from = svcdiag_kube_proxy::Vantage { node, zone: None };
    destinations(service, &slices, seen_from)
        .iter()
        .flat_map(|port| &port.destinations)
        .any(|d| matches!(d.inside, svcdiag_kube_proxy::Traffic::To(_)))
}

/// Whether the very node that fails through the Service got an answer past it: its own dial of an endpoint
/// that it has, or one of a client on it. What others say of the endpoint may be older, and of its network
/// they say nothing.
fn is_past_doubt(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    match dialling::reaches_directly(evidence, failed) {
        Some(true) => return true,
        Some(false) => return dialling::case(evidence, failed).is_certain(),
        None => {}
    }
    let facts = evidence.facts;
    let direct = &evidence.direct;
    let mut counts = direct
        .counts
        .iter()
        .filter(|c| c.node == failed.node && c.port == failed.dial.port && c.succeeded > 0);
    match (failed.endpoint, failed.dial.same_node) {
        // Its own dials of the endpoint are not among the failures, or it would have been explained.
        (Some(_), Some(true)) => counts.any(|c| c.same_node == Some(true)),
        (Some(_), Some(false)) => counts.any(|c| c.same_node == Some(false)),
        // Endpoints on no node are dialled from any.
        (Some(_), None) => counts.any(|c| c.same_node != Some(true)),
        // Lost before it was sent to any endpoint: where one of the node's own could have taken it, or somebody
        // on the node reaches the others, the loss is the Service's.
        (None, _) => counts
            .any(|c| c.from.is_some() || c.same_node != Some(true) || leads_to_local(facts, failed.node)),
    }
}

/// Whether the node has an endpoint that its own packets may be sent to.
fn leads_to_local(facts: &Facts, node: &str) -> bool {
    facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .any(|e| e.is_ready() && e.node_name.as_deref() == Some(node))
}

/// Whether the endpoint, or the way to it, fails past the Service as well.
fn is_explained(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let direct = &evidence.direct;
    let of_port = || direct.failures.iter().filter(|d| d.dial.port == failed.dial.port);
    match failed.endpoint {
        Some(endpoint) if of_port().any(|d| d.endpoint == Some(endpoint)) => true,
        None if of_port().next().is_some() => true,
        _ => failed.dial.same_node != Some(true) && of_port().any(|d| d.dial.same_node == Some(false)),
    }
}
