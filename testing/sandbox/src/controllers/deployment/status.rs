//! The status of a Deployment, and its conditions.

use super::*;

pub(super) async fn write_status(
    client: &Client,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    rollout: &Rollout,
    created: bool,
) -> Result<Action, RequestError> {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| rollout.all().map(count).sum::<i32>();
    let total = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
    let serving = sum(available);
    let updated = rollout
        .new
        .as_ref()
        .and_then(|set| set.status.as_ref())
        .map_or(0, |status| status.replicas);
    let current = rollout.new.as_ref().map_or(0, available);
    let complete = updated == rollout.replicas && total == updated && current >= rollout.replicas;
    let enough = serving >= rollout.replicas - rollout.max_unavailable;

    let new_name = rollout
        .new
        .as_ref()
        .map(ResourceExt::name_any)
        .unwrap_or_default();
    let (progressing, reason) = progress(&old, complete, created, updated, total, spec);
    let message = format!("ReplicaSet \"{new_name}\" {}", progress_in_words(reason));
    let availability = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let status = DeploymentStatus {
        replicas: Some(total),
        updated_replicas: Some(updated),
        ready_replicas: Some(serving),
        available_replicas: Some(serving),
        unavailable_replicas: Some((total.max(rollout.replicas) - serving).max(0)),
        terminating_replicas: Some(sum(|set| {
            set.status
                .as_ref()
                .and_then(|status| status.terminating_replicas)
                .unwrap_or(0)
        })),
        observed_generation: deployment.metadata.generation,
        collision_count: old.collision_count,
        conditions: Some(vec![
            condition(&old, "Available", availability.0, availability.1, availability.2),
            condition(&old, "Progressing", progressing, reason, &message),
        ]),
    };
    let later = if complete {
        Action::await_change()
    } else {
        Action::requeue(std::time::Duration::from_secs(5))
    };
    let revision = rollout.new.as_ref().map(revision).unwrap_or(0).to_string();
    let namespace = deployment.namespace().unwrap_or_default();
    let what = || format!("Deployment {namespace}/{}", deployment.name_any());
    let api = Api::<Deployment>::namespaced(client.clone(), &namespace);
    if deployment.annotations().get(REVISION) != Some(&revision) {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { REVISION: revision } } }));
        optional(
            api.patch(&deployment.name_any(), &PatchParams::default(), &patch)
                .await,
        )
        .during("annotate", what)?;
    }
    if normalised(&old) != normalised(&status) {
        let patch = Patch::Merge(json!({ "status": status }));
        optional(
            api.patch_status(&deployment.name_any(), &PatchParams::default(), &patch)
                .await,
        )
        .during("update the status of", what)?;
    }
    Ok(later)
}

/// Once complete, a rollout stays so: Pods that become unready later are not progress.
fn progress(
    old: &DeploymentStatus,
    complete: bool,
    created: bool,
    updated: i32,
    total: i32,
    spec: &DeploymentSpec,
) -> (&'static str, &'static str) {
    let before = old
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Progressing");
    let reason = before.and_then(|condition| condition.reason.as_deref());
    if complete || (reason == Some("NewReplicaSetAvailable") && !created && updated == total && updated > 0) {
        return ("True", "NewReplicaSetAvailable");
    }
    if created || before.is_none() {
        return ("True", "NewReplicaSetCreated");
    }
    let deadline = i64::from(
        spec.progress_deadline_seconds
            .unwrap_or(PROGRESS_DEADLINE_SECONDS),
    );
    let last = before.and_then(|condition| condition.last_update_time.as_ref());
    let waited = last.map_or(0, |time| Timestamp::now().as_second() - time.0.as_second());
    if reason == Some("ProgressDeadlineExceeded") || waited > deadline {
        return ("False", "ProgressDeadlineExceeded");
    }
    ("True", "ReplicaSetUpdated")
}

fn progress_in_words(reason: &str) -> &'static str {
    match reason {
        "NewReplicaSetAvailable" => "has successfully progressed.",
        "ProgressDeadlineExceeded" => "has timed out progressing.",
        "NewReplicaSetCreated" => "is created.",
        _ => "is progressing.",
    }
}

fn condition(
    old: &DeploymentStatus,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> DeploymentCondition {
    let now = Some(Time(Timestamp::now()));
    let before = old
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind);
    let same = before.filter(|before| before.status == status);
    let unchanged = same.filter(|before| before.reason.as_deref() == Some(reason));
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: same.map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        last_update_time: unchanged.map_or(now, |before| before.last_update_time.clone()),
    }
}

/// For comparing: zero and absent are the same, and the order of conditions says nothing.
fn normalised(status: &DeploymentStatus) -> DeploymentStatus {
    let some = |count: Option<i32>| Some(count.unwrap_or(0));
    let mut status = status.clone();
    status.replicas = some(status.replicas);
    status.updated_replicas = some(status.updated_replicas);
    status.ready_replicas = some(status.ready_replicas);
    status.available_replicas = some(status.available_replicas);
    status.unavailable_replicas = some(status.unavailable_replicas);
    status.terminating_replicas = some(status.terminating_replicas);
    let conditions = status.conditions.get_or_insert_default();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    for condition in conditions {
        condition.last_update_time = None;
        condition.last_transition_time = None;
    }
    status
}
