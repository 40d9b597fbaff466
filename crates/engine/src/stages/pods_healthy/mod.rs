//! Are the Pods running and not restarting?

mod none_ready;

use crate::{
    Facts, Finding,
    evidence::Evidence,
    pods::{
        node,
        state::{self, describe_terminating, gone_by},
    },
    text::{self, quoted},
    workloads::{self, matching},
};
use svcdiag_api::Reason;
use svcdiag_objects::{Object, Pod, Service, matches_labels};

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if !service.has_selector() {
        return Finding::not_applicable("The Service selects no Pods.");
    }
    let selected = facts.selected_pods();
    if selected.is_empty() {
        return without_pods(facts, service);
    }
    let staying: Vec<&Pod> = selected.iter().copied().filter(|p| !p.is_terminating()).collect();
    let ready = staying.iter().filter(|p| counts_as_ready(facts, p)).count();
    if ready > 0 {
        return some_ready(facts, &staying, ready);
    }
    if service.publishes_not_ready() {
        return Finding::yes(
            Reason::SomePodsNotReady,
            "No Pod is ready, but the Service publishes Pods that are not ready (publishNotReadyAddresses).",
        );
    }
    if staying.is_empty() {
        return only_terminating(facts, &selected);
    }
    none_ready::judge(facts, service, &staying)
}

/// Nobody says any more that a Pod is not ready once its Node is gone.
fn counts_as_ready(facts: &Facts, pod: &Pod) -> bool {
    pod.is_ready() && !node::is_gone(facts, pod)
}

fn without_pods(facts: &Facts, service: &Service) -> Finding {
    let ended: Vec<&Pod> = facts
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|p: &&Pod| p.has_ended() && matches_labels(&service.spec.selector, p.labels()))
        .collect();
    if ended.is_empty() {
        return Finding::not_applicable("No Pod matches the Service's selector.");
    }
    if matching::is_scaled_to_zero(facts, service) {
        return Finding::not_applicable(
            "No Pod is running, and none should be: what the selector matches is scaled to 0.",
        );
    }
    let mut owners: Vec<String> = ended
        .iter()
        .filter(|p| p.controller().is_some())
        .map(|p| {
            let (kind, name) = workloads::owner(facts, p);
            format!("{kind} {name}")
        })
        .collect();
    owners.sort_unstable();
    owners.dedup();
    let whose = match owners.is_empty() {
        true => String::new(),
        false => format!(" of {}", text::list(&owners)),
    };
    Finding::nothing_works(
        Reason::PodsNotReady,
        format!(
            "No Pod is running: {}{whose} that the selector matches completed or failed (phase Succeeded or Failed).",
            text::count(ended.len(), "Pod")
        ),
        format!(
            "Find out why they completed or failed: `kubectl -n {} get pods`.",
            quoted(&facts.namespace)
        ),
    )
}

/// All selected Pods are being deleted.
fn only_terminating(facts: &Facts, pods: &[&Pod]) -> Finding {
    if pods.iter().any(|p| counts_as_ready(facts, p)) {
        return Finding::yes(
            Reason::SomePodsNotReady,
            "All selected Pods are terminating but still ready.",
        );
    }
    let due = pods
        .iter()
        .filter_map(|p| gone_by(p))
        .filter(|at| *at > facts.now)
        .min();
    if due.is_some() {
        return Finding::unknown(
            Reason::PodsStarting,
            "All selected Pods are terminating. Others may take their place.",
        )
        .recheck_at(due);
    }
    let Some(pod) = pods.first() else {
        return Finding::not_applicable("No Pod is selected.");
    };
    let states: Vec<String> = pods.iter().map(|p| describe_terminating(facts, p)).collect();
    let ns = quoted(&facts.namespace);
    let name = quoted(pod.name());
    let held = pod.metadata.finalizers.as_deref().unwrap_or_default();
    let node = pod.spec.node_name.as_deref();
    let remediation = match (held.first(), node, node::trouble(facts, pod)) {
        (Some(finalizer), ..) => format!(
            "Find out what should remove the finalizer {finalizer}, and why it has not: `kubectl -n {ns} get pod {name} -o yaml`."
        ),
        (None, Some(node), Some(_)) => format!(
            "Bring node {node} back: `kubectl describe node {}`. If its machine is gone for good, remove the Node object so that its Pods can be replaced.",
            quoted(node)
        ),
        _ => format!(
            "Find out what the kubelet is waiting for (a volume, a container that does not stop): `kubectl -n {ns} describe pod {name}`."
        ),
    };
    Finding::nothing_works(
        Reason::PodsStuckTerminating,
        format!(
            "No other Pod is left: {}. {} until {} gone.",
            text::list(&states),
            match pods.len() {
                1 => "Its controller may not replace it",
                _ => "Their controllers may not replace them",
            },
            if pods.len() == 1 { "it is" } else { "they are" }
        ),
        remediation,
    )
}

fn some_ready(facts: &Facts, staying: &[&Pod], ready: usize) -> Finding {
    let restarting = staying
        .iter()
        .filter(|p| counts_as_ready(facts, p))
        .filter_map(|p| state::restarting_until(facts, p).map(|(ending, until)| (p.name(), ending, until)))
        .max_by_key(|(_, _, until)| *until);
    if let Some((name, ending, until)) = restarting {
        return Finding::yes(
            Reason::RestartingOften,
            format!(
                "{ready} of {} {} ready, but {name} restarts often: {ending}.",
                text::count(staying.len(), "Pod"),
                if ready == 1 { "is" } else { "are" }
            ),
        )
        .recheck_at(Some(until));
    }
    if ready == staying.len() {
        let be = if ready == 1 { "is" } else { "are" };
        return Finding::yes(
            Reason::AllPodsReady,
            format!("{} {be} ready.", text::count(ready, "Pod")),
        );
    }
    let waiting: Vec<&str> = staying
        .iter()
        .filter(|p| !counts_as_ready(facts, p))
        .map(|p| p.name())
        .collect();
    Finding::yes(
        Reason::SomePodsNotReady,
        format!(
            "{ready} of {} {} ready. Not ready: {}.",
            text::count(staying.len(), "Pod"),
            if ready == 1 { "is" } else { "are" },
            text::list(&waiting)
        ),
    )
}
