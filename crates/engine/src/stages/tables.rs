//! What tables of `kubectl get` show, where the objects themselves are not known.
//!
//! A table shows what it shows: that a Pod is ready, that there is an endpoint. It may have been shortened, and of another
//! moment or namespace than the rest, so that nothing is False by it.

use crate::{
    Facts, Finding,
    saved::TablePod,
    text::{self, quoted},
    workloads::near_miss::selector,
};
use svcdiag_api::{ConditionType as C, Reason};
use svcdiag_objects::{Service, matches_labels};

/// Judges one stage by tables; None where objects are known, or no table shows anything of it.
pub(super) fn judge(facts: &Facts, stage: C) -> Option<Finding> {
    let tables = &facts.saved_objects.tables;
    let service = facts.service.as_deref().filter(|s| s.has_selector())?;
    let are_pods_unknown = facts.why_unreadable("pods").is_some() && facts.selected_pods().is_empty();
    match stage {
        C::DefinitionValid if tables.has_service => Some(Finding::unknown(
            Reason::ProbeFailed,
            "The Service is known from a table of kubectl only, which does not show its target ports.",
        )),
        C::PodsHealthy if are_pods_unknown => pods_healthy(facts, service),
        C::EndpointsPopulated
            if facts.slices.is_empty() && facts.why_unreadable("endpointslices").is_some() =>
        {
            endpoints_populated(facts)
        }
        // The objects would say which of them serve which port.
        C::EndpointsReachable if facts.slices.is_empty() && tables.endpoints.is_some() => {
            Some(Finding::unknown(
                Reason::ProbeFailed,
                "The endpoints are known from a table of kubectl only, so dials to them are not counted.",
            ))
        }
        _ => None,
    }
}

fn pods_healthy(facts: &Facts, service: &Service) -> Option<Finding> {
    let all = &facts.saved_objects.tables.pods;
    let wanted = &service.spec.selector;
    let selected: Vec<&TablePod> = all.iter().filter(|p| matches_labels(wanted, &p.labels)).collect();
    let more = format!(
        "it may not show all of them; add `kubectl -n {} get pods -o json`",
        quoted(&facts.namespace)
    );
    if selected.is_empty() {
        let shown = match all.len() {
            0 => return without_labels(facts),
            1 => "does not match the only Pod".to_owned(),
            n => format!("matches {} Pods", text::none_of(n)),
        };
        return Some(Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The selector {} {shown} in the table of kubectl, but {more}.",
                selector(wanted)
            ),
        ));
    }
    let lost = &facts.saved_objects.tables.lost_nodes;
    let name = |p: &&TablePod| match p.node.as_ref().filter(|node| lost.contains(*node)) {
        Some(node) => format!("{} ({} on node {node}, which is not ready)", p.name, p.state),
        None => format!("{} ({})", p.name, p.state),
    };
    let (ready, waiting): (Vec<&TablePod>, Vec<&TablePod>) = selected.iter().partition(|p| p.is_ready);
    let waiting: Vec<String> = waiting.iter().map(name).collect();
    let pods = text::count(selected.len(), "Pod");
    let be = if ready.len() == 1 { "is" } else { "are" };
    Some(if ready.is_empty() {
        Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "No Pod that the selector {} matches in the table of kubectl is ready: {}. But {more}.",
                selector(wanted),
                text::list(&waiting)
            ),
        )
    } else if waiting.is_empty() {
        Finding::yes(
            Reason::AllPodsReady,
            format!("{pods} {be} ready, by the table of kubectl."),
        )
    } else {
        Finding::yes(
            Reason::SomePodsNotReady,
            format!(
                "{} of {pods} {be} ready, by the table of kubectl. Not ready: {}.",
                ready.len(),
                text::list(&waiting)
            ),
        )
    })
}

fn without_labels(facts: &Facts) -> Option<Finding> {
    (facts.saved_objects.tables.unlabelled_pods > 0).then(|| {
        Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The table of Pods has no labels, so it does not show which of them the Service selects; add `kubectl -n {} get pods -o json`.",
                quoted(&facts.namespace)
            ),
        )
    })
}

fn endpoints_populated(facts: &Facts) -> Option<Finding> {
    let listed = facts.saved_objects.tables.endpoints.as_ref()?;
    Some(match listed.len() {
        0 => Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The table of Endpoints shows no ready endpoint of Service {}. A table does not prove that there is none; add `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`.",
                facts.spec.service_name,
                quoted(&facts.namespace),
                quoted(&facts.spec.service_name)
            ),
        ),
        n => Finding::yes(
            Reason::EndpointsReady,
            format!(
                "{} ready, by the table of Endpoints: {}.",
                match n {
                    1 => "1 endpoint is".to_owned(),
                    n => format!("{n} endpoints are"),
                },
                text::list(listed)
            ),
        ),
    })
}
