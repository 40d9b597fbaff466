//! Is kube-proxy proxying, tried from the nodes?

use std::net::SocketAddr;

use crate::{
    Facts, Finding, applicable,
    dialling::{self, advice::advice, describe},
    evidence::{
        Evidence,
        dials::{Dials, Failed, is_udp},
        proxies::{self, Proxy},
    },
    text::{self, quoted},
};
use svcdiag_api::{Answer, ConditionType, Reason, StaleConnection};
use svcdiag_kube_proxy::{Protocol, destinations, expected};
use svcdiag_objects::Service;

const WHAT: &str = "The Service's addresses were not dialled from the nodes";

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if let Some(finding) = applicable::without_address(facts) {
        return finding;
    }
    let reports = &evidence.reports;
    if let Some(finding) = reports.nobody(WHAT) {
        return finding;
    }
    if let Some(finding) = stale_connections(evidence).or_else(|| proxy_port(evidence)) {
        return finding;
    }
    if let Some(finding) = dialling::unjudged(evidence, WHAT) {
        return finding;
    }
    let dials = &evidence.from_nodes;
    // That an answer is an odd one is no matter of the way it took.
    let lost = dials
        .failures
        .iter()
        .filter(|f| !matches!(f.answer, Answer::Unexpected | Answer::Reset));
    let (replaced, own): (Vec<&Failed>, Vec<&Failed>) = lost.partition(|f| is_replaced(evidence, f.node));
    let (explained, own): (Vec<&Failed>, Vec<&Failed>) =
        own.into_iter().partition(|f| is_explained(evidence, f));
    let (own, doubtful): (Vec<&Failed>, Vec<&Failed>) =
        own.into_iter().partition(|f| is_past_doubt(evidence, f));
    if let Some(finding) = fault(evidence, &own) {
        return finding;
    }
    if !explained.is_empty() {
        return Finding::blocked(ConditionType::EndpointsReachable);
    }
    if let Some(first) = doubtful.first() {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "Dials from node {} to the Service fail, but its endpoints were not dialled directly from that node, so it is not known whether they answer there.",
                first.node
            ),
        );
    }
    if let Some(Proxy::Replaced(by)) = replaced.first().and_then(|f| proxy_of(evidence, f.node)) {
        return Finding::unknown(
            Reason::ProxyReplaced,
            format!(
                "Dials from the nodes to the Service fail. {by} replaces kube-proxy and may not serve the nodes themselves."
            ),
        );
    }
    if dials.is_node_shut_out {
        return if evidence.from_clients.succeeded() > 0 {
            Finding::not_applicable(
                "A NetworkPolicy isolates the Pods and only dials from nodes fail: the policy may block nodes.",
            )
        } else {
            Finding::unknown(
                Reason::ProbeFailed,
                "Only dials from nodes fail, and a NetworkPolicy that isolates the Pods may block nodes.",
            )
        };
    }
    let asked_from_nodes = reports.current.iter().any(|r| r.asked.from_node);
    if dials.made() == 0 && reports.incomplete().is_none() {
        if !asked_from_nodes {
            return Finding::not_applicable(
                "Some endpoints are not addresses of Pods in the namespace. Such a Service is not dialled from nodes.",
            );
        }
        if reports.current.iter().all(|r| !leads_anywhere(facts, r.node)) {
            return Finding::not_applicable(
                "The traffic policy of the Service is Local, and it has no endpoint for the probed nodes.",
            );
        }
    }
    dialling::left_open(evidence, dials, (ConditionType::ProxyForwards, WHAT)).unwrap_or_else(|| {
        Finding::yes(
            Reason::Forwards,
            format!(
                "The Service's addresses {}, dialled from {}.{}",
                dials.answer(),
                text::count(nodes(dials), "node"),
                if is_for_outside(facts) {
                    " It was not dialled from outside the cluster, where firewalls and load balancers may be in front of it."
                } else {
                    ""
                }
            ),
        )
    })
}

/// In userspace mode packets go through kube-proxy itself: where nobody answers on its port, its rules lead
/// nowhere, whatever the endpoints do.
fn proxy_port(evidence: &Evidence<'_>) -> Option<Finding> {
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
            describe::result(answer)
        ),
        format!(
            "Restart kube-proxy on node {node} with -v=4 and look for `Setting endpoints for` in its log: it should name the Service with its endpoints."
        ),
    ))
}

fn is_for_outside(facts: &Facts) -> bool {
    facts.service.as_deref().is_some_and(Service::is_for_outside)
}

fn nodes(dials: &Dials<'_>) -> usize {
    let nodes: std::collections::BTreeSet<&str> = dials
        .counts
        .iter()
        .filter(|c| c.succeeded > 0)
        .map(|c| c.node)
        .collect();
    nodes.len()
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
    let facts = evidence.facts;
    let direct = &evidence.direct;
    let port = |port: &str| port == failed.dial.port;
    let mut counts = direct
        .counts
        .iter()
        .filter(|c| c.node == failed.node && port(c.port) && c.succeeded > 0);
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

fn fault<'a>(evidence: &Evidence<'a>, failures: &[&Failed<'a>]) -> Option<Finding> {
    let facts = evidence.facts;
    let dials = &evidence.from_nodes;
    let cases = dialling::cases(evidence, dials, failures);
    let (reason, of) = dialling::foremost(&cases, ConditionType::ProxyForwards.faults())?;
    let failures = dialling::failures(&of);
    let routes = describe::routes(&failures);
    let from = match failures.iter().all(|f| dials.is_dead_for(f)) {
        true => "nodes",
        false => "some dials from nodes",
    };
    let mut message_more = String::new();
    let (mut message, remediation) = match dialling::settings(&of) {
        Some((sentence, remediation)) => (format!("{sentence}. {routes}."), remediation),
        None => (
            if failures.iter().all(|f| is_udp(&f.dial.port)) {
                format!(
                    "The Service does not accept datagrams from {from}, although endpoints do not refuse them when dialled directly. {routes}."
                )
            } else {
                format!(
                    "The Service does not answer {from}, although endpoints do when dialled directly. {routes}."
                )
            },
            if let Some((said, remediation)) = never_masquerades(evidence, &failures) {
                message_more = format!(" {said}");
                remediation
            } else if failures.iter().all(|f| f.is_late()) {
                checksums(&failures)
            } else if is_lost_without_masquerading(evidence, &failures) {
                masquerading(&failures)
            } else {
                advice(facts, reason, &failures)
            },
        ),
    };
    message.push_str(&message_more);
    dialling::with_circumstances(evidence, dials, reason, &failures, &mut message);
    if let Some(other) = applicable::other_proxy(facts) {
        message.push_str(&format!(
            " Its label assigns the Service to another proxy, {other}."
        ));
    }
    if reason == Reason::TimedOut {
        dialling::with_other_kinds(facts, &mut message);
    }
    let clients_get_through = evidence.from_clients.succeeded() > 0;
    Some(if dials.is_all_dead() && !clients_get_through {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    })
}

/// What kube-proxy of the node logged of not knowing which addresses are Pods', where the node's own packets are lost:
/// it then masquerades none of those that the node sends to Services.
fn never_masquerades(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<(String, String)> {
    let node = failures.first()?.node;
    let is_lost = |f: &&Failed<'_>| f.answer == Answer::TimedOut && f.node == node;
    let mut reports = evidence.reports.current.iter().filter(|r| r.node == node);
    let said = reports.find_map(|r| r.saved?.masquerades_nothing.as_deref())?;
    failures.iter().all(is_lost).then(|| {
        (
            format!(
                "kube-proxy there does not know which addresses belong to Pods, so it does not masquerade packets from the node itself: {said}."
            ),
            format!(
                "Set clusterCIDR, or another detectLocalMode, in kube-proxy's configuration. A rule on node {} then marks packets that do not come from Pods: `iptables-save -t nat` there, or `nft list ruleset`.",
                quoted(node)
            ),
        )
    })
}

/// Packets that open connections get through only when they are sent again.
fn checksums(failures: &[&Failed<'_>]) -> String {
    format!(
        "The packets that open a connection are lost and sent again. Check on node {} whether the checksums of masqueraded packets survive the tunnel: `ethtool -k` for the tunnel's link (`ip -d link`), where tx-checksum-ip-generic may have to be off.",
        quoted(failures.first().map_or("", |f| f.node))
    )
}

/// Whether Pods of the node get through the Service and only what the node itself sends to other nodes is lost.
fn is_lost_without_masquerading(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> bool {
    let clients = &evidence.from_clients;
    failures.iter().all(|f| {
        let is_elsewhere = f.dial.same_node == Some(false)
            || f.endpoint.is_none()
                && evidence
                    .ends
                    .targets
                    .values()
                    .all(|t| t.node.is_some_and(|n| n != f.node));
        let gets_through = |c: &crate::evidence::dials::Count<'_>| c.node == f.node && c.succeeded > 0;
        f.answer == Answer::TimedOut && is_elsewhere && clients.counts.iter().any(gets_through)
    })
}

/// What a node sends through the Service has to get the node's address on the tunnel as its source.
fn masquerading(failures: &[&Failed<'_>]) -> String {
    let node = text::quoted(failures.first().map_or("", |f| f.node));
    format!(
        "Pods on the node get through, so the difference is how the node's own packets leave. Check on node {node} whether kube-proxy masquerades them (`nft list ruleset` or `iptables-save -t nat`: a rule that marks packets that do not come from Pods; \
         without clusterCIDR, or another detectLocalMode, in its configuration kube-proxy writes none), and whether their checksums survive the tunnel: `ethtool -k` for the tunnel's link (`ip -d link`), where tx-checksum-ip-generic may have to be off."
    )
}

/// Senders that are tied to a Pod that is gone. What does kube-proxy's work in its stead may have packets tracked
/// before it gives them another destination.
fn stale_connections(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let service = facts.service.as_deref()?;
    let mut found: Vec<(&str, &StaleConnection)> = reports
        .current
        .iter()
        .filter(|r| proxies::of(r) == Proxy::Own)
        .flat_map(|r| r.facts.stale_connections.iter().map(move |c| (r.node, c)))
        .filter(|(node, connection)| still_leads_nowhere(facts, service, node, connection))
        .collect();
    found.sort_by(|a, b| (a.0, &a.1.source, &a.1.endpoint).cmp(&(b.0, &b.1.source, &b.1.endpoint)));
    let (node, first) = found.first().copied()?;
    let entries: Vec<String> = found
        .iter()
        .map(|(node, c)| {
            // What kube-proxy had no rule for yet went on as it came.
            let goes = match c.endpoint == c.destination {
                true => "was tracked without being translated".to_owned(),
                false => format!("goes to {}", c.endpoint),
            };
            format!("on node {node}, {} to {} {goes}", c.source, c.destination)
        })
        .collect();
    let ip = |address: &str| {
        address
            .parse::<SocketAddr>()
            .map_or_else(|_| address.to_owned(), |a| a.ip().to_string())
    };
    Some(Finding::part_fails(
        Reason::StaleConntrackEntry,
        format!(
            "UDP conntrack entries still lead to endpoints that are gone. They do not expire, because the senders keep sending: {}.",
            text::list(&entries)
        ),
        format!(
            "Delete the entries on node {node}: `conntrack -D -p udp --orig-dst {} --reply-src {}`. The next packet then goes to a current endpoint.",
            quoted(&ip(&first.destination)),
            quoted(&ip(&first.endpoint))
        ),
    ))
}

fn still_leads_nowhere(facts: &Facts, service: &Service, node: &str, connection: &StaleConnection) -> bool {
    let (Ok(destination), Ok(endpoint)) = (
        connection.destination.parse::<SocketAddr>(),
        connection.endpoint.parse::<SocketAddr>(),
    ) else {
        return false;
    };
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let seen_from = svcdiag_kube_proxy::Vantage { node, zone: None };
    expected(service, &slices, seen_from).iter().any(|port| {
        port.protocol == Protocol::Udp
            && port
                .destinations
                .iter()
                .any(|d| d.address.is_none_or(|ip| ip == destination.ip()) && d.port == destination.port())
            && !port.serving.is_empty()
            && !port.serving.contains(&endpoint)
    })
}
