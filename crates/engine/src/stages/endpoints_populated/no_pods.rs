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

pub(super) fn judge(facts: &Facts, service: &Service) -> Finding {
    let ns = quoted(&facts.namespace);
    let selector = near_miss::selector(&service.spec.selector);
    let workloads = matching(facts, service);
    if let Some(workload) = workloads.iter().find(|w| w.spec.replicas != Some(0)) {
        return without_its_pods(facts, workload, &selector);
    }
    if let Some(workload) = workloads.first() {
        return scaled_to_zero(facts, &workloads, workload, &selector);
    }
    let have_ended = facts
        .pods
        .iter()
        .any(|p| p.has_ended() && matches_labels(&service.spec.selector, p.labels()));
    if have_ended {
        return Finding::nothing_works(
            Reason::NoReadyEndpoints,
            format!(
                "All Pods that the selector {selector} matches have completed or failed, so they are no longer endpoints."
            ),
            format!(
                "Find out why they completed or failed: `kubectl -n {ns} get pods -l {}`.",
                quoted(&selector)
            ),
        );
    }
    if let Some(why) = unseen_workloads(facts) {
        // Nobody is told to change a selector that may be the right one for a workload without Pods.
        return Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!(
                "The selector {selector} matches {}. It is not known whether it would match the Pods of a workload that has none now: {why}.",
                none_of_the_pods(facts)
            ),
            format!(
                "Check whether a workload is scaled to 0, and compare the selector with the labels of the Pods: `kubectl -n {ns} get deployments,statefulsets,replicasets,pods --show-labels`."
            ),
        );
    }
    // Of these kinds no Pod template is read: a selector that one of them would match is not to be changed.
    if let Some(event) = failed_create_of(facts, &["DaemonSet", "ReplicationController"]) {
        return not_created(facts, event, &selector);
    }
    let near = near_miss::find(facts, service).or_else(|| near_miss::namesake(facts, service));
    if let Some(near) = near {
        return Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!("The selector {selector} matches no Pod: {}.", near.message),
            near.remediation,
        );
    }
    if !facts.selected_elsewhere.is_empty() {
        return elsewhere(facts, &selector);
    }
    // The Pods of a Job seldom serve anybody.
    if let Some(event) = failed_create_of(facts, &["Job"]) {
        return not_created(facts, event, &selector);
    }
    Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!("The selector {selector} matches {}.", none_of_the_pods(facts)),
        format!(
            "Compare the selector with the labels of the Pods: `kubectl -n {ns} get pods --show-labels`."
        ),
    )
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
