//! A selector that matches no Pod: which Pods were probably meant, and what is between.
//!
//! The selector is compared with the labels of each workload's Pods ([`compare`]); the nearest workload is
//! described. A command that changes the selector is printed only where nothing else can have been meant
//! ([`is_safe`]): a wrong one would send the Service's traffic to another application.

use serde_json::json;

use crate::{
    Facts,
    text::{self, quoted},
    workloads::{
        self, Workload,
        compare::{Change, Difference, compare, is_shared},
    },
};
use svcdiag_objects::{Labels, Object, Pod, Service, matches_labels};

/// Label with a Pod's own name, which the controller of StatefulSets gives each of its Pods.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// Pods that a selector misses narrowly.
pub(crate) struct NearMiss {
    /// What differs, in words.
    pub message: String,
    /// What to do.
    pub remediation: String,
}

/// A selector as `kubectl -l` takes it.
pub(crate) fn selector(pairs: &Labels) -> String {
    pairs
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Describes the workload whose Pods the selector misses by the least.
pub(crate) fn find(facts: &Facts, service: &Service) -> Option<NearMiss> {
    let wanted = &service.spec.selector;
    if let Some(missing) = ordinal(facts, wanted) {
        return Some(missing);
    }
    let all = workloads::all(facts);
    let candidates = all
        .iter()
        .filter(|w| !w.is_job())
        .filter_map(|w| Some((compare(wanted, w)?, w)))
        .filter(|(difference, w)| difference.is_telling() || !is_taken(facts, w));
    // Of equally near ones, the one with more Pods was more probably meant.
    let (difference, workload) = candidates.min_by_key(|(difference, w)| {
        let rank = difference.rank();
        (rank, usize::MAX - w.pods.len(), w.kind.clone(), w.name.clone())
    })?;
    Some(match &difference {
        Difference::Revision(keys) => revision(facts, service, workload, keys),
        Difference::Labels(changes) => labels(facts, service, workload, changes),
        Difference::RunTime(missing) => run_time(facts, service, workload, missing),
    })
}

/// The selector names one Pod of a StatefulSet, which does not exist.
fn ordinal(facts: &Facts, wanted: &Labels) -> Option<NearMiss> {
    let pod = wanted.get(POD_NAME_LABEL)?;
    let (set, number) = pod.rsplit_once('-')?;
    let set = facts.stateful_sets.iter().find(|s| s.name() == set)?;
    number.parse::<u32>().ok()?;
    if facts.pods.iter().any(|p| p.name() == pod) {
        return None;
    }
    let replicas = set.spec.replicas.unwrap_or(1);
    Some(NearMiss {
        message: format!(
            "it names Pod {pod}, which does not exist: StatefulSet {} has {}",
            set.name(),
            text::count(usize::try_from(replicas).unwrap_or(0), "replica")
        ),
        remediation: format!(
            "If that Pod should exist, raise the replicas of StatefulSet {} in its manifest; otherwise the Service is no longer needed. See `kubectl -n {} get statefulset {}`.",
            set.name(),
            quoted(&facts.namespace),
            quoted(set.name())
        ),
    })
}

/// The workload that is called like the Service, for want of a nearer one.
pub(crate) fn namesake(facts: &Facts, service: &Service) -> Option<NearMiss> {
    let all = workloads::all(facts);
    let workload = all
        .iter()
        .find(|w| w.name == service.name() && w.kind != "Pod" && !w.is_job() && !w.labels.is_empty())?;
    Some(NearMiss {
        message: format!(
            "{} has the Service's name, but the labels of its Pods are {}",
            workload.resource(),
            selector(&workload.labels)
        ),
        remediation: format!(
            "If you mean the Pods of {}, use their labels in the selector: {}.",
            workload.resource(),
            edit(facts, service)
        ),
    })
}

/// The selector holds labels of a revision that is gone.
fn revision(facts: &Facts, service: &Service, workload: &Workload<'_>, keys: &[&String]) -> NearMiss {
    let wanted = &service.spec.selector;
    let pairs: Vec<String> = keys
        .iter()
        .filter_map(|key| Some(format!("{key}={}", wanted.get(*key)?)))
        .collect();
    let rest: Labels = wanted
        .iter()
        .filter(|(k, _)| !keys.contains(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let names = text::list(&keys.iter().map(|k| k.as_str()).collect::<Vec<_>>());
    let by_tool = keys.iter().any(|k| k.starts_with("rollouts-"));
    let whose = if by_tool {
        "Argo Rollouts writes it for one revision, so it changes with each rollout"
    } else {
        "it belongs to one revision and changes with each rollout"
    };
    let remediation = if !by_tool && is_safe(facts, workload, &rest) {
        let nulls: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .map(|k| ((*k).clone(), serde_json::Value::Null))
            .collect();
        format!(
            "Remove {names} from the selector: {}.",
            patch(facts, service, nulls)
        )
    } else if by_tool {
        format!(
            "If no Rollout manages the Service any more, remove {names} from the selector: {}.",
            edit(facts, service)
        )
    } else {
        format!("Remove {names} from the selector: {}.", edit(facts, service))
    };
    NearMiss {
        message: format!(
            "{} {} everything except {}, which no Pod has: {whose}",
            pods_of(workload),
            if workload.pods.len() == 1 {
                "matches"
            } else {
                "match"
            },
            pairs.join(" and "),
        ),
        remediation,
    }
}

/// Labels of the Pods differ in their key or their value.
fn labels(facts: &Facts, service: &Service, workload: &Workload<'_>, changes: &[Change<'_>]) -> NearMiss {
    let differences: Vec<String> = changes
        .iter()
        .map(|c| {
            let (have, want) = ((c.instead.0, c.instead.1), (c.wanted.0, c.wanted.1));
            format!(
                "{}={} where the selector wants {}={}",
                have.0, have.1, want.0, want.1
            )
        })
        .collect();
    let message = format!(
        "{} {} {}",
        pods_of(workload),
        if workload.pods.len() == 1 { "has" } else { "have" },
        differences.join(", ")
    );
    let mut corrected = service.spec.selector.clone();
    let mut pairs = serde_json::Map::new();
    for change in changes {
        if change.wanted.0 != change.instead.0 {
            corrected.remove(change.wanted.0);
            pairs.insert(change.wanted.0.clone(), serde_json::Value::Null);
        }
        corrected.insert(change.instead.0.clone(), change.instead.1.clone());
        pairs.insert(change.instead.0.clone(), json!(change.instead.1));
    }
    // Where the selector says what the Service is called, the error may be on the side of the Pods.
    let is_certain = matches!(changes, [change] if change.is_slip()
        && (change.wanted.1 == change.instead.1 || change.wanted.1 != service.name()));
    let remediation = if is_certain && is_safe(facts, workload, &corrected) {
        format!("Correct the selector: {}.", patch(facts, service, pairs))
    } else {
        format!(
            "If you mean these Pods, make the selector match their labels: {}. Compare `kubectl -n {} get pods --show-labels`.",
            edit(facts, service),
            quoted(&facts.namespace)
        )
    };
    NearMiss { message, remediation }
}

/// Pods match but for a label that no Pod template sets.
fn run_time(
    facts: &Facts,
    service: &Service,
    workload: &Workload<'_>,
    missing: &[(&String, &String)],
) -> NearMiss {
    let pairs: Vec<String> = missing.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let pairs = pairs.join(" and ");
    let mut found: Vec<String> = missing
        .iter()
        .flat_map(|(key, _)| {
            let values = workload.pods.iter().filter_map(|p| p.labels().get(*key));
            values.map(move |value| format!("{key}={value}"))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let found = match found.is_empty() {
        true => String::new(),
        false => format!(" (they have {})", text::list(&found)),
    };
    let rest: Labels = service
        .spec
        .selector
        .iter()
        .filter(|(k, _)| missing.iter().all(|(m, _)| m != k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let keys: Vec<&str> = missing.iter().map(|(k, _)| k.as_str()).collect();
    let who = match workload.has_template {
        true => format!(
            "the Pod template of {} does not set it, so a program must set it at run time, or the selector asks for too much",
            workload.resource()
        ),
        false => "whatever creates the Pods must set it, or a program at run time".to_owned(),
    };
    NearMiss {
        message: format!(
            "{} would match the selector but {} {pairs}{found}; {who}",
            pods_of(workload),
            if workload.pods.len() == 1 { "lacks" } else { "lack" }
        ),
        remediation: format!(
            "Find out why nothing sets {pairs} on a Pod (the Pods may not be ready for it, or the program that sets it is not running or not permitted): \
             `kubectl -n {} get pods -l {} -L {}`. If nothing should set it, add it to the Pod template or remove it from the selector.",
            quoted(&facts.namespace),
            quoted(&selector(&rest)),
            quoted(&keys.join(","))
        ),
    }
}

/// Whether a changed selector can only mean this workload: it matches the Pod template, which makes the Pods to come
/// match, too; no Pod and no Pod template of another workload; and no Pod that another Service selects.
fn is_safe(facts: &Facts, workload: &Workload<'_>, changed: &Labels) -> bool {
    let matches = |w: &Workload<'_>| {
        matches_labels(changed, &w.labels) || w.pods.iter().any(|p| matches_labels(changed, p.labels()))
    };
    let is_this = |w: &Workload<'_>| (&w.kind, &w.name) == (&workload.kind, &workload.name);
    !changed.is_empty()
        && workload.has_template
        && matches_labels(changed, &workload.labels)
        && !changed.keys().all(|key| is_shared(key))
        && !is_taken(facts, workload)
        && workloads::all(facts).iter().all(|w| is_this(w) || !matches(w))
}

/// Whether another Service selects Pods of the workload.
fn is_taken(facts: &Facts, workload: &Workload<'_>) -> bool {
    facts
        .other_services
        .iter()
        .filter(|s| !s.selector.is_empty())
        .any(|s| {
            matches_labels(&s.selector, &workload.labels)
                || workload
                    .pods
                    .iter()
                    .any(|p| matches_labels(&s.selector, p.labels()))
        })
}

/// The Pods of a workload, or those that it would have.
fn pods_of(workload: &Workload<'_>) -> String {
    let names: Vec<&str> = workload.pods.iter().map(|p: &&Pod| p.name()).collect();
    match names.is_empty() {
        true => format!("the future Pods of {}", workload.resource()),
        false if names.len() == 1 => format!("Pod {}", text::list(&names)),
        false => format!("Pods {}", text::list(&names)),
    }
}

fn patch(facts: &Facts, service: &Service, pairs: serde_json::Map<String, serde_json::Value>) -> String {
    format!(
        "`kubectl -n {} patch service {} --type=merge -p {}`",
        quoted(&facts.namespace),
        quoted(service.name()),
        quoted(&json!({ "spec": { "selector": pairs } }).to_string())
    )
}

fn edit(facts: &Facts, service: &Service) -> String {
    format!(
        "`kubectl -n {} edit service {}`",
        quoted(&facts.namespace),
        quoted(service.name())
    )
}
