//! ReplicaSets: as many Pods as asked for, and a status that counts them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::Controller;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::pods::{self, is_ready, is_terminating};
use super::{Outcome, done, drain, everything, retry};
use crate::error::{Context, RequestError, optional};

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let controller = Controller::new(Api::<ReplicaSet>::all(client.clone()), everything())
        .owns(Api::<Pod>::all(client.clone()), everything());
    drain("replicaset", controller.run(reconcile, retry, Arc::new(client))).await;
}

async fn reconcile(set: Arc<ReplicaSet>, client: Arc<Client>) -> Outcome {
    let Some(spec) = set.spec.as_ref() else {
        return done();
    };
    if set.metadata.deletion_timestamp.is_some() {
        return done();
    }
    let (terminating, mut active): (Vec<Pod>, Vec<Pod>) =
        pods::list_controlled(&client, &*set, &spec.selector)
            .await?
            .into_iter()
            .partition(is_terminating);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if active.len() > wanted {
        // The least useful first, and among equals the youngest.
        active.sort_by_key(|pod| {
            (
                usefulness(pod),
                std::cmp::Reverse(pod.creation_timestamp().map(|time| time.0)),
            )
        });
        for pod in active.drain(..active.len() - wanted) {
            pods::delete(&client, &pod).await?;
        }
    } else {
        for _ in active.len()..wanted {
            active.push(create_pod(&client, &set, spec).await?);
        }
    }
    write_status(&client, &set, &active, terminating.len()).await?;
    done()
}

/// Unscheduled, then pending, then unready Pods are given up before ready ones.
fn usefulness(pod: &Pod) -> u8 {
    let scheduled = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let running = pod
        .status
        .as_ref()
        .is_some_and(|status| status.phase.as_deref() == Some("Running"));
    u8::from(scheduled) + u8::from(running) + u8::from(is_ready(pod))
}

async fn create_pod(client: &Client, set: &ReplicaSet, spec: &ReplicaSetSpec) -> Result<Pod, RequestError> {
    let namespace = set.namespace().unwrap_or_default();
    let name = pods::generated_name(&set.name_any());
    let template = spec.template.clone().unwrap_or_default();
    let mut pod = pods::from_template(&template, set, name.clone());
    pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
    Api::<Pod>::namespaced(client.clone(), &namespace)
        .create(&PostParams::default(), &pod)
        .await
        .during("create", || format!("Pod {namespace}/{name}"))
}

async fn write_status(
    client: &Client,
    set: &ReplicaSet,
    active: &[Pod],
    terminating: usize,
) -> Result<(), RequestError> {
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let ready = count(active.iter().filter(|pod| is_ready(pod)).count());
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.len())),
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    if set.status.as_ref().is_some_and(|old| same_counts(old, &status)) {
        return Ok(());
    }
    let namespace = set.namespace().unwrap_or_default();
    let api = Api::<ReplicaSet>::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "status": status }));
    optional(
        api.patch_status(&set.name_any(), &PatchParams::default(), &patch)
            .await,
    )
    .during("update the status of", || {
        format!("ReplicaSet {namespace}/{}", set.name_any())
    })?;
    Ok(())
}

/// Servers drop or keep zero counts as they like.
fn same_counts(old: &ReplicaSetStatus, new: &ReplicaSetStatus) -> bool {
    let counts = |status: &ReplicaSetStatus| {
        [
            status.replicas,
            status.fully_labeled_replicas.unwrap_or(0),
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
            status.terminating_replicas.unwrap_or(0),
        ]
    };
    counts(old) == counts(new) && old.observed_generation == new.observed_generation
}
