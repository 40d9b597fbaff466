//! Workloads behind the Service that may not belong together.

use std::collections::BTreeSet;

use crate::{
    stages::definition_valid::subject::Subject,
    text,
    workloads::{self, Workload},
};
use svcdiag_objects::Object;

/// Labels that name an application or a part of it, in the order in which a selector should use them.
const TELLING: [&str; 9] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app",
    "k8s-app",
    "name",
    "component",
    "role",
    "release",
];

pub(super) fn of(subject: &Subject<'_>) -> Vec<String> {
    let spanned = if subject.service.has_selector() {
        several(subject)
    } else {
        None
    };
    spanned.into_iter().chain(names_of_pods(subject)).collect()
}

/// The selector matches the Pods of several workloads: intended for a canary, else each answers a part of the requests.
fn several(subject: &Subject<'_>) -> Option<String> {
    let found = workloads::several(subject.facts, &subject.service.spec.selector);
    if found.is_empty() {
        return None;
    }
    let names: Vec<String> = found.iter().map(Workload::describe).collect();
    let lacks = match telling_label(&found) {
        Some((key, values)) => format!(
            "label {key} distinguishes them ({}), but the selector does not use it",
            text::list(&values)
        ),
        None => "no label distinguishes them, so the intended one needs a label of its own".to_owned(),
    };
    let jobs = match found.iter().filter(|w| w.is_job()).count() {
        0 => "",
        1 => "; a Job rarely serves clients",
        _ => "; Jobs rarely serve clients",
    };
    Some(format!(
        "the selector matches the Pods of {}, and the Service sends requests to all of them: {lacks}{jobs}",
        text::list(&names)
    ))
}

/// A label that each workload has another value of, or that some have and the others lack.
fn telling_label(found: &[Workload<'_>]) -> Option<(String, Vec<String>)> {
    let keys: BTreeSet<&String> = found.iter().flat_map(|w| w.labels.keys()).collect();
    let tells = |key: &&&String| {
        let values: BTreeSet<Option<&String>> = found.iter().map(|w| w.labels.get(**key)).collect();
        values.len() == found.len()
    };
    let rank = |key: &&String| {
        let known = TELLING.iter().position(|known| *known == key.as_str());
        (known.unwrap_or(TELLING.len()), (*key).clone())
    };
    let key = keys.iter().filter(tells).copied().min_by_key(rank)?;
    let values: BTreeSet<String> = found
        .iter()
        .map(|w| {
            w.labels
                .get(key)
                .map_or_else(|| format!("none on {}", w.describe()), Clone::clone)
        })
        .collect();
    Some((key.clone(), values.into_iter().collect()))
}

/// The Pods of a StatefulSet have their names in DNS under the Service that it names, and under no other.
fn names_of_pods(subject: &Subject<'_>) -> Option<String> {
    let service = subject.service;
    if !service.is_headless() || !service.has_selector() {
        return None;
    }
    let owners: BTreeSet<&str> = subject
        .pods
        .iter()
        .filter_map(|p| p.controller())
        .filter(|c| c.kind == "StatefulSet")
        .map(|c| c.name.as_str())
        .collect();
    let mut sets: Vec<_> = subject
        .facts
        .stateful_sets
        .iter()
        .filter(|s| {
            let names = s.spec.service_name.as_deref().filter(|n| !n.is_empty());
            names.is_some_and(|n| n != service.name()) && owners.contains(s.name())
        })
        .collect();
    sets.sort_by(|a, b| a.name().cmp(b.name()));
    let set = sets.first()?;
    let named = set.spec.service_name.as_deref().unwrap_or_default();
    Some(format!(
        "StatefulSet {set} names Service {named} (spec.serviceName), so DNS knows its Pods as {set}-0.{named}, not as {set}-0.{}",
        service.name(),
        set = set.name()
    ))
}
