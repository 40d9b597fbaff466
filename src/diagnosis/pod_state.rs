//! Why a Pod is not ready, and whether it may still become so by itself.
//!
//! The kubelet's states are read as `kubectl get pods` shows them. A Pod that is only starting is
//! not at fault: it is given the time that its own probes, and the rollout it belongs to, allow.

use jiff::{SignedDuration, Timestamp};

use super::Facts;
use crate::objects::{Container, ContainerStatus, Pod};

/// Why a Pod is not ready, in the order in which the causes take precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// No node takes the Pod.
    Unschedulable(String),
    /// An image cannot be pulled.
    ImagePull(String),
    /// A container starts and ends again and again.
    CrashLoop(String),
    /// Containers run but a readiness probe fails.
    ProbeFailing(String),
    /// Anything else.
    Other(String),
    /// Nothing yet: the Pod may still become ready, until this time.
    Starting(Timestamp),
}

/// A container that ended this often is looping.
const LOOPING_RESTARTS: i32 = 3;

/// The kubelet forgets a container's failures after it ran for ten minutes (twice the cap of the
/// back-off, `MaxContainerBackOff` of 300 s), so older ones say nothing about the present.
const RESTART_MEMORY: SignedDuration = SignedDuration::from_mins(10);

/// Time for a Pod to start where nothing states one: the default of a Deployment's
/// progressDeadlineSeconds.
const START_PATIENCE: SignedDuration = SignedDuration::from_secs(600);

/// Time for a running container to be reported ready beyond what its probes allow: the kubelet's
/// status takes a moment, and a probe starts up to one period late.
const PROBE_SLACK: SignedDuration = SignedDuration::from_secs(15);

/// Waiting reasons of the kubelet that mean the image (kubelet/images/types.go).
const IMAGE_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// Waiting reasons that pass by themselves.
const START_REASONS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a Pod that is not ready is not.
pub(super) fn trouble(facts: &Facts, pod: &Pod) -> Trouble {
    if let Some(c) = pod.condition("PodScheduled").filter(|c| c.status == "False") {
        return Trouble::Unschedulable(c.message.clone().or(c.reason.clone()).unwrap_or_default());
    }
    let mut troubles: Vec<Trouble> = containers(pod)
        .filter_map(|(c, s)| container_trouble(facts, pod, c, s))
        .collect();
    // A container that is still starting does not excuse another one that fails, but a failing
    // probe may be waiting for it.
    troubles.sort();
    let starting = troubles.iter().position(|t| matches!(t, Trouble::Starting(_)));
    match (troubles.first(), starting) {
        (Some(Trouble::ProbeFailing(_)), Some(starting)) => troubles.swap_remove(starting),
        (Some(_), _) => troubles.swap_remove(0),
        (None, _) => without_container_trouble(facts, pod),
    }
}

/// Statuses of the containers that the Pod needs to be ready, with their specs: init containers
/// count until they have ended.
fn containers(pod: &Pod) -> impl Iterator<Item = (Option<&Container>, &ContainerStatus)> {
    let init = pod.status.init_container_statuses.iter().filter(|s| {
        let done = s.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        let sidecar_up = s.ready && s.started == Some(true);
        !done && !sidecar_up
    });
    let init = init.map(|s| (pod.spec.init_containers.iter().find(|c| c.name == s.name), s));
    let main = pod.status.container_statuses.iter().filter(|s| !s.ready);
    let main = main.map(|s| (pod.spec.containers.iter().find(|c| c.name == s.name), s));
    init.chain(main)
}

fn container_trouble(
    facts: &Facts,
    pod: &Pod,
    spec: Option<&Container>,
    status: &ContainerStatus,
) -> Option<Trouble> {
    let name = &status.name;
    if let Some(waiting) = &status.state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        let message = waiting.message.as_deref().unwrap_or_default();
        let told = format!(
            "container {name}: {reason}{}{message}",
            if message.is_empty() { "" } else { ": " }
        );
        if IMAGE_REASONS.contains(&reason) {
            let image = spec.and_then(|c| c.image.as_deref()).unwrap_or("?");
            return Some(Trouble::ImagePull(format!(
                "container {name}: {reason} for image {image}"
            )));
        }
        if reason == "CrashLoopBackOff" {
            return Some(Trouble::CrashLoop(ended(status)));
        }
        if looping(facts, status) {
            return Some(Trouble::CrashLoop(ended(status)));
        }
        if START_REASONS.contains(&reason) || waiting.reason.is_none() {
            return Some(patience(facts, start_deadline(facts, pod), Trouble::Other(told)));
        }
        return Some(Trouble::Other(told));
    }
    if looping(facts, status) {
        return Some(Trouble::CrashLoop(ended(status)));
    }
    if let Some(terminated) = &status.state.terminated {
        let told = format!("container {name} ended with exit code {}", terminated.exit_code);
        return Some(patience(facts, start_deadline(facts, pod), Trouble::Other(told)));
    }
    let running = status.state.running.as_ref()?;
    let started_at = running.started_at?;
    let is_init = pod
        .spec
        .init_containers
        .iter()
        .any(|c| c.name == *name && c.restart_policy.is_none());
    if is_init {
        let told = format!("init container {name} has not ended");
        return Some(patience(facts, start_deadline(facts, pod), Trouble::Other(told)));
    }
    let probe = |probe: Option<&crate::objects::Probe>| {
        SignedDuration::from_secs(probe.map_or(0, crate::objects::Probe::budget_seconds))
    };
    let startup = probe(spec.and_then(|c| c.startup_probe.as_ref()));
    let readiness = spec.and_then(|c| c.readiness_probe.as_ref());
    if status.started == Some(false) {
        let told = format!("container {name} runs, but its startup probe has not passed");
        let deadline = later(started_at, startup + PROBE_SLACK).max(progress_deadline(facts, pod));
        return Some(patience(facts, deadline, Trouble::Other(told)));
    }
    let told = format!("container {name} runs, but its readiness probe fails");
    let failing = if readiness.is_some() {
        Trouble::ProbeFailing(told)
    } else {
        Trouble::Other(format!("container {name} runs, but is not ready"))
    };
    if was_ready_since(pod, started_at) {
        return Some(failing);
    }
    let deadline =
        later(started_at, startup + probe(readiness) + PROBE_SLACK).max(progress_deadline(facts, pod));
    Some(patience(facts, deadline, failing))
}

/// No container is at fault: the Pod has none yet, waits for a readiness gate, or its node is lost.
fn without_container_trouble(facts: &Facts, pod: &Pod) -> Trouble {
    if pod.status.container_statuses.is_empty() {
        let told = match &pod.spec.node_name {
            Some(node) => format!("the kubelet of node {node} has not started it"),
            None => "it has not been scheduled".to_owned(),
        };
        return patience(facts, start_deadline(facts, pod), Trouble::Other(told));
    }
    let unmet: Vec<&str> = pod
        .spec
        .readiness_gates
        .iter()
        .map(|g| g.condition_type.as_str())
        .filter(|t| pod.condition(t).is_none_or(|c| c.status != "True"))
        .collect();
    if !unmet.is_empty() {
        let told = format!(
            "its containers are ready, but the readiness gate {} is not met",
            unmet.join(", ")
        );
        let since = pod
            .condition("ContainersReady")
            .and_then(|c| c.last_transition_time)
            .unwrap_or(facts.now);
        return patience(facts, later(since, START_PATIENCE), Trouble::Other(told));
    }
    let told = pod.condition("Ready").map(|c| {
        let words = [c.reason.as_deref(), c.message.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ");
        let words = if words.is_empty() {
            "no reason is given".to_owned()
        } else {
            words
        };
        format!(
            "its containers are ready, but its Ready condition is {} ({words})",
            c.status
        )
    });
    Trouble::Other(told.unwrap_or_else(|| "it has no Ready condition".to_owned()))
}

/// Whether a container of a ready Pod ended often and not long ago; and until when that is so.
pub(super) fn restarting_until(facts: &Facts, pod: &Pod) -> Option<(String, Timestamp)> {
    pod.status
        .container_statuses
        .iter()
        .filter(|s| looping(facts, s))
        .filter_map(|s| Some((ended(s), later(last_end(s)?, RESTART_MEMORY))))
        .max_by_key(|(_, until)| *until)
}

/// `container web ended 5 times, last with exit code 1 (Error)`.
fn ended(status: &ContainerStatus) -> String {
    let last = status
        .state
        .terminated
        .as_ref()
        .or(status.last_state.terminated.as_ref());
    let last = last.map(|t| {
        let reason = t.reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default();
        format!(", last with exit code {}{reason}", t.exit_code)
    });
    let times = super::words::count(usize::try_from(status.restart_count).unwrap_or(0), "time");
    format!(
        "container {} was restarted {times}{}",
        status.name,
        last.unwrap_or_default()
    )
}

fn looping(facts: &Facts, status: &ContainerStatus) -> bool {
    status.restart_count >= LOOPING_RESTARTS
        && last_end(status).is_some_and(|end| later(end, RESTART_MEMORY) > facts.now)
}

fn last_end(status: &ContainerStatus) -> Option<Timestamp> {
    let ends = [&status.state.terminated, &status.last_state.terminated];
    ends.into_iter().flatten().filter_map(|t| t.finished_at).max()
}

/// Whether the Pod was ready at some time since its container started: then it lost its readiness,
/// and no start-up time excuses it.
fn was_ready_since(pod: &Pod, started_at: Timestamp) -> bool {
    let lost = pod
        .condition("Ready")
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time);
    lost.is_some_and(|lost| lost > later(started_at, SignedDuration::from_secs(1)))
}

/// By when a Pod should have been started.
fn start_deadline(facts: &Facts, pod: &Pod) -> Timestamp {
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let since = pod.status.start_time.or(created).unwrap_or(facts.now);
    later(since, START_PATIENCE).max(progress_deadline(facts, pod))
}

/// By when the rollout that the Pod belongs to has to make progress; the past if there is none.
fn progress_deadline(facts: &Facts, pod: &Pod) -> Timestamp {
    let deployment = pod.controller_uid().and_then(|uid| {
        let set = facts
            .replica_sets
            .iter()
            .find(|r| r.metadata.uid.as_deref() == Some(uid))?;
        let owner = set
            .metadata
            .owner_references
            .as_ref()?
            .iter()
            .find(|o| o.controller == Some(true))?;
        facts
            .deployments
            .iter()
            .find(|d| d.metadata.uid.as_ref() == Some(&owner.uid))
    });
    let Some(deployment) = deployment else {
        return Timestamp::MIN;
    };
    let rolling_out = deployment.status.conditions.iter().find(|c| {
        let under_way = ["NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated"];
        c.type_ == "Progressing"
            && c.status == "True"
            && c.reason.as_deref().is_some_and(|r| under_way.contains(&r))
    });
    let patience = deployment.spec.progress_deadline_seconds.unwrap_or(600);
    rolling_out
        .and_then(|c| c.last_update_time)
        .map_or(Timestamp::MIN, |at| {
            later(at, SignedDuration::from_secs(i64::from(patience)))
        })
}

fn patience(facts: &Facts, deadline: Timestamp, then: Trouble) -> Trouble {
    if deadline > facts.now {
        Trouble::Starting(deadline)
    } else {
        then
    }
}

/// A time that far in the future; the end of time where there is none.
pub(super) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
