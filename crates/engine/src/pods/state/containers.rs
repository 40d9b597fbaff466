//! What the states of a Pod's containers say.

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts,
    pods::{
        events::one_line,
        state::{
            deadlines,
            probe_port::mismatch,
            said::{last_said, said_of},
            trouble::{Crash, Trouble},
        },
    },
    text,
    time::later,
};
use svcdiag_objects::{Container, ContainerStatus, Pod, Probe, Terminated};

/// A container that ended this often is looping.
const LOOPING_RESTARTS: i32 = 3;

/// The kubelet forgets a container's failures after it ran for ten minutes (twice the cap of the
/// back-off, `MaxContainerBackOff` of 300 s), so older ones say nothing about the present.
const RESTART_MEMORY: SignedDuration = SignedDuration::from_mins(10);

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

/// The reason with which container runtimes report that the kernel killed a container at its memory limit. The exit
/// code alone (137, SIGKILL) is also that of a container that did not stop in time.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// Waiting reasons that pass by themselves.
const START_REASONS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A container that the Pod needs to be ready, and is not.
struct Subject<'a> {
    facts: &'a Facts,
    pod: &'a Pod,
    spec: Option<&'a Container>,
    status: &'a ContainerStatus,
    /// Whether it has to end before the others start.
    is_init: bool,
}

/// The foremost trouble of the containers.
pub(crate) fn trouble(facts: &Facts, pod: &Pod) -> Option<Trouble> {
    let subjects: Vec<Subject<'_>> = subjects(facts, pod).collect();
    // Containers that wait for their turn say nothing where others have had theirs.
    let have_begun = subjects.iter().any(|s| !s.waits_for_its_turn());
    let mut troubles: Vec<Trouble> = subjects
        .iter()
        .filter(|s| !have_begun || !s.waits_for_its_turn())
        .filter_map(Subject::trouble)
        .collect();
    // A container that is still starting does not excuse another one that fails, but a failing
    // probe may be waiting for it.
    troubles.sort();
    let starting = troubles.iter().position(|t| matches!(t, Trouble::Starting(_)));
    match (troubles.first()?, starting) {
        (Trouble::ProbeFailing(_), Some(starting)) => Some(troubles.swap_remove(starting)),
        _ => Some(troubles.swap_remove(0)),
    }
}

/// The containers that the Pod needs to be ready and that are not: init containers count until they have ended.
fn subjects<'a>(facts: &'a Facts, pod: &'a Pod) -> impl Iterator<Item = Subject<'a>> {
    let init = pod.status.init_container_statuses.iter().filter(|s| {
        let done = s.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        let sidecar_up = s.ready && s.started == Some(true);
        !done && !sidecar_up
    });
    let init = init.map(move |status| {
        let spec = pod.spec.init_containers.iter().find(|c| c.name == status.name);
        Subject {
            facts,
            pod,
            spec,
            status,
            is_init: spec.is_some_and(|c| !c.is_sidecar()),
        }
    });
    let main = pod.status.container_statuses.iter().filter(|s| !s.ready);
    let main = main.map(move |status| Subject {
        facts,
        pod,
        spec: pod.spec.containers.iter().find(|c| c.name == status.name),
        status,
        is_init: false,
    });
    init.chain(main)
}

impl Subject<'_> {
    /// `container web`, `init container wait`.
    fn name(&self) -> String {
        let kind = if self.is_init {
            "init container"
        } else {
            "container"
        };
        format!("{kind} {}", self.status.name)
    }

    fn waits_for_its_turn(&self) -> bool {
        let waiting = self.status.state.waiting.as_ref();
        waiting.is_some_and(|w| w.reason.as_deref().is_none_or(|r| START_REASONS.contains(&r)))
            && !looping(self.facts, self.status)
    }

    /// A trouble of the container, by what kind of container it is.
    fn failure(&self, text: String) -> Trouble {
        match self.is_init {
            true => Trouble::InitContainer(text),
            false => Trouble::Other(text),
        }
    }

    fn within_start(&self, then: Trouble) -> Trouble {
        deadlines::patience(self.facts, deadlines::start(self.facts, self.pod), then)
    }

    fn trouble(&self) -> Option<Trouble> {
        if let Some(waiting) = &self.status.state.waiting {
            return Some(self.waiting(waiting.reason.as_deref(), waiting.message.as_deref()));
        }
        if looping(self.facts, self.status) {
            return Some(self.crash_loop());
        }
        if let Some(terminated) = &self.status.state.terminated {
            let text = format!("{} exited with code {}", self.name(), terminated.exit_code);
            return Some(self.within_start(self.failure(text)));
        }
        self.running(self.status.state.running.as_ref()?.started_at?)
    }

    fn waiting(&self, reason: Option<&str>, message: Option<&str>) -> Trouble {
        let name = self.name();
        let shown = reason.unwrap_or("Waiting");
        if IMAGE_REASONS.contains(&shown) {
            let image = self.spec.and_then(|c| c.image.as_deref()).unwrap_or("?");
            // While it waits to try again, what went wrong is at the end of the message, or in an Event.
            let why = match message.unwrap_or_default() {
                message if shown == "ErrImagePull" && !message.is_empty() => Some(one_line(message)),
                message => message.split_once("ErrImagePull: ").map(|(_, why)| one_line(why)),
            };
            let why = why.or_else(|| said_of(self.facts, self.pod));
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            return Trouble::ImagePull(format!("{name}: {shown} for image {image}{why}"));
        }
        if shown == "CrashLoopBackOff" || looping(self.facts, self.status) {
            return self.crash_loop();
        }
        let text = match message.filter(|m| !m.is_empty()) {
            Some(message) => format!("{name}: {shown}: {}", one_line(message)),
            None => format!("{name}: {shown}"),
        };
        if reason.is_some_and(|r| !START_REASONS.contains(&r)) {
            return self.failure(text);
        }
        let said = said_of(self.facts, self.pod);
        let deadline = deadlines::start(self.facts, self.pod);
        let then = Trouble::Other(said.clone().unwrap_or(text));
        deadlines::waiting_for(self.facts, deadline, then, said)
    }

    fn crash_loop(&self) -> Trouble {
        let text = ended(&self.name(), self.status);
        if self.is_init {
            return Trouble::InitContainer(text);
        }
        let text = match self.spec.and_then(|c| mismatch(self.pod, c)) {
            Some(odd) => format!("{text}; {odd}"),
            None => text,
        };
        Trouble::CrashLoop(Crash {
            text,
            container: self.status.name.clone(),
            is_out_of_memory: last_termination(self.status)
                .is_some_and(|t| t.reason.as_deref() == Some(OUT_OF_MEMORY)),
        })
    }

    fn running(&self, started_at: Timestamp) -> Option<Trouble> {
        let (facts, pod, name) = (self.facts, self.pod, self.name());
        if self.is_init {
            let text = format!("{name} has been running since {started_at} and has not completed");
            return Some(self.within_start(Trouble::InitContainer(text)));
        }
        let budget =
            |probe: Option<&Probe>| SignedDuration::from_secs(probe.map_or(0, Probe::budget_seconds));
        let startup = budget(self.spec.and_then(|c| c.startup_probe.as_ref()));
        let readiness = self.spec.and_then(|c| c.readiness_probe.as_ref());
        if self.status.started == Some(false) {
            let text = format!(
                "{name} is running, but its startup probe has not passed{}",
                self.probe_words()
            );
            let deadline = later(started_at, startup + PROBE_SLACK).max(deadlines::progress(facts, pod));
            return Some(deadlines::patience(facts, deadline, Trouble::Other(text)));
        }
        let failing = if readiness.is_some() {
            let words = self.probe_words();
            Trouble::ProbeFailing(format!("{name} is running, but its readiness probe fails{words}"))
        } else {
            Trouble::Other(format!("{name} is running, but not ready"))
        };
        if was_ready_since(pod, started_at) {
            return Some(failing);
        }
        let deadline =
            later(started_at, startup + budget(readiness) + PROBE_SLACK).max(deadlines::progress(facts, pod));
        Some(deadlines::patience(facts, deadline, failing))
    }

    /// What else is known of a probe that fails: the port that it asks in vain, and what the kubelet said last.
    fn probe_words(&self) -> String {
        let said = last_said(self.facts, self.pod, |e| {
            e.reason == "Unhealthy" && !e.message.starts_with("Liveness")
        });
        // Whoever answers with a status listens on that port, declared or not.
        let is_answered = said.as_ref().is_some_and(|said| said.contains("statuscode"));
        let odd = self
            .spec
            .filter(|_| !is_answered)
            .and_then(|c| mismatch(self.pod, c));
        let known: Vec<String> = [odd, said].into_iter().flatten().collect();
        match known.is_empty() {
            true => String::new(),
            false => format!(" ({})", known.join("; ")),
        }
    }
}

/// Whether a container of a ready Pod ended often and not long ago; and until when that is so.
pub(crate) fn restarting_until(facts: &Facts, pod: &Pod) -> Option<(String, Timestamp)> {
    pod.status
        .container_statuses
        .iter()
        .filter(|s| looping(facts, s))
        .filter_map(|s| {
            let name = format!("container {}", s.name);
            Some((ended(&name, s), later(last_end(s)?, RESTART_MEMORY)))
        })
        .max_by_key(|(_, until)| *until)
}

/// When the first of the looping containers of a Pod no longer counts as one, unless it ends again.
pub(crate) fn looping_until(facts: &Facts, pod: &Pod) -> Option<Timestamp> {
    let init = pod.status.init_container_statuses.iter();
    let all = init.chain(&pod.status.container_statuses);
    let ends = all.filter(|s| looping(facts, s)).filter_map(last_end);
    ends.min().map(|end| later(end, RESTART_MEMORY))
}

/// `container web was restarted 5 times, last with exit code 1 (Error)`.
fn ended(name: &str, status: &ContainerStatus) -> String {
    let last = last_termination(status).map(|t| {
        let reason = t.reason.as_deref().map(|r| format!(", {r}")).unwrap_or_default();
        format!(" (last exit code {}{reason})", t.exit_code)
    });
    let times = text::count(usize::try_from(status.restart_count).unwrap_or(0), "time");
    format!("{name} has restarted {times}{}", last.unwrap_or_default())
}

/// How the container ended last.
fn last_termination(status: &ContainerStatus) -> Option<&Terminated> {
    let present = status.state.terminated.as_ref();
    present.or(status.last_state.terminated.as_ref())
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
