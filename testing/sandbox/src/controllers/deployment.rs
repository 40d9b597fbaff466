//! Deployments: one ReplicaSet for each template, scaled so that old Pods serve until new ones
//! are ready.
//!
//! The arithmetic is that of Kubernetes: at most `replicas + maxSurge` Pods exist, at least
//! `replicas - maxUnavailable` are available, and old Pods that are not available go first.

mod status;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::naming::template_hash;
use super::pods;
use super::{Outcome, done, drain, everything, retry};
use crate::error::{Context, RequestError, optional};

use self::status::write_status;

const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Kubernetes' default of spec.progressDeadlineSeconds.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let controller = Controller::new(Api::<Deployment>::all(client.clone()), everything())
        .owns(Api::<ReplicaSet>::all(client.clone()), everything());
    drain("deployment", controller.run(reconcile, retry, Arc::new(client))).await;
}

async fn reconcile(deployment: Arc<Deployment>, client: Arc<Client>) -> Outcome {
    let Some(spec) = deployment.spec.as_ref() else {
        return done();
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return done();
    }
    let mut rollout = Rollout::read(&client, &deployment, spec).await?;
    let mut created = false;
    if rollout.new.is_none() && spec.paused != Some(true) {
        rollout.new = Some(create_set(&client, &deployment, spec, &rollout).await?);
        created = true;
    }
    for (set, replicas) in rollout.scale() {
        scale(&client, set, replicas).await?;
    }
    write_status(&client, &deployment, spec, &rollout, created).await
}

/// A Deployment's ReplicaSets: the one of the present template, and the others.
struct Rollout {
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
    replicas: i32,
    max_surge: i32,
    max_unavailable: i32,
    recreate: bool,
}

impl Rollout {
    async fn read(
        client: &Client,
        deployment: &Deployment,
        spec: &DeploymentSpec,
    ) -> Result<Self, RequestError> {
        let namespace = deployment.namespace().unwrap_or_default();
        let what = || format!("the ReplicaSets of {namespace}/{}", deployment.name_any());
        let params = ListParams::default().labels(&pods::selector_text(&spec.selector).unwrap_or_default());
        let list = Api::<ReplicaSet>::namespaced(client.clone(), &namespace)
            .list(&params)
            .await
            .during("list", what)?;
        let hash = template_hash(&spec.template);
        let (mut new, old): (Vec<_>, Vec<_>) = list
            .items
            .into_iter()
            .filter(|set| {
                pods::is_controlled_by(set, deployment) && set.metadata.deletion_timestamp.is_none()
            })
            .partition(|set| set.labels().get(HASH_LABEL) == Some(&hash));
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let max_surge = share(
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            replicas,
            true,
        );
        let max_unavailable = share(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            replicas,
            false,
        );
        Ok(Self {
            new: new.pop(),
            old,
            replicas,
            max_surge,
            // Both zero would never move.
            max_unavailable: if max_surge == 0 {
                max_unavailable.max(1)
            } else {
                max_unavailable
            },
            recreate: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate"),
        })
    }

    /// The ReplicaSets whose size has to change, with their next size.
    fn scale(&self) -> Vec<(&ReplicaSet, i32)> {
        let Some(new) = &self.new else { return Vec::new() };
        let mut changes = Vec::new();
        let mut resize = |set, size| {
            if wanted(set) != size {
                changes.push((set, size));
            }
        };
        let old_total: i32 = self.old.iter().map(wanted).sum();
        if self.replicas == 0 {
            self.old.iter().for_each(|old| resize(old, 0));
            resize(new, 0);
        } else if self.recreate {
            self.old.iter().for_each(|old| resize(old, 0));
            let gone = self.old.iter().all(|old| existing(old) == 0);
            resize(
                new,
                if gone {
                    self.replicas
                } else {
                    wanted(new).min(self.replicas)
                },
            );
        } else {
            let room = (self.replicas + self.max_surge - old_total).max(0);
            let next = if wanted(new) < self.replicas {
                room.min(self.replicas).max(wanted(new))
            } else {
                self.replicas
            };
            resize(new, next);
            let mut spare = self.spare_old_pods(new);
            for old in &self.old {
                let unavailable = (wanted(old) - available(old)).max(0);
                // What does not serve costs nothing to lose.
                let lost = unavailable + spare.clamp(0, wanted(old) - unavailable);
                spare -= lost - unavailable;
                resize(old, wanted(old) - lost);
            }
        }
        changes
    }

    /// How many available old Pods may go now.
    fn spare_old_pods(&self, new: &ReplicaSet) -> i32 {
        let serving = available(new) + self.old.iter().map(available).sum::<i32>();
        serving - (self.replicas - self.max_unavailable)
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.new.iter().chain(&self.old)
    }
}

fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

/// Available Pods, without those that the set was told to give up but that its status still counts.
fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
        .min(wanted(set))
}

/// Pods that still exist, those on their way out included.
fn existing(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| {
        status.replicas + status.terminating_replicas.unwrap_or(0)
    })
}

/// A count, or a percentage (25% by default) of `total`; surge rounds up, unavailability down.
fn share(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return *count,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(25),
        None => 25,
    };
    if round_up {
        (total * percent + 99) / 100
    } else {
        total * percent / 100
    }
}

async fn create_set(
    client: &Client,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    rollout: &Rollout,
) -> Result<ReplicaSet, RequestError> {
    let namespace = deployment.namespace().unwrap_or_default();
    let hash = template_hash(&spec.template);
    let name = format!("{}-{hash}", deployment.name_any());
    let mut template = spec.template.clone();
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash);
    let revision = rollout.old.iter().map(revision).max().unwrap_or(0) + 1;
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: template
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.labels.clone()),
            annotations: Some([(REVISION.to_owned(), revision.to_string())].into()),
            owner_references: pods::owner_reference(deployment),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            selector,
            template: Some(template),
            min_ready_seconds: spec.min_ready_seconds,
        }),
        status: None,
    };
    let api = Api::<ReplicaSet>::namespaced(client.clone(), &namespace);
    let what = || format!("ReplicaSet {namespace}/{name}");
    // A leftover of a deleted namesake is in the way only until it is collected: we try again.
    api.create(&PostParams::default(), &set)
        .await
        .during("create", what)
}

fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

async fn scale(client: &Client, set: &ReplicaSet, replicas: i32) -> Result<(), RequestError> {
    let namespace = set.namespace().unwrap_or_default();
    // With the UID, so that a leftover of a deleted Deployment is not taken for ours.
    let patch = json!({ "metadata": { "uid": set.uid() }, "spec": { "replicas": replicas } });
    Api::<ReplicaSet>::namespaced(client.clone(), &namespace)
        .patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .during("scale", || {
            format!("ReplicaSet {namespace}/{} to {replicas}", set.name_any())
        })?;
    Ok(())
}
