//! The stages of the decision tree: asked in causal order, each only where what it needs is all right.
//!
//! Which they are, what they need and which reasons they give is in the table of `svcdiag_api`. Each has its file or folder
//! here, whose helpers nobody else uses.

mod checks;
mod definition_valid;
mod dns_resolves;
mod endpoints_populated;
mod endpoints_reachable;
mod hairpin_ok;
mod kube_proxy_healthy;
mod manifests;
mod missing_files;
mod network_policy_allows;
mod pods_healthy;
mod proxy_forwards;
mod proxy_rules_present;
mod saved_dns_logs;
mod saved_events;
mod service_exists;
mod service_reachable;
mod tables;

use crate::{Facts, Finding, Verdict, evidence::Evidence, kept};
use svcdiag_api::{ConditionType as C, Reason};
use svcdiag_objects::Service;

/// Asks the question of one stage.
fn judge(stage: C, evidence: &Evidence<'_>) -> Finding {
    match stage {
        C::ServiceExists => service_exists::judge(evidence),
        C::DefinitionValid => definition_valid::judge(evidence),
        C::PodsHealthy => pods_healthy::judge(evidence),
        C::EndpointsPopulated => endpoints_populated::judge(evidence),
        C::NetworkPolicyAllows => network_policy_allows::judge(evidence),
        C::EndpointsReachable => endpoints_reachable::judge(evidence),
        C::KubeProxyHealthy => kube_proxy_healthy::judge(evidence),
        C::ProxyRulesPresent => proxy_rules_present::judge(evidence),
        C::ProxyForwards => proxy_forwards::judge(evidence),
        C::ServiceReachable => service_reachable::judge(evidence),
        C::DNSResolves => dns_resolves::judge(evidence),
        C::HairpinOK => hairpin_ok::judge(evidence),
        C::Ready | C::Reconciling | C::Stalled => Finding::not_applicable("It sums the stages up."),
    }
}

/// Asks every question.
pub(super) fn judge_all(evidence: &Evidence<'_>) -> Vec<(C, Finding)> {
    let facts = evidence.facts;
    let mut answers: Vec<(C, Finding)> = Vec::with_capacity(C::stages().len());
    for &stage in C::stages() {
        let finding = if facts.spec.suspend {
            Finding::unknown(Reason::Skipped, "Not checked while the diagnosis is suspended.")
        } else if facts.spec.skip.contains(&stage) {
            Finding::unknown(Reason::Skipped, "Skipped because spec.skip lists it.")
        } else if let Some(by) = answers
            .iter()
            .find(|(c, f)| is_needed(facts, stage, *c) && blocks(f))
        {
            Finding::blocked(by.0)
        } else {
            let finding = manifests::judge(facts, stage)
                .or_else(|| tables::judge(facts, stage))
                .unwrap_or_else(|| on_full_evidence(facts, stage, judge(stage, evidence)));
            let finding = saved_events::quote(facts, stage, missing_files::name(facts, stage, finding));
            let finding = saved_dns_logs::quote(facts, stage, finding);
            kept::instead_of(evidence, stage, finding)
        };
        answers.push((stage, finding));
    }
    dns_resolves::wait_for_lost_route(evidence, &mut answers);
    service_reachable::ask_for_help(facts, &mut answers);
    answers
}

/// Whether a stage means nothing before another is all right. The names of a headless Service are those
/// of its endpoints.
fn is_needed(facts: &Facts, stage: C, other: C) -> bool {
    let is_headless = || facts.service.as_deref().is_some_and(Service::is_headless);
    stage.needs().contains(&other)
        || (stage == C::DNSResolves && other == C::EndpointsPopulated && is_headless())
}

/// Nobody is blamed on evidence with gaps: where Pods, slices or the Service could not be read,
/// what looks like a fault may be what is missing. Nor is anything all right with Pods that nobody saw.
fn on_full_evidence(facts: &Facts, condition: C, finding: Finding) -> Finding {
    let depends_on: &[&str] = match condition {
        // Whether there is a Service does not depend on the Pods.
        C::ServiceExists => &["services"],
        _ => &["services", "endpointslices", "pods"],
    };
    let gap = depends_on
        .iter()
        .find_map(|resource| facts.why_unreadable(resource));
    let is_of_pods = matches!(
        condition,
        C::DefinitionValid | C::PodsHealthy | C::NetworkPolicyAllows
    ) && facts.service.as_deref().is_some_and(Service::has_selector);
    let unseen = facts
        .why_unreadable("pods")
        .filter(|_| is_of_pods && facts.selected_pods().is_empty());
    let is_false = matches!(finding.verdict, Verdict::False { .. });
    match gap.filter(|_| is_false).or(unseen) {
        // What is wrong with kube-proxy is seen on its node; only whether it matters here depends on the objects.
        Some(why) if condition == C::KubeProxyHealthy => Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "{} Whether that affects this Service is not known, because not everything could be read: {why}.",
                finding.message
            ),
        ),
        Some(why) => Finding::unknown(
            Reason::ProbeFailed,
            format!("Not checked, because not everything could be read: {why}."),
        ),
        None => finding,
    }
}

/// Whether an answer leaves the stages that need it without meaning: nothing works, or it is not
/// known. A fault of a part does not block, since a later one may take everything away; nor does
/// the lack of a node agent or its silence, which the later stage notices itself.
fn blocks(finding: &Finding) -> bool {
    finding.leaves_nothing()
        || matches!(
            finding.reason,
            Reason::Blocked | Reason::Pending | Reason::PodsStarting | Reason::ProbeFailed
        )
}
