//! The selector matches no Pod: because a workload has none, or because the labels differ.

use crate::{
    Facts, Finding,
    pods::events::{failed_create, failed_create_of, one_line, why_not_created},
    stages::endpoints_populated::stale::SLICE_GRACE,
    text::{self, quoted},
    time::later,
    workloads::{
        matching::{Matching, matching},
        near_miss,
    },
};
use svcdiag_api::Reason;
use svcdiag_objects::{Event, Object, ReplicaSet, Service, matches_labels};

/// A check of the Service's selector, which is the last argument.
type Check = fn(&Facts, &Service, &str) -> Option<Finding>;

/// What the selector may miss, in the order of precedence.
const CHECKS: [Check; 8] = [
    workload_has_no_pods,
    workload_is_scaled_to_zero,
    pods_have_ended,
    workloads_are_unread,
    pods_without_known_labels_were_not_created,
    something_is_nearly_selected,
    pods_are_elsewhere,
    pods_of_a_job_were_not_created,
];

pub(super) fn judge(facts: &Facts, service: &Service) -> Finding {
    let selector = near_miss::selector(&service.spec.selector);
    let found = CHECKS.iter().find_map(|check| check(facts, service, &selector));
    found.unwrap_or_else(|| {
        Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!("The selector {selector} matches {}.", none_of_the_pods(facts)),
            format!(
                "Compare the selector with the labels of the Pods: `kubectl -n {} get pods --show-labels`.",
                quoted(&facts.namespace)
            ),
        )
    })
}

fn workload_has_no_pods(facts: &Facts, service: &Service, selector: &str) -> Option<Finding> {
    let workloads = matching(facts, service);
    let wanted = workloads.iter().find(|w| w.spec.replicas != Some(0))?;
    Some(without_its_pods(facts, wanted, selector))
}

fn workload_is_scaled_to_zero(facts: &Facts, service: &Service, selector: &str) -> Option<Finding> {
    let workloads = matching(facts, service);
    let first = workloads.first()?;
    Some(scaled_to_zero(facts, &workloads, first, selector))
}

fn pods_have_ended(facts: &Facts, service: &Service, selector: &str) -> Option<Finding> {
    let mut pods = facts.pods.iter();
    let have_ended = pods.any(|p| p.has_ended() && matches_labels(&service.spec.selector, p.labels()));
    have_ended.then(|| {
        Finding::nothing_works(
            Reason::NoReadyEndpoints,
            format!(
                "All Pods that the selector {selector} matches have completed or failed, so they are no longer endpoints."
            ),
            format!(
                "Find out why they completed or failed: `kubectl -n {} get pods -l {}`.",
                quoted(&facts.namespace),
                quoted(selector)
            ),
        )
    })
}

/// Nobody is told to change a selector that may be the right one for a workload without Pods.
fn workloads_are_unread(facts: &Facts, _: &Service, selector: &str) -> Option<Finding> {
    let why = unseen_workloads(facts)?;
    Some(Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!(
            "The selector {selector} matches {}. It is not known whether it would match the Pods of a workload that has none now: {why}.",
            none_of_the_pods(facts)
        ),
        format!(
            "Check whether a workload is scaled to 0, and compare the selector with the labels of the Pods: `kubectl -n {} get deployments,statefulsets,replicasets,pods --show-labels`.",
            quoted(&facts.namespace)
        ),
    ))
}

/// Of these kinds no Pod template is read: a selector that one of them would match is not to be changed.
fn pods_without_known_labels_were_not_created(facts: &Facts, _: &Service, selector: &str) -> Option<Finding> {
    let event = failed_create_of(facts, &["DaemonSet", "ReplicationController"])?;
    Some(not_created(facts, event, selector))
}

fn something_is_nearly_selected(facts: &Facts, service: &Service, selector: &str) -> Option<Finding> {
    let near = near_miss::find(facts, service).or_else(|| near_miss::namesake(facts, service))?;
    Some(Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!("The selector {selector} matches no Pod: {}.", near.message),
        near.remediation,
    ))
}

fn pods_are_elsewhere(facts: &Facts, _: &Service, selector: &str) -> Option<Finding> {
    let are_elsewhere = !facts.selected_elsewhere.is_empty();
    are_elsewhere.then(|| elsewhere(facts, selector))
}

/// The Pods of a Job seldom serve anybody.
fn pods_of_a_job_were_not_created(facts: &Facts, _: &Service, selector: &str) -> Option<Finding> {
    let event = failed_create_of(facts, &["Job"])?;
    Some(not_created(facts, event, selector))
}

/// A workload whose labels nobody read could not have its Pods created.
fn not_created(facts: &Facts, event: &Event, selector: &str) -> Finding {
    let (kind, name) = (&event.involved_object.kind, &event.involved_object.name);
    Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!(
            "The selector {selector} matches {}. It is not known whether it would match the Pods of {kind} {name}, which could not be created: {}.",
            none_of_the_pods(facts),
            why_not_created(event)
        ),
        format!(
            "Find out why its Pods are not created (quota, admission), and check the labels of its Pod template: `kubectl -n {} describe {}`.",
            text::quoted(&facts.namespace),
            text::quoted(&format!("{}/{name}", kind.to_lowercase()))
        ),
    )
}

fn none_of_the_pods(facts: &Facts) -> String {
    let ns = &facts.namespace;
    match facts.pods.len() {
        0 => format!("no Pod (there are no Pods in namespace {ns})"),
        1 => format!("no Pod (namespace {ns} has 1 Pod)"),
        n => format!("{} Pods in namespace {ns}", text::none_of(n)),
    }
}

/// A workload is to have Pods that the selector would match, and has none.
fn without_its_pods(facts: &Facts, workload: &Matching<'_>, selector: &str) -> Finding {
    let name = &workload.resource;
    let wanted = text::count(
        usize::try_from(workload.spec.replicas.unwrap_or(1)).unwrap_or(0),
        "Pod",
    );
    let until = workload
        .changed_at
        .map(|at| later(at, SLICE_GRACE))
        .filter(|until| *until > facts.now);
    let why = why_no_pods(facts, workload);
    let because = why.map_or_else(String::new, |why| format!(": {why}"));
    if until.is_some() {
        return Finding::unknown(
            Reason::Pending,
            format!("{name} should have {wanted}, but none exists yet{because}."),
        )
        .recheck_at(until);
    }
    Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!(
            "{name} should have {wanted} for the selector {selector} to match, but none exists{because}."
        ),
        format!(
            "Find out why the Pods are not created (quota, admission): `kubectl -n {} describe {}`.",
            quoted(&facts.namespace),
            quoted(name)
        ),
    )
}

/// What keeps a workload from creating Pods, as its controller says it.
fn why_no_pods(facts: &Facts, workload: &Matching<'_>) -> Option<String> {
    let mut sets: Vec<&ReplicaSet> = facts
        .replica_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|r| {
            let owners = r.metadata.owner_references.iter().flatten();
            workload.uid.is_some()
                && owners.into_iter().any(|o| Some(o.uid.as_str()) == workload.uid)
                && r.spec.replicas != Some(0)
        })
        .collect();
    sets.sort_by(|a, b| a.name().cmp(b.name()));
    let statuses = sets
        .iter()
        .map(|r| &r.status)
        .chain(std::iter::once(workload.status));
    let by_condition = statuses
        .flat_map(|s| &s.conditions)
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")
        .and_then(|c| c.message.as_deref())
        .map(one_line);
    // A StatefulSet has no such condition.
    let uids = sets
        .iter()
        .map(|r| r.metadata.uid.as_deref())
        .chain([workload.uid]);
    by_condition.or_else(|| {
        let mut events = uids.flatten().filter_map(|uid| failed_create(facts, uid));
        events.next().map(why_not_created)
    })
}

fn scaled_to_zero(
    facts: &Facts,
    workloads: &[Matching<'_>],
    first: &Matching<'_>,
    selector: &str,
) -> Finding {
    let names: Vec<&str> = workloads.iter().map(|w| w.resource.as_str()).collect();
    let (be, have) = match names.len() {
        1 => ("is", "has"),
        _ => ("are", "have"),
    };
    Finding::nothing_works(
        Reason::ScaledToZero,
        format!(
            "The selector {selector} matches the Pods of {}, which {be} scaled to 0 and {have} none.",
            text::list(&names)
        ),
        format!(
            "Scale it up: `kubectl -n {} scale {} --replicas=1`.",
            quoted(&facts.namespace),
            quoted(&first.resource)
        ),
    )
}

/// Pods that the selector would match run in other namespaces.
fn elsewhere(facts: &Facts, selector: &str) -> Finding {
    let mut namespaces: Vec<&str> = facts.selected_elsewhere.iter().map(String::as_str).collect();
    namespaces.sort_unstable();
    let place = match namespaces.as_slice() {
        [one] => format!("namespace {one}"),
        several => format!("namespaces {}", text::list(several)),
    };
    Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!(
            "The selector {selector} matches {}. Pods with these labels are in {place}, but a Service selects only Pods in its own namespace.",
            none_of_the_pods(facts)
        ),
        format!(
            "If you mean those Pods, create the Service in their namespace (clients in other namespaces reach it as {}.NAMESPACE), or run the Pods in this one.",
            facts.spec.service_name
        ),
    )
}

/// Why not all workloads could be read, if so.
fn unseen_workloads(facts: &Facts) -> Option<&str> {
    let mut kinds = ["deployments", "statefulsets", "replicasets"].into_iter();
    kinds.find_map(|resource| facts.why_unreadable(resource))
}
