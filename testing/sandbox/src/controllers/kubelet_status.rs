//! What a kubelet says about a Pod at a given moment. Pure.
//!
//! Trouble comes about as in life where possible:
//!
//! - an image from the host `registry.invalid` cannot be pulled (ErrImagePull, then ImagePullBackOff);
//! - an image with the tag `:slow` is pulled for ever (ContainerCreating);
//! - a container with the command `["false"]` crashes (CrashLoopBackOff, five restarts);
//! - readiness gates that nobody fulfils keep a Pod from being ready;
//!
//! and by annotation (see [`super::annotations`]) where only the program in the container knows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Pace, annotations};

/// How often a crashing container was restarted before its first status: enough to be a loop.
const CRASH_RESTARTS: i32 = 5;

/// A moment in a Pod's life on its node.
pub(super) struct Moment<'a> {
    /// The wall clock, for timestamps.
    pub(super) now: Timestamp,
    /// How long the Pod has been on the node.
    pub(super) elapsed: Duration,
    pub(super) pace: Pace,
    /// The node's address.
    pub(super) host: &'a str,
    /// The Pod's addresses, IPv4 first.
    pub(super) addresses: Vec<String>,
}

impl Moment<'_> {
    /// When the status changes by itself, if it will.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let milestones = [self.pace.start, self.pace.start + self.pace.probe];
        milestones
            .iter()
            .find_map(|at| at.checked_sub(self.elapsed).filter(|rest| !rest.is_zero()))
    }

    fn started(&self) -> bool {
        self.elapsed >= self.pace.start
    }

    fn probed(&self) -> bool {
        self.elapsed >= self.pace.start + self.pace.probe
    }
}

/// What becomes of a container once the node gets to it.
#[derive(PartialEq)]
enum Fate {
    Runs,
    Crashes,
    CannotBePulled,
    IsPulledForEver,
}

fn fate(container: &Container) -> Fate {
    let image = container.image.as_deref().unwrap_or_default();
    if image.starts_with("registry.invalid/") {
        Fate::CannotBePulled
    } else if image.ends_with(":slow") {
        Fate::IsPulledForEver
    } else if container.command.as_deref() == Some(&["false".to_owned()]) {
        Fate::Crashes
    } else {
        Fate::Runs
    }
}

/// The status that the kubelet would publish now.
pub(super) fn at(pod: &Pod, old: &PodStatus, moment: &Moment) -> PodStatus {
    let Some(spec) = pod.spec.as_ref() else {
        return old.clone();
    };
    let containers: Vec<ContainerStatus> = spec
        .containers
        .iter()
        .map(|container| container_status(pod, container, old.container_statuses.as_deref(), moment))
        .collect();
    let init: Vec<ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| init_status(pod, container, old.init_container_statuses.as_deref(), moment))
        .collect();
    // A node sets up the network first, but says so only once the pull has ended either way.
    let network = moment.started()
        && !spec
            .containers
            .iter()
            .all(|one| fate(one) == Fate::IsPulledForEver);
    let begun = containers
        .iter()
        .any(|status| !is_waiting(status) || status.last_state.is_some());
    let mut status = old.clone();
    status.phase = Some(if begun { "Running" } else { "Pending" }.to_owned());
    status.host_ip = Some(moment.host.to_owned());
    status.host_ips = Some(vec![HostIP {
        ip: moment.host.to_owned(),
    }]);
    status.start_time = old.start_time.clone().or(Some(Time(moment.now)));
    status.observed_generation = pod.metadata.generation;
    if network {
        status.pod_ip = moment.addresses.first().cloned();
        status.pod_ips = Some(
            moment
                .addresses
                .iter()
                .map(|ip| PodIP { ip: ip.clone() })
                .collect(),
        );
    }
    status.conditions = Some(conditions(pod, spec, old, &containers, network, moment));
    status.container_statuses = Some(containers);
    status.init_container_statuses = if init.is_empty() { None } else { Some(init) };
    status
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.annotations().get(key).map(String::as_str)
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

fn container_status(
    pod: &Pod,
    container: &Container,
    old: Option<&[ContainerStatus]>,
    moment: &Moment,
) -> ContainerStatus {
    let old = find(old, &container.name);
    let mut status = blank(container, pod);
    if !moment.started() {
        status.state = Some(waiting("ContainerCreating", None));
        return status;
    }
    match fate(container) {
        Fate::IsPulledForEver => status.state = Some(waiting("ContainerCreating", None)),
        Fate::CannotBePulled => status.state = Some(pull_failure(container, moment.probed())),
        Fate::Crashes => {
            let back_off = format!("back-off 2m40s restarting failed container={}", container.name);
            status.state = Some(waiting("CrashLoopBackOff", Some(back_off)));
            status.restart_count = CRASH_RESTARTS;
            status.last_state = old
                .and_then(|old| old.last_state.clone())
                .or_else(|| Some(terminated(moment.now, 1, "Error")));
        }
        Fate::Runs => {
            status.state = Some(running(old, moment.now));
            status.started = Some(true);
            let passes = annotation(pod, annotations::READY) != Some("false");
            status.ready = passes && (container.readiness_probe.is_none() || moment.probed());
            restarted_before(pod, old, &mut status, moment.now);
        }
    }
    status
}

/// Init containers: sidecars run, the others have done their work.
fn init_status(
    pod: &Pod,
    container: &Container,
    old: Option<&[ContainerStatus]>,
    moment: &Moment,
) -> ContainerStatus {
    let old = find(old, &container.name);
    let mut status = blank(container, pod);
    if !moment.started() {
        status.state = Some(waiting("PodInitializing", None));
    } else if container.restart_policy.as_deref() == Some("Always") {
        status.state = Some(running(old, moment.now));
        status.started = Some(true);
        status.ready = container.readiness_probe.is_none() || moment.probed();
    } else {
        let before = old
            .and_then(|old| old.state.clone())
            .filter(|state| state.terminated.is_some());
        status.state = before.or_else(|| Some(terminated(moment.now, 0, "Completed")));
        status.started = Some(false);
        status.ready = true;
    }
    status
}

fn find<'a>(statuses: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.and_then(|statuses| statuses.iter().find(|status| status.name == name))
}

fn blank(container: &Container, pod: &Pod) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        container_id: Some(format!(
            "sandbox://{}/{}",
            pod.uid().unwrap_or_default(),
            container.name
        )),
        started: Some(false),
        ..ContainerStatus::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn running(old: Option<&ContainerStatus>, now: Timestamp) -> ContainerState {
    let before = old.and_then(|old| old.state.as_ref()?.running.clone());
    let running = before.unwrap_or(ContainerStateRunning {
        started_at: Some(Time(now)),
    });
    ContainerState {
        running: Some(running),
        ..ContainerState::default()
    }
}

fn terminated(at: Timestamp, code: i32, reason: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: code,
        reason: Some(reason.to_owned()),
        started_at: Some(Time(at)),
        finished_at: Some(Time(at)),
        ..ContainerStateTerminated::default()
    };
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

fn pull_failure(container: &Container, again: bool) -> ContainerState {
    let image = container.image.as_deref().unwrap_or_default();
    let cause = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": failed to do request: \
         Head \"https://registry.invalid\": dial tcp: lookup registry.invalid: no such host"
    );
    if again {
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
        waiting("ImagePullBackOff", Some(message))
    } else {
        waiting("ErrImagePull", Some(cause))
    }
}

/// Restarts that the annotations tell of.
fn restarted_before(pod: &Pod, old: Option<&ContainerStatus>, status: &mut ContainerStatus, now: Timestamp) {
    let number = |key| annotation(pod, key).and_then(|text| text.parse::<i64>().ok());
    let Some(restarts) = number(annotations::RESTARTS) else {
        return;
    };
    let ago = SignedDuration::from_secs(number(annotations::RESTARTED_SECONDS_AGO).unwrap_or(0));
    let at = now.checked_sub(ago).unwrap_or(now);
    status.restart_count = i32::try_from(restarts).unwrap_or(i32::MAX);
    status.last_state = old
        .and_then(|old| old.last_state.clone())
        // The real server answers an empty state for none.
        .filter(|state| state.terminated.is_some())
        .or_else(|| Some(terminated(at, 1, "Error")));
}

/// The kubelet's own conditions anew, those of others as they are.
fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    old: &PodStatus,
    containers: &[ContainerStatus],
    network: bool,
    moment: &Moment,
) -> Vec<PodCondition> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let unready: Vec<&str> = containers
        .iter()
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    let not_ready = || {
        (
            "False",
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        )
    };
    let containers_ready = if unready.is_empty() {
        ("True", "", String::new())
    } else {
        not_ready()
    };
    let ready = match unmet_gate(spec, before) {
        _ if !unready.is_empty() => not_ready(),
        Some(message) => ("False", "ReadinessGatesNotReady", message),
        None if annotation(pod, annotations::POD_READY) == Some("false") => ("False", "", String::new()),
        None => ("True", "", String::new()),
    };
    let initialized = spec.init_containers.as_ref().is_none_or(Vec::is_empty) || moment.started();
    let yes_or_no = |yes| (if yes { "True" } else { "False" }, "", String::new());
    let own = [
        ("PodReadyToStartContainers", yes_or_no(network)),
        ("Initialized", yes_or_no(initialized)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", yes_or_no(true)),
    ];
    let mut conditions: Vec<PodCondition> = own
        .into_iter()
        .map(|(kind, (status, reason, message))| {
            let same = before
                .iter()
                .find(|condition| condition.type_ == kind && condition.status == status);
            let since = same.and_then(|condition| condition.last_transition_time.clone());
            PodCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()).filter(|text| !text.is_empty()),
                message: Some(message).filter(|text| !text.is_empty()),
                last_transition_time: since.or(Some(Time(moment.now))),
                last_probe_time: None,
                observed_generation: pod.metadata.generation,
            }
        })
        .collect();
    let others = before.iter().filter(|condition| !own_condition(&condition.type_));
    conditions.extend(others.cloned());
    conditions
}

fn own_condition(kind: &str) -> bool {
    matches!(
        kind,
        "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled"
    )
}

fn unmet_gate(spec: &PodSpec, conditions: &[PodCondition]) -> Option<String> {
    spec.readiness_gates.iter().flatten().find_map(|gate| {
        let gate = &gate.condition_type;
        match conditions.iter().find(|condition| &condition.type_ == gate) {
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{gate}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => None,
        }
    })
}
