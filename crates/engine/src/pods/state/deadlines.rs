//! How long a Pod may take to start.

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts,
    pods::state::trouble::{Start, Trouble},
    time::later,
};
use svcdiag_objects::{Deployment, Pod};

/// Time for a Pod to start where nothing states one: the default of a Deployment's
/// progressDeadlineSeconds.
pub(crate) const START_PATIENCE: SignedDuration = SignedDuration::from_secs(600);

/// By when a Pod should have been started: after the time that its Deployment states for progress.
pub(crate) fn start(facts: &Facts, pod: &Pod) -> Timestamp {
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let since = pod.status.start_time.or(created).unwrap_or(facts.now);
    let stated = deployment(facts, pod).and_then(|d| d.spec.progress_deadline_seconds);
    let patience = stated.map_or(START_PATIENCE, |seconds| {
        SignedDuration::from_secs(seconds.into())
    });
    later(since, patience).max(progress(facts, pod))
}

/// By when the rollout that the Pod belongs to has to make progress; the past if there is none.
pub(crate) fn progress(facts: &Facts, pod: &Pod) -> Timestamp {
    let Some(deployment) = deployment(facts, pod) else {
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

/// Until when the rollout that a Pod belongs to may take, if one is under way.
pub(crate) fn rolling_out_until(facts: &Facts, pod: &Pod) -> Option<Timestamp> {
    Some(progress(facts, pod)).filter(|until| *until > facts.now)
}

fn deployment<'a>(facts: &'a Facts, pod: &Pod) -> Option<&'a Deployment> {
    let uid = pod.controller_uid()?;
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
        .map(AsRef::as_ref)
        .find(|d| d.metadata.uid.as_ref() == Some(&owner.uid))
}

/// Nothing is at fault before a deadline. What will be at fault then is worth a word before only where it is more
/// than that the Pod takes its time.
pub(crate) fn patience(facts: &Facts, deadline: Timestamp, then: Trouble) -> Trouble {
    let is_telling = matches!(
        then,
        Trouble::NodeNotReady(_) | Trouble::Unschedulable(..) | Trouble::InitContainer(_)
    );
    let why = is_telling.then(|| then.describe().to_owned());
    waiting_for(facts, deadline, then, why)
}

/// The same, where somebody said what the Pod waits for.
pub(crate) fn waiting_for(facts: &Facts, deadline: Timestamp, then: Trouble, why: Option<String>) -> Trouble {
    if deadline > facts.now {
        Trouble::Starting(Start { until: deadline, why })
    } else {
        then
    }
}
