//! Warnings that kubectl printed, beside what a stage found: they say what went wrong, never that it still does.
//!
//! A verdict is not changed by them. No Event says that a probe passes again or that a Pod was placed after all.

use crate::{
    Facts, Finding, Verdict,
    pods::events::one_line,
    saved::{SavedEvent, TablePod},
    text::SHOWN,
};
use svcdiag_api::{ConditionType as C, Reason};
use svcdiag_objects::{Service, matches_labels};

/// Adds to an answer the last Warnings about what it is about.
pub(super) fn quote(facts: &Facts, stage: C, mut finding: Finding) -> Finding {
    let events = &facts.saved_objects.events;
    let Some(service) = facts.service.as_deref().filter(|_| !events.is_empty()) else {
        return finding;
    };
    let is_good = matches!(finding.verdict, Verdict::True);
    let quoted = match stage {
        C::PodsHealthy if !is_good || finding.reason == Reason::SomePodsNotReady => {
            about_pods(facts, service)
        }
        C::EndpointsPopulated if !is_good => about_endpoints(facts, service),
        _ => None,
    };
    if let Some(quoted) = quoted {
        if !finding.message.ends_with('.') {
            finding.message.push('.');
        }
        finding.message.push(' ');
        finding.message.push_str(&quoted);
    }
    finding
}

fn about_pods(facts: &Facts, service: &Service) -> Option<String> {
    let tables = &facts.saved_objects.tables;
    let is_selected = |pod: &&TablePod| matches_labels(&service.spec.selector, &pod.labels);
    let mut selected = tables.pods.iter().filter(is_selected).peekable();
    let is_sure = selected.peek().is_some();
    let waiting: Vec<&str> = selected
        .filter(|pod| !pod.is_ready)
        .map(|pod| pod.name.as_str())
        .collect();
    // Without labels nobody knows whose Pods they are. A Pod that is known to be another's, or ready, has no say.
    let is_other = |name: &str| {
        tables.pods.iter().any(|pod| pod.name == name) || facts.pods.iter().any(|pod| is_named(pod, name))
    };
    let matters = |event: &&SavedEvent| match event.kind.as_str() {
        "Pod" if is_sure => waiting.contains(&event.name.as_str()),
        "Pod" => facts.selected_pods().is_empty() && !is_other(&event.name),
        _ => event.reason == "FailedCreate" && !is_sure && facts.selected_pods().is_empty(),
    };
    let whose = match is_sure {
        true => "An Event does not say whether that is still so.",
        false => "Events do not say whether that is still so, nor whether the Service selects these Pods.",
    };
    sentence(facts, matters, whose)
}

fn is_named(pod: &svcdiag_objects::Pod, name: &str) -> bool {
    pod.metadata.name.as_deref() == Some(name)
}

/// Of those that write endpoints.
fn about_endpoints(facts: &Facts, service: &Service) -> Option<String> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let is_own_slice = |slice: &str| {
        slice
            .strip_prefix(name)
            .is_some_and(|end| end.starts_with('-') && !end.get(1..).unwrap_or_default().contains('-'))
    };
    let matters = |event: &&SavedEvent| match event.kind.as_str() {
        "Service" => event.name == name && event.reason.contains("Endpoint"),
        "Endpoints" => event.name == name,
        "EndpointSlice" => is_own_slice(&event.name),
        _ => false,
    };
    sentence(facts, matters, "An Event does not say whether that is still so.")
}

/// The last of the Events that matter, as a sentence each.
fn sentence(facts: &Facts, matters: impl Fn(&&SavedEvent) -> bool, caution: &str) -> Option<String> {
    let mut events: Vec<&SavedEvent> = facts.saved_objects.events.iter().filter(matters).collect();
    events.sort_by_key(|event| (event.seconds_ago.unwrap_or(i64::MAX), &event.name, &event.reason));
    let said = events.iter().take(SHOWN).map(|event| {
        let (kind, name, reason) = (&event.kind, &event.name, &event.reason);
        format!(
            "Warning about {kind} {name}: {reason}: {}. ",
            one_line(&event.dated())
        )
    });
    let said: String = said.collect();
    (!said.is_empty()).then(|| format!("{said}{caution}"))
}
