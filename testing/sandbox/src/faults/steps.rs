//! The steps that lead from a healthy fixture to a fault or a lookalike.
//!
//! An edit happens here and goes to the server as a whole object: that works for lists of
//! containers and ports, where a merge patch would need them repeated, and on every server alike.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kinds::{Kind, Target};
use super::objects::{create, delete, fresh};
use super::scripts::{self, InPod, OnNode};
use super::{Error, Fixture, journal};
use crate::error::Context;

/// A change of the fixture. `$NAMESPACE` in any text stands for the fixture's namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Step {
    /// Changes an object in place.
    Edit(Edit),
    /// Deletes an object and creates it again with changes: for fields that cannot be changed.
    Recreate(Edit),
    /// Deletes an object.
    Delete(String),
    /// Creates an object from its manifest.
    Create(Box<DynamicObject>),
    /// Changes the Pods that carry a label.
    EditPods {
        /// Where; the fixture's namespace by default.
        namespace: Option<String>,
        /// Which Pods: `app=hostnames`.
        labels: String,
        /// How many of them at most; all by default.
        at_most: Option<usize>,
        /// A JSON merge patch.
        merge: Value,
    },
    /// Waits until the Service has exactly so many ready endpoints.
    AwaitReady(usize),
    /// Waits until the Pods that carry a label are ready on this node, and on no other.
    AwaitPlaced {
        /// Where; the fixture's namespace by default.
        namespace: Option<String>,
        /// Which Pods: `app=client`.
        labels: String,
        /// Which node.
        node: String,
    },
    /// Waits until all Pods that carry a label are ready, and there are any.
    AwaitPods(String),
    /// Waits until the rollouts of these Deployments are complete.
    AwaitRollout(Vec<String>),
    /// Lets time pass.
    PauseSeconds(u64),
    /// Runs a script in the network namespaces of nodes.
    OnNode(OnNode),
    /// Runs a script in the network namespaces of Pods.
    InPod(InPod),
}

/// Changes of one object.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edit {
    /// `Service/hostnames`, or `kube-system/Service/kube-dns`.
    on: String,
    /// A JSON merge patch.
    #[serde(default)]
    merge: Value,
    /// New values by JSON pointer, for places inside lists; null removes.
    #[serde(default)]
    set: BTreeMap<String, Value>,
}

/// How often a write is tried again when somebody else wrote in between.
const ATTEMPTS: usize = 10;

/// Takes the steps one after the other, keeping the journal.
pub(super) async fn take(fixture: &Fixture, steps: &[Step]) -> Result<(), Error> {
    for step in steps {
        match render(step, fixture.namespace())? {
            Step::Edit(edit) => edit_object(fixture, &target(fixture, &edit.on)?, &edit, false).await?,
            Step::Recreate(edit) => recreate(fixture, &target(fixture, &edit.on)?, &edit).await?,
            Step::Delete(on) => {
                let target = target(fixture, &on)?;
                journal::note(fixture, &target, false).await?;
                delete(fixture, &target).await?;
            }
            Step::Create(object) => {
                let target = Target::of(&object, fixture.namespace())
                    .ok_or_else(|| failed(&object.name_any(), "unknown kind"))?;
                journal::note(fixture, &target, false).await?;
                create(fixture, &target, &object).await?;
            }
            Step::EditPods {
                namespace,
                labels,
                at_most,
                merge,
            } => {
                edit_pods(fixture, namespace.as_deref(), &labels, at_most, merge).await?;
            }
            Step::AwaitReady(count) => fixture.wait_for_endpoints(count).await?,
            Step::AwaitPlaced {
                namespace,
                labels,
                node,
            } => wait_until_ready(fixture, namespace.as_deref(), &labels, Some(&node)).await?,
            Step::AwaitPods(labels) => wait_until_ready(fixture, None, &labels, None).await?,
            Step::AwaitRollout(names) => {
                for name in names {
                    fixture
                        .wait_for_rollout(&target(fixture, &format!("Deployment/{name}"))?)
                        .await?;
                }
            }
            Step::OnNode(step) => scripts::on_nodes(fixture, &step).await?,
            Step::InPod(step) => scripts::in_pods(fixture, &step).await?,
            Step::PauseSeconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
    }
    Ok(())
}

fn failed(target: &str, message: &str) -> Error {
    Error::Step {
        target: target.to_owned(),
        message: message.to_owned(),
    }
}

/// Puts the fixture's namespace in place of `$NAMESPACE`.
fn render(step: &Step, namespace: &str) -> Result<Step, Error> {
    let invalid = |error: serde_json::Error| failed("a step", &error.to_string());
    let text = serde_json::to_string(step).map_err(invalid)?;
    serde_json::from_str(&text.replace("$NAMESPACE", namespace)).map_err(invalid)
}

fn target(fixture: &Fixture, text: &str) -> Result<Target, Error> {
    Target::parse(text, fixture.namespace()).ok_or_else(|| failed(text, "not of the form Kind/name"))
}

async fn edit_object(fixture: &Fixture, target: &Target, edit: &Edit, passing: bool) -> Result<(), Error> {
    journal::note(fixture, target, passing).await?;
    let api = target.api(fixture.client());
    for attempt in 1.. {
        let object = api.get(&target.name).await.during("get", || target.to_string())?;
        let changed = apply(&object, edit, target)?;
        match api
            .replace(&target.name, &PostParams::default(), &changed)
            .await
            .during("change", || target.to_string())
        {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => continue,
            result => return Ok(result.map(|_| ())?),
        }
    }
    Ok(())
}

async fn edit_pods(
    fixture: &Fixture,
    namespace: Option<&str>,
    labels: &str,
    at_most: Option<usize>,
    merge: Value,
) -> Result<(), Error> {
    let namespace = namespace.unwrap_or(fixture.namespace());
    let pod = Kind::parse("Pod").ok_or_else(|| failed("Pod", "unknown kind"))?;
    let pods = pod
        .api(fixture.client(), namespace)
        .list(&ListParams::default().labels(labels))
        .await
        .during("list", || format!("the Pods {labels} of {namespace}"))?;
    let edit = Edit {
        on: String::new(),
        merge,
        set: BTreeMap::new(),
    };
    let live = pods
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    for pod in live.take(at_most.unwrap_or(usize::MAX)) {
        let on = format!("{namespace}/Pod/{}", pod.name_any());
        edit_object(fixture, &target(fixture, &on)?, &edit, true).await?;
    }
    Ok(())
}

async fn wait_until_ready(
    fixture: &Fixture,
    namespace: Option<&str>,
    labels: &str,
    node: Option<&str>,
) -> Result<(), Error> {
    let namespace = namespace.unwrap_or(fixture.namespace());
    let place = node.map(|node| format!(" on {node}")).unwrap_or_default();
    let what = format!("having the Pods {labels} of {namespace} ready{place}");
    let api = Api::<Pod>::namespaced(fixture.client().clone(), namespace);
    fixture
        .wait(&what, async || {
            let list = api
                .list(&ListParams::default().labels(labels))
                .await
                .during("list", || what.clone())?;
            let there = |pod: &Pod| {
                let conditions = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.conditions.as_deref());
                let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                (node.is_none() || on == node)
                    && conditions
                        .unwrap_or_default()
                        .iter()
                        .any(|one| one.type_ == "Ready" && one.status == "True")
            };
            let elsewhere = list.iter().filter(|pod| !there(pod)).count();
            Ok((elsewhere > 0 || list.items.is_empty()).then(|| format!("{elsewhere} are not")))
        })
        .await
}

async fn recreate(fixture: &Fixture, target: &Target, edit: &Edit) -> Result<(), Error> {
    journal::note(fixture, target, false).await?;
    let before = target
        .api(fixture.client())
        .get(&target.name)
        .await
        .during("get", || target.to_string())?;
    let object = apply(&fresh(&before), edit, target)?;
    delete(fixture, target).await?;
    create(fixture, target, &object).await
}

/// The object with the changes made.
fn apply(object: &DynamicObject, edit: &Edit, target: &Target) -> Result<DynamicObject, Error> {
    let invalid = |error: serde_json::Error| failed(&target.to_string(), &error.to_string());
    let mut value = serde_json::to_value(object).map_err(invalid)?;
    if !edit.merge.is_null() {
        json_patch::merge(&mut value, &edit.merge);
    }
    for (pointer, new) in &edit.set {
        set(&mut value, pointer, new).ok_or_else(|| failed(&target.to_string(), &format!("no {pointer}")))?;
    }
    serde_json::from_value(value).map_err(invalid)
}

fn set(value: &mut Value, pointer: &str, new: &Value) -> Option<()> {
    let (parent, key) = pointer.rsplit_once('/')?;
    match value.pointer_mut(parent)? {
        Value::Object(map) if new.is_null() => drop(map.remove(key)),
        Value::Object(map) => drop(map.insert(key.to_owned(), new.clone())),
        Value::Array(list) => *list.get_mut(key.parse::<usize>().ok()?)? = new.clone(),
        _ => return None,
    }
    Some(())
}
