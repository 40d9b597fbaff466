//! StatefulSets, as far as a Service can tell: Pods `name-0`, `name-1`, ... made in order, the
//! last ones given up first, replaced from the top when the template changes. No volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::Controller;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::naming::template_hash;
use super::pods::{self, is_ready, is_terminating};
use super::{Outcome, done, drain, everything, retry};
use crate::error::{Context, RequestError, optional};

const REVISION_LABEL: &str = "controller-revision-hash";

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let controller = Controller::new(Api::<StatefulSet>::all(client.clone()), everything())
        .owns(Api::<Pod>::all(client.clone()), everything());
    drain("statefulset", controller.run(reconcile, retry, Arc::new(client))).await;
}

async fn reconcile(set: Arc<StatefulSet>, client: Arc<Client>) -> Outcome {
    let Some(spec) = set.spec.as_ref() else {
        return done();
    };
    if set.metadata.deletion_timestamp.is_some() {
        return done();
    }
    let revision = format!("{}-{}", set.name_any(), template_hash(&spec.template));
    let members: BTreeMap<usize, Pod> = pods::list_controlled(&client, &*set, &spec.selector)
        .await?
        .into_iter()
        .filter_map(|pod| Some((ordinal(&pod)?, pod)))
        .collect();
    match next_step(spec, &members, &revision) {
        Some(Step::Create(ordinal)) => create_pod(&client, &set, spec, ordinal, &revision).await?,
        Some(Step::Delete(pod)) => pods::delete(&client, pod).await?,
        None => {}
    }
    write_status(&client, &set, &members, &revision).await?;
    done()
}

enum Step<'a> {
    Create(usize),
    Delete(&'a Pod),
}

/// One step at a time: the change it makes wakes us for the next.
fn next_step<'a>(
    spec: &StatefulSetSpec,
    members: &'a BTreeMap<usize, Pod>,
    revision: &str,
) -> Option<Step<'a>> {
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    for ordinal in 0..wanted {
        match members.get(&ordinal) {
            None => return Some(Step::Create(ordinal)),
            Some(pod) if in_order && !is_ready(pod) && !outdated(pod, revision) => return None,
            Some(_) => {}
        }
    }
    let live = || members.iter().rev().filter(|(_, pod)| !is_terminating(pod));
    if let Some((_, pod)) = live().find(|(ordinal, _)| **ordinal >= wanted) {
        return Some(Step::Delete(pod));
    }
    // A member on its way out is replaced before the next one goes.
    if members.values().any(is_terminating) {
        return None;
    }
    live()
        .find(|(_, pod)| outdated(pod, revision))
        .map(|(_, pod)| Step::Delete(pod))
}

fn outdated(pod: &Pod, revision: &str) -> bool {
    pod.labels().get(REVISION_LABEL).map(String::as_str) != Some(revision)
}

fn ordinal(pod: &Pod) -> Option<usize> {
    pod.name_any().rsplit('-').next()?.parse().ok()
}

async fn create_pod(
    client: &Client,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: usize,
    revision: &str,
) -> Result<(), RequestError> {
    let namespace = set.namespace().unwrap_or_default();
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pods::from_template(&spec.template, set, name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    if let Some(pod_spec) = pod.spec.as_mut() {
        pod_spec.hostname = Some(name.clone());
        pod_spec.subdomain = spec.service_name.clone();
    }
    Api::<Pod>::namespaced(client.clone(), &namespace)
        .create(&PostParams::default(), &pod)
        .await
        .during("create", || format!("Pod {namespace}/{name}"))?;
    Ok(())
}

async fn write_status(
    client: &Client,
    set: &StatefulSet,
    members: &BTreeMap<usize, Pod>,
    revision: &str,
) -> Result<(), RequestError> {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(members.values().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let updated = count(&|pod| !outdated(pod, revision));
    let ready = count(&is_ready);
    let status = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        current_replicas: Some(updated),
        updated_replicas: Some(updated),
        current_revision: Some(revision.to_owned()),
        update_revision: Some(revision.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        conditions: None,
    };
    if set.status.as_ref().is_some_and(|old| same(old, &status)) {
        return Ok(());
    }
    let namespace = set.namespace().unwrap_or_default();
    let api = Api::<StatefulSet>::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "status": status }));
    optional(
        api.patch_status(&set.name_any(), &PatchParams::default(), &patch)
            .await,
    )
    .during("update the status of", || {
        format!("StatefulSet {namespace}/{}", set.name_any())
    })?;
    Ok(())
}

/// Servers drop or keep zero counts as they like.
fn same(old: &StatefulSetStatus, new: &StatefulSetStatus) -> bool {
    let counts = |status: &StatefulSetStatus| {
        [
            status.replicas,
            status.ready_replicas.unwrap_or(0),
            status.updated_replicas.unwrap_or(0),
        ]
    };
    counts(old) == counts(new)
        && old.observed_generation == new.observed_generation
        && old.update_revision == new.update_revision
}
