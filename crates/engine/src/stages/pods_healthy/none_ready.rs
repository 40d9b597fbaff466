//! No Pod is ready: why, and what to do.

use std::cmp::Reverse;

use crate::{
    Facts, Finding,
    pods::state::{
        self,
        trouble::{Crash, Hold, Start, Trouble},
    },
    text::{self, quoted},
};
use svcdiag_api::{ConditionType, Observation, Reason};
use svcdiag_objects::{Object, Pod, Service};

/// Pods that are listed one by one in the status.
const MAX_PODS_SHOWN: usize = 5;

pub(super) fn judge(facts: &Facts, service: &Service, pods: &[&Pod]) -> Finding {
    let mut troubles: Vec<(Trouble, &Pod)> = pods.iter().map(|p| (state::trouble(facts, p), *p)).collect();
    troubles.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name().cmp(b.1.name())));
    let starting: Vec<(&Start, &Pod)> = troubles
        .iter()
        .filter_map(|(trouble, pod)| match trouble {
            Trouble::Starting(start) => Some((start, *pod)),
            _ => None,
        })
        .collect();
    if !starting.is_empty() {
        return are_starting(facts, &starting, pods.len());
    }
    let Some((foremost, _)) = troubles.first() else {
        return Finding::not_applicable("No Pod is selected.");
    };
    let alike = || {
        let kind = std::mem::discriminant(foremost);
        troubles
            .iter()
            .filter(move |(t, _)| std::mem::discriminant(t) == kind)
    };
    let same = alike().count();
    // Of Pods with one trouble, the one of which most is known is the best example.
    let Some((first, pod)) = alike().max_by_key(|(t, p)| (t.describe().len(), Reverse(p.name()))) else {
        return Finding::not_applicable("No Pod is selected.");
    };
    let text = first.describe().trim_end_matches('.');
    let unread = match first {
        Trouble::Other(_) => unread_events(facts),
        _ => String::new(),
    };
    let message = if pods.len() == 1 {
        format!("The only Pod, {}, is not ready: {text}.{unread}", pod.name())
    } else {
        let all = pods.len();
        let alike = match same {
            // What nobody gave a reason for is no reason that they share.
            n if n == all && matches!(first, Trouble::Other(_)) => {
                ", and all are in the same state".to_owned()
            }
            n if n == all => ", and the reason is the same for all".to_owned(),
            1 => String::new(),
            n => format!(", {n} of them for the same reason"),
        };
        format!(
            "{} Pods is ready{alike}. For example, Pod {}: {text}.{unread}",
            text::capitalized(&text::none_of(all)),
            pod.name()
        )
    };
    let until = pods.iter().filter_map(|p| state::looping_until(facts, p)).min();
    let mut finding = Finding::nothing_works(reason(first), message, remediation(facts, service, first, pod))
        .recheck_at(until);
    finding.observations = troubles
        .iter()
        .take(MAX_PODS_SHOWN)
        .map(|(t, p)| observation(facts, t, p))
        .collect();
    finding
}

fn are_starting(facts: &Facts, starting: &[(&Start, &Pod)], of: usize) -> Finding {
    let until = starting.iter().map(|(start, _)| start.until).min();
    let said = starting
        .iter()
        .find_map(|(start, pod)| Some((start.why.as_deref()?, *pod)));
    let why = match said {
        Some((why, pod)) => format!(" Pod {}: {}.", pod.name(), why.trim_end_matches('.')),
        None => unread_events(facts),
    };
    let (n, are) = match starting.len() {
        1 => (1, "is"),
        n => (n, "are"),
    };
    Finding::unknown(
        Reason::PodsStarting,
        format!(
            "No Pod is ready yet. {n} of {} {are} starting and still within the time allowed for that.{why}",
            text::count(of, "Pod")
        ),
    )
    .recheck_at(until)
}

/// That nobody knows what the Events say, if so.
fn unread_events(facts: &Facts) -> String {
    facts
        .why_unreadable("events")
        .map_or_else(String::new, |why| format!(" Events could not be read ({why})."))
}

fn reason(trouble: &Trouble) -> Reason {
    match trouble {
        Trouble::NodeNotReady(_) => Reason::NodeNotReady,
        Trouble::Unschedulable(..) => Reason::PodsUnschedulable,
        Trouble::ImagePull(_) => Reason::ImagePullFailed,
        Trouble::InitContainer(_) => Reason::InitContainerFailing,
        Trouble::CrashLoop(_) => Reason::CrashLooping,
        Trouble::ProbeFailing(_) => Reason::ReadinessProbeFailing,
        Trouble::Other(_) => Reason::PodsNotReady,
        Trouble::Starting(_) => Reason::PodsStarting,
    }
}

fn remediation(facts: &Facts, service: &Service, trouble: &Trouble, pod: &Pod) -> String {
    let (ns, name) = (quoted(&facts.namespace), quoted(pod.name()));
    let describe = format!("`kubectl -n {ns} describe pod {name}`");
    match trouble {
        Trouble::NodeNotReady(_) => {
            let node = quoted(pod.spec.node_name.as_deref().unwrap_or_default());
            format!(
                "Find out why node {node} is not ready: `kubectl describe node {node}`. If its Ready condition is Unknown, the kubelet does not report: check the machine, its network and the kubelet. If it is False, its message says why."
            )
        }
        Trouble::Unschedulable(Hold::Gate, _) => {
            format!(
                "Find out which controller should remove the scheduling gate, and what it is waiting for: {describe}."
            )
        }
        Trouble::Unschedulable(Hold::Volume, _) => {
            format!("Check the Pod's PersistentVolumeClaims: `kubectl -n {ns} get pvc`, {describe}.")
        }
        Trouble::Unschedulable(Hold::NoNode, _) => format!(
            "Make room on a node, or change the Pods' requests, nodeSelector, affinity or tolerations: {describe}."
        ),
        Trouble::ImagePull(_) => format!(
            "Correct the image name, or give the Pods access to the registry (imagePullSecrets): {describe}."
        ),
        Trouble::InitContainer(_) => format!(
            "Find out what the init container is waiting for or why it fails: {describe}, `kubectl -n {ns} logs {name} --all-containers --prefix`."
        ),
        Trouble::CrashLoop(crash) => after_crash(crash, pod, &ns),
        Trouble::ProbeFailing(_) if service.is_headless() => format!(
            "Check what the readiness probe reports, and fix the application or the probe: {describe}. If the Pods must find each other \
             through this Service before they are ready, set publishNotReadyAddresses: true in its spec."
        ),
        Trouble::ProbeFailing(_) => {
            format!(
                "Check what the readiness probe reports, and fix the application or the probe: {describe}."
            )
        }
        Trouble::Other(_) | Trouble::Starting(_) => {
            format!("Check the Pod's conditions and events: {describe}.")
        }
    }
}

/// What to do about a container that ends again and again.
fn after_crash(crash: &Crash, pod: &Pod, ns: &str) -> String {
    let (name, container) = (quoted(pod.name()), &crash.container);
    // Without a name kubectl shows another one, if there are several.
    let is_only = pod.spec.containers.len() + pod.spec.init_containers.len() < 2;
    let which = match is_only {
        true => String::new(),
        false => format!(" -c {}", quoted(container)),
    };
    let logs = format!("`kubectl -n {ns} logs {name}{which} --previous`");
    match crash.is_out_of_memory {
        true => format!(
            "Container {container} ran out of memory: raise its memory limit, or find out what uses the memory. Its log before that: {logs}."
        ),
        false => format!("Find out why the container exited: {logs}."),
    }
}

fn observation(facts: &Facts, trouble: &Trouble, pod: &Pod) -> Observation {
    let result = match trouble {
        Trouble::NodeNotReady(_) => "node not ready",
        Trouble::Unschedulable(..) => "Unschedulable",
        Trouble::ImagePull(_) => "image pull failed",
        Trouble::InitContainer(_) => "init container",
        Trouble::CrashLoop(_) => "crash loop",
        Trouble::ProbeFailing(_) | Trouble::Other(_) => "not ready",
        Trouble::Starting(_) => "starting",
    };
    Observation {
        condition: ConditionType::PodsHealthy.as_str().to_owned(),
        node: pod.spec.node_name.clone(),
        pod: Some(format!("{}/{}", facts.namespace, pod.name())),
        target: None,
        result: result.to_owned(),
        detail: Some(trouble.describe().chars().take(1024).collect()),
        latency_milliseconds: None,
    }
}
