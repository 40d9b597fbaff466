//! Faults that only follow from a way that an earlier stage has already found lost.
//!
//! Cluster DNS is asked through an address of a Service, and its Pods sit on nodes as others do: where the way
//! there is lost, that it does not answer is no fault of its own.

use std::collections::BTreeSet;

use crate::{
    Facts, Finding, Verdict, dialling,
    evidence::{Evidence, dials::Dials, reports::Report},
};
use svcdiag_api::{ConditionType as C, LookupResult, Reason, Resolver};

/// Has a stage wait for the one that found its way lost.
pub(in crate::stages) fn wait_for_lost_route(evidence: &Evidence<'_>, answers: &mut [(C, Finding)]) {
    let is_silence = |f: &Finding| {
        matches!(f.verdict, Verdict::False { .. })
            && matches!(
                f.reason,
                Reason::ClusterDNSUnreachable | Reason::SomeDNSServersFailing
            )
    };
    if !answers.iter().any(|(c, f)| *c == C::DNSResolves && is_silence(f)) {
        return;
    }
    let Some(by) = lost_by(evidence, answers) else {
        return;
    };
    if let Some((_, finding)) = answers.iter_mut().find(|(c, _)| *c == C::DNSResolves) {
        *finding = Finding::blocked(by);
    }
}

/// The stage that found the way lost that all who got no answer from cluster DNS asked it by.
fn lost_by(evidence: &Evidence<'_>, answers: &[(C, Finding)]) -> Option<C> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let reason = |stage: C| {
        let (_, finding) = answers.iter().find(|(c, _)| *c == stage)?;
        matches!(finding.verdict, Verdict::False { .. }).then_some(finding.reason)
    };
    let unanswered: Vec<(&Report<'_>, &Resolver)> = reports
        .current
        .iter()
        .flat_map(|r| r.facts.resolvers.iter().map(move |resolver| (r, resolver)))
        .filter(|(_, resolver)| {
            resolver
                .lookups
                .iter()
                .any(|l| l.result == LookupResult::TimedOut)
        })
        .collect();
    if unanswered.is_empty() {
        return None;
    }
    let all_lost = |dials: &Dials<'_>, is_on_way: &dyn Fn(Option<bool>) -> bool| {
        unanswered.iter().all(|(report, resolver)| {
            let own = || {
                let of_client = dials
                    .counts
                    .iter()
                    .filter(|c| c.node == report.node && c.from == Some(resolver.pod.as_str()));
                of_client.filter(|c| c.made > 0 && is_on_way(c.same_node))
            };
            own().next().is_some() && own().all(|c| c.succeeded == 0)
        })
    };
    let is_elsewhere = unanswered
        .iter()
        .all(|(report, _)| dns_nodes(facts).is_some_and(|nodes| !nodes.contains(report.node)));
    if reason(C::EndpointsReachable).is_some_and(is_of_the_way)
        && is_elsewhere
        && all_lost(&evidence.direct, &|same_node| same_node == Some(false))
    {
        return Some(C::EndpointsReachable);
    }
    // Cluster DNS is asked at an address of a Service as well.
    let lost = reason(C::ServiceReachable).is_some_and(is_of_the_way);
    (lost && all_lost(&evidence.from_clients, &|_| true) && answers_past_its_service(&unanswered))
        .then_some(C::ServiceReachable)
}

/// Whether a reason is about the way to endpoints, not about them.
fn is_of_the_way(reason: Reason) -> bool {
    dialling::is_explained(reason)
        || matches!(
            reason,
            Reason::LostBetweenNodes
                | Reason::CrossNodeUnreachable
                | Reason::TimedOut
                | Reason::NoRouteToHost
        )
}

/// The nodes of cluster DNS' Pods; None where they are not known.
fn dns_nodes(facts: &Facts) -> Option<BTreeSet<&str>> {
    let pods = &facts.cluster_dns.as_ref()?.pods;
    let nodes: BTreeSet<&str> = pods.iter().filter_map(|p| p.spec.node_name.as_deref()).collect();
    (!nodes.is_empty()).then_some(nodes)
}

/// Whether the Pods of cluster DNS answered all who got no answer from its Service.
fn answers_past_its_service(unanswered: &[(&Report<'_>, &Resolver)]) -> bool {
    unanswered.iter().all(|(report, resolver)| {
        let own = || {
            let of_client = |s: &&svcdiag_api::DnsServer| s.from.as_deref() == Some(resolver.pod.as_str());
            let servers = report.facts.dns_servers.iter().filter(of_client);
            servers.filter(|s| s.endpoint)
        };
        own().next().is_some() && own().all(|s| s.control == LookupResult::Found)
    })
}
