//! A Service without a selector, to which nobody has given endpoints, or nobody any more.

use jiff::Timestamp;

use crate::{
    Facts, Finding,
    stages::endpoints_populated::stale::SLICE_GRACE,
    text::{self, quoted},
    time::later,
    workloads::near_miss,
};
use svcdiag_api::{ConditionStatus, ConditionType, Reason};
use svcdiag_objects::{Object, Service, StatefulSet};

/// What to say of no endpoints at all. Whoever writes them may be about to: they come after the Service, and go for a
/// moment where an API server restarts (default/kubernetes) or a leader is elected.
pub(super) fn none(facts: &Facts, service: &Service) -> Finding {
    let until = since(facts, service).map(|since| later(since.min(facts.now), SLICE_GRACE));
    match until.filter(|until| *until > facts.now) {
        Some(until) => Finding::unknown(
            Reason::Pending,
            "The Service has no selector, and no EndpointSlice lists an endpoint for it yet.",
        )
        .recheck_at(Some(until)),
        None => no_selector_and_no_endpoints(facts, service),
    }
}

/// When anything last changed that endpoints follow, or they were first missed: a slice that is gone has no times any
/// more, but what was said has.
fn since(facts: &Facts, service: &Service) -> Option<Timestamp> {
    let changed = facts.slices.iter().map(|s| s.changed_at());
    changed
        .chain([service.changed_at(), missed_since(facts)])
        .flatten()
        .max()
}

fn missed_since(facts: &Facts) -> Option<Timestamp> {
    let conditions = &facts.previous.as_ref()?.conditions;
    let said = conditions
        .iter()
        .find(|c| c.type_ == ConditionType::EndpointsPopulated.as_str())?;
    match said.status.parse().ok()? {
        ConditionStatus::True => Some(facts.now),
        ConditionStatus::Unknown if said.reason == Reason::Pending.as_str() => {
            Some(said.last_transition_time.0)
        }
        _ => None,
    }
}

/// Who is to write the endpoints is not known: an operator or a leader election may own them, and a selector
/// would fight with it. So nobody is told to add one, but where a StatefulSet says whose names these are.
fn no_selector_and_no_endpoints(facts: &Facts, service: &Service) -> Finding {
    let (ns, name) = (quoted(&facts.namespace), service.name());
    let service_arg = quoted(name);
    let mut governed: Vec<&StatefulSet> = facts
        .stateful_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|s| service.is_headless() && s.spec.service_name.as_deref() == Some(name))
        .collect();
    governed.sort_by_key(|s| s.name());
    let message = "The Service has no selector, and no EndpointSlice lists an endpoint for it";
    if let Some(set) = governed.first() {
        let selector = near_miss::selector(&set.spec.template.metadata.labels);
        return Finding::nothing_works(
            Reason::NoSelectorAndNoEndpoints,
            format!(
                "{message}. StatefulSet {} uses it as its serviceName, so its Pods have no names in DNS.",
                set.name()
            ),
            format!(
                "Make the Service select the Pods of StatefulSet {} (labels {selector}), in the manifest or operator that it comes from. See who wrote it: `kubectl -n {ns} get service {service_arg} -o yaml --show-managed-fields`.",
                set.name()
            ),
        );
    }
    let saved = &facts.saved_objects;
    if let Some(addresses) = saved.endpoints.filter(|addresses| *addresses > 0) {
        return unmirrored(facts, message, addresses);
    }
    let message = match saved.unlabelled_slices.first() {
        Some(slice) => format!(
            "{message}. EndpointSlice {slice} lacks the label kubernetes.io/service-name={name}, without which it belongs to no Service."
        ),
        None => format!("{message}."),
    };
    Finding::nothing_works(
        Reason::NoSelectorAndNoEndpoints,
        message,
        format!(
            "See who should write the endpoints: `kubectl -n {ns} get service,endpoints {service_arg} -o yaml --show-managed-fields`. If nobody should, the Service needs a selector, or an EndpointSlice with the label kubernetes.io/service-name={name}. If an operator or a leader election (for example Patroni) writes the Endpoints object {name}: that object is empty while there is no leader, and with the label endpointslice.kubernetes.io/skip-mirror it is not copied to an EndpointSlice."
        ),
    )
}

/// The Endpoints object has addresses, and nobody made an EndpointSlice of it, which alone kube-proxy reads.
fn unmirrored(facts: &Facts, message: &str, addresses: usize) -> Finding {
    let (ns, name) = (quoted(&facts.namespace), &facts.spec.service_name);
    let service = quoted(name);
    let has = text::count(addresses, "ready endpoint");
    let (why, fix) = match facts.saved_objects.skips_mirror {
        true => (
            "its label endpointslice.kubernetes.io/skip-mirror=true keeps it from being copied to an EndpointSlice",
            format!(
                "Find out what set that label and should write EndpointSlices instead: `kubectl -n {ns} get endpoints {service} -o yaml --show-managed-fields`."
            ),
        ),
        false => (
            "kube-controller-manager, which copies it to an EndpointSlice, has not done so",
            format!(
                "Check that kube-controller-manager is running, read its log, and read the Events of the object: `kubectl -n {ns} describe endpoints {service}`."
            ),
        ),
    };
    Finding::nothing_works(
        Reason::EndpointSlicesStale,
        format!("{message}. The Endpoints object {name} has {has}, but {why}."),
        fix,
    )
}
