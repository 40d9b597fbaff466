//! Are the Pods running and not restarting?

use super::{
    super::{
        Facts, Finding,
        pod_state::{self, Trouble},
        words,
    },
    endpoints_populated,
};
use crate::{
    api::{ConditionType, Observation, Reason},
    objects::{Object, Pod, matches_labels},
};

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if !service.has_selector() {
        return Finding::not_applicable("The Service selects no Pods.");
    }
    let selected = facts.selected_pods();
    if selected.is_empty() {
        let ended = facts
            .pods
            .iter()
            .filter(|p| p.has_ended() && matches_labels(&service.spec.selector, p.labels()));
        return match ended.count() {
            0 => Finding::not_applicable("No Pod matches the Service's selector."),
            _ if endpoints_populated::is_scaled_to_zero(facts, service) => Finding::not_applicable(
                "No Pod is running, and none is to: what the selector matches is scaled to 0.",
            ),
            n => Finding::nothing_works(
                Reason::PodsNotReady,
                format!(
                    "No Pod is running: {} that the selector matches ended for good (phase Succeeded or Failed).",
                    words::count(n, "Pod")
                ),
                format!("Find out why they ended: {}.", describe_command(facts, None)),
            ),
        };
    }
    let staying: Vec<&Pod> = selected.iter().copied().filter(|p| !p.is_terminating()).collect();
    let ready = staying.iter().filter(|p| p.is_ready()).count();
    if ready > 0 {
        return some_ready(facts, &staying, ready);
    }
    if service.publishes_not_ready() {
        return Finding::yes(
            Reason::SomePodsNotReady,
            "No Pod is ready, but the Service publishes Pods that are not (publishNotReadyAddresses).",
        );
    }
    if staying.is_empty() {
        return if selected.iter().any(|p| p.is_ready()) {
            Finding::yes(
                Reason::SomePodsNotReady,
                "All selected Pods are terminating, but still ready.",
            )
        } else {
            Finding::nothing_works(
                Reason::PodsNotReady,
                "All selected Pods are terminating and none is ready.",
                format!(
                    "See what keeps new Pods from being made: `kubectl -n {} get events`.",
                    facts.namespace
                ),
            )
        };
    }
    none_ready(facts, &staying)
}

fn some_ready(facts: &Facts, staying: &[&Pod], ready: usize) -> Finding {
    let restarting = staying
        .iter()
        .filter(|p| p.is_ready())
        .filter_map(|p| pod_state::restarting_until(facts, p).map(|(told, until)| (p.name(), told, until)))
        .max_by_key(|(_, _, until)| *until);
    if let Some((name, told, until)) = restarting {
        return Finding::yes(
            Reason::RestartingOften,
            format!(
                "{ready} of {} are ready, but {name} restarts often: {told}.",
                words::count(staying.len(), "Pod")
            ),
        )
        .recheck_at(Some(until));
    }
    if ready == staying.len() {
        let be = if ready == 1 { "is" } else { "are" };
        return Finding::yes(
            Reason::AllPodsReady,
            format!("{} {be} ready.", words::count(ready, "Pod")),
        );
    }
    let waiting: Vec<&str> = staying
        .iter()
        .filter(|p| !p.is_ready())
        .map(|p| p.name())
        .collect();
    Finding::yes(
        Reason::SomePodsNotReady,
        format!(
            "{ready} of {} are ready; not ready: {}.",
            words::count(staying.len(), "Pod"),
            words::list(&waiting)
        ),
    )
}

fn none_ready(facts: &Facts, pods: &[&Pod]) -> Finding {
    let mut troubles: Vec<(Trouble, &Pod)> =
        pods.iter().map(|p| (pod_state::trouble(facts, p), *p)).collect();
    troubles.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name().cmp(b.1.name())));
    let deadlines = troubles.iter().filter_map(|(t, _)| match t {
        Trouble::Starting(until) => Some(*until),
        _ => None,
    });
    if let Some(until) = deadlines.min() {
        let starting = troubles
            .iter()
            .filter(|(t, _)| matches!(t, Trouble::Starting(_)))
            .count();
        return Finding::unknown(
            Reason::PodsStarting,
            format!(
                "No Pod is ready yet; {starting} of {} are starting and their deadlines are not over.",
                words::count(pods.len(), "Pod")
            ),
        )
        .recheck_at(Some(until));
    }
    let Some((first, pod)) = troubles.first() else {
        return Finding::not_applicable("No Pod is selected.");
    };
    let (reason, told, remediation) = match first {
        Trouble::Unschedulable(told) => (
            Reason::PodsUnschedulable,
            told,
            format!(
                "Make room on a node, or change the Pods' requests, nodeSelector, affinity or tolerations: {}.",
                describe_command(facts, Some(pod))
            ),
        ),
        Trouble::ImagePull(told) => (
            Reason::ImagePullFailed,
            told,
            format!(
                "Correct the image's name, or give the Pods access to the registry (imagePullSecrets): {}.",
                describe_command(facts, Some(pod))
            ),
        ),
        Trouble::CrashLoop(told) => (
            Reason::CrashLooping,
            told,
            format!(
                "Read why the container ended: `kubectl -n {} logs {} --previous`.",
                facts.namespace,
                pod.name()
            ),
        ),
        Trouble::ProbeFailing(told) => (
            Reason::ReadinessProbeFailing,
            told,
            format!(
                "See what the readiness probe says, and mend the application or the probe: {}.",
                describe_command(facts, Some(pod))
            ),
        ),
        Trouble::Other(told) => (
            Reason::PodsNotReady,
            told,
            format!(
                "See the Pod's conditions and events: {}.",
                describe_command(facts, Some(pod))
            ),
        ),
        Trouble::Starting(_) => return Finding::unknown(Reason::PodsStarting, "Pods are starting."),
    };
    let same = troubles
        .iter()
        .filter(|(t, _)| std::mem::discriminant(t) == std::mem::discriminant(first))
        .count();
    let told = told.trim_end_matches('.');
    let message = if pods.len() == 1 {
        format!("The only Pod, {}, is not ready: {told}.", pod.name())
    } else {
        format!(
            "None of {} is ready; for this reason {same}, for example {}: {told}.",
            words::count(pods.len(), "Pod"),
            pod.name()
        )
    };
    let mut finding = Finding::nothing_works(reason, message, remediation);
    finding.observations = troubles
        .iter()
        .take(MAX_PODS_SHOWN)
        .map(|(t, p)| observation(facts, t, p))
        .collect();
    finding
}

/// Pods that are listed one by one in the status.
const MAX_PODS_SHOWN: usize = 5;

fn observation(facts: &Facts, trouble: &Trouble, pod: &Pod) -> Observation {
    let (result, detail) = match trouble {
        Trouble::Unschedulable(told) => ("Unschedulable", told.clone()),
        Trouble::ImagePull(told) => ("image pull failed", told.clone()),
        Trouble::CrashLoop(told) => ("crash loop", told.clone()),
        Trouble::ProbeFailing(told) => ("not ready", told.clone()),
        Trouble::Other(told) => ("not ready", told.clone()),
        Trouble::Starting(until) => ("starting", format!("may take until {until}")),
    };
    Observation {
        condition: ConditionType::PodsHealthy.as_str().to_owned(),
        node: pod.spec.node_name.clone(),
        pod: Some(format!("{}/{}", facts.namespace, pod.name())),
        target: None,
        result: result.to_owned(),
        detail: Some(detail.chars().take(1024).collect()),
        latency_milliseconds: None,
    }
}

fn describe_command(facts: &Facts, pod: Option<&Pod>) -> String {
    match pod {
        Some(pod) => format!("`kubectl -n {} describe pod {}`", facts.namespace, pod.name()),
        None => format!("`kubectl -n {} get pods`", facts.namespace),
    }
}
