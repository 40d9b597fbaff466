//! Why a Pod is not ready, and whether it may still become so by itself.
//!
//! The kubelet's states are read as `kubectl get pods` shows them. A Pod that is only starting is
//! not at fault: it is given the time that its own probes, and the rollout it belongs to, allow.

mod containers;
mod deadlines;
mod probe_port;
mod runs;
mod said;
mod scheduling;
mod terminating;
pub(crate) mod trouble;

use jiff::Timestamp;

use crate::{
    Facts,
    pods::{
        events,
        node::{self, NodeTrouble},
        state::{said::said_of, trouble::Trouble},
    },
    time::later,
};
use svcdiag_objects::Pod;

pub(crate) use self::{
    containers::{looping_until, restarting_until},
    deadlines::rolling_out_until,
    terminating::{describe as describe_terminating, gone_by},
};

/// Why a Pod that is not ready is not.
pub(crate) fn trouble(facts: &Facts, pod: &Pod) -> Trouble {
    if let Some(trouble) = of_node(facts, pod) {
        return trouble;
    }
    if let Some(trouble) = scheduling::trouble(facts, pod) {
        return trouble;
    }
    containers::trouble(facts, pod).unwrap_or_else(|| without_container_trouble(facts, pod))
}

/// Until when a Pod that is not ready may still become so, or be gone, by itself.
pub(crate) fn settles_at(facts: &Facts, pod: &Pod) -> Option<Timestamp> {
    if let Some(until) = gone_by(pod) {
        return Some(until).filter(|until| *until > facts.now);
    }
    match trouble(facts, pod) {
        Trouble::Starting(start) => Some(start.until),
        _ => None,
    }
}

/// The node of a Pod that ran on it is to blame at once; one that is to start there may wait for the node, too.
fn of_node(facts: &Facts, pod: &Pod) -> Option<Trouble> {
    let node = pod.spec.node_name.as_deref()?;
    Some(match node::trouble(facts, pod)? {
        NodeTrouble::Gone => Trouble::NodeNotReady(format!(
            "it runs on node {node}, which is not among the Nodes of the cluster"
        )),
        NodeTrouble::NotReady(condition) => {
            let text = format!("its node {}", node::describe(node, condition));
            let trouble = Trouble::NodeNotReady(text);
            if runs::have_run(pod) {
                trouble
            } else {
                deadlines::patience(facts, deadlines::start(facts, pod), trouble)
            }
        }
    })
}

/// No container is at fault: the Pod has none yet, or waits for a readiness gate.
fn without_container_trouble(facts: &Facts, pod: &Pod) -> Trouble {
    if pod.status.container_statuses.is_empty() {
        let said = said_of(facts, pod);
        let text = said.clone().unwrap_or_else(|| match &pod.spec.node_name {
            Some(node) => format!("the kubelet of node {node} has not started it"),
            None => "it has not been scheduled".to_owned(),
        });
        return deadlines::waiting_for(facts, deadlines::start(facts, pod), Trouble::Other(text), said);
    }
    let unmet = || {
        let gates = pod.spec.readiness_gates.iter().map(|g| g.condition_type.as_str());
        gates.filter(|t| pod.condition(t).is_none_or(|c| c.status != "True"))
    };
    if let Some(first) = unmet().next() {
        let gates: Vec<&str> = unmet().collect();
        let said = pod.condition(first).map_or_else(
            || "nothing has set it yet".to_owned(),
            |c| in_words(c.reason.as_deref(), c.message.as_deref()),
        );
        let text = format!(
            "its containers are ready, but the readiness gate {} is not met ({said})",
            gates.join(", ")
        );
        let since = pod
            .condition("ContainersReady")
            .and_then(|c| c.last_transition_time)
            .unwrap_or(facts.now);
        return deadlines::patience(
            facts,
            later(since, deadlines::START_PATIENCE),
            Trouble::Other(text),
        );
    }
    let text = pod.condition("Ready").map(|c| {
        format!(
            "its containers are ready, but its Ready condition is {} ({})",
            c.status,
            in_words(c.reason.as_deref(), c.message.as_deref())
        )
    });
    Trouble::Other(text.unwrap_or_else(|| "it has no Ready condition".to_owned()))
}

fn in_words(reason: Option<&str>, message: Option<&str>) -> String {
    let said: Vec<String> = [reason, message]
        .into_iter()
        .flatten()
        .map(events::one_line)
        .filter(|part| !part.is_empty())
        .collect();
    match said.is_empty() {
        true => "no reason given".to_owned(),
        false => said.join(": "),
    }
}
