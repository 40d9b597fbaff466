//! The scheduler: a node for every Pod, by node selector, spreading siblings over the nodes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;

use super::{Outcome, done, drain, everything, retry};
use crate::error::{Context, RequestError};

/// A Pod that fits nowhere is tried again: a node or its labels may have changed.
const RETRY_UNSCHEDULABLE: std::time::Duration = std::time::Duration::from_secs(2);

struct Scheduler {
    client: Client,
    /// Held while one Pod is placed: siblings are spread by counting those already placed.
    ///
    /// The lock is fair. A limit to the controller's concurrency is not: the runtime then takes any of those that
    /// wait, and some wait for as long as others keep coming.
    turn: Mutex<()>,
}

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let controller = Controller::new(Api::<Pod>::all(client.clone()), everything());
    let scheduler = Scheduler {
        client,
        turn: Mutex::default(),
    };
    drain("scheduler", controller.run(reconcile, retry, Arc::new(scheduler))).await;
}

async fn reconcile(seen: Arc<Pod>, scheduler: Arc<Scheduler>) -> Outcome {
    if is_placed(&seen) || !is_ours(&seen) || seen.metadata.deletion_timestamp.is_some() {
        return done();
    }
    let _turn = scheduler.turn.lock().await;
    let namespace = seen.namespace().unwrap_or_default();
    let what = || format!("Pod {namespace}/{}", seen.name_any());
    let api = Api::<Pod>::namespaced(scheduler.client.clone(), &namespace);
    let nodes = Api::<Node>::all(scheduler.client.clone())
        .list(&ListParams::default())
        .await
        .during("list", || "the Nodes".to_owned())?
        .items;
    let siblings = api
        .list(&ListParams::default())
        .await
        .during("list", || format!("the Pods of {namespace}"))?
        .items;
    // The live state, in case our own binding has not reached the watch yet.
    let Some(pod) = siblings.iter().find(|pod| pod.uid() == seen.uid()) else {
        return done();
    };
    if is_placed(pod) {
        return done();
    }
    match choose(pod, &nodes, &siblings) {
        Some(node) => {
            bind(&api, pod, &node).await.during("bind", what)?;
            done()
        }
        None => {
            report_unschedulable(&api, pod, nodes.len()).await?;
            Ok(Action::requeue(RETRY_UNSCHEDULABLE))
        }
    }
}

/// Whether no other scheduler is asked for.
fn is_ours(pod: &Pod) -> bool {
    let asked = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    asked.is_none_or(|name| name == "default-scheduler")
}

fn is_placed(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()))
}

/// The fitting node with the fewest siblings, then with the fewest Pods of the namespace.
fn choose(pod: &Pod, nodes: &[Node], others: &[Pod]) -> Option<String> {
    let owner = |pod: &Pod| pod.owner_references().first().map(|owner| owner.uid.clone());
    let ours = owner(pod);
    nodes
        .iter()
        .filter(|node| fits(pod, node))
        .map(|node| {
            let name = node.name_any();
            let here = others.iter().filter(|other| {
                other.metadata.deletion_timestamp.is_none()
                    && other.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&name)
            });
            let (siblings, all) = here.fold((0, 0), |(siblings, all), other| {
                (
                    siblings + u32::from(ours.is_some() && owner(other) == ours),
                    all + 1,
                )
            });
            (siblings, all, name)
        })
        .min()
        .map(|(_, _, name)| name)
}

fn fits(pod: &Pod, node: &Node) -> bool {
    let cordoned = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    !cordoned
        && selector.is_none_or(|selector| {
            selector
                .iter()
                .all(|(key, value)| node.labels().get(key) == Some(value))
        })
}

async fn bind(api: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let answer: serde_json::Value = api
        .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
        .await?;
    tracing::trace!(%answer, "bound");
    Ok(())
}

async fn report_unschedulable(api: &Api<Pod>, pod: &Pod, nodes: usize) -> Result<(), RequestError> {
    let message = format!(
        "0/{nodes} nodes are available: {nodes} node(s) didn't match Pod's node affinity/selector. \
         preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    );
    let mut conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    if conditions
        .iter()
        .any(|one| one.type_ == "PodScheduled" && one.message.as_ref() == Some(&message))
    {
        return Ok(());
    }
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(Timestamp::now())),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    });
    let patch = json!({
        "metadata": { "resourceVersion": pod.resource_version() },
        "status": { "phase": "Pending", "conditions": conditions },
    });
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .during("report as unschedulable", || {
            format!("Pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use svcdiag_testing_apiserver::ApiServer;

    use super::*;

    /// So many Pods wait at any time.
    const WAITING: usize = 24;

    async fn create(pods: &Api<Pod>, name: &str) {
        let pod = json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "a", "image": "a" }] } });
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_pod_waits_for_those_that_came_after_it() {
        let server = ApiServer::start().await.unwrap();
        let mut config = kube::Config::new(server.url().parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let node = serde_json::from_value(json!({ "metadata": { "name": "n1" } })).unwrap();
        let nodes = Api::<Node>::all(client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let pods = Api::<Pod>::default_namespaced(client.clone());
        for number in 0..WAITING {
            create(&pods, &format!("early-{number}")).await;
        }
        let scheduler = tokio::spawn(run(client));
        let mut late = 0;
        loop {
            let listed = pods.list(&ListParams::default()).await.unwrap();
            let waiting: Vec<String> = listed
                .iter()
                .filter(|pod| !is_placed(pod))
                .map(ResourceExt::name_any)
                .collect();
            let early: Vec<&String> = waiting.iter().filter(|name| name.starts_with("early-")).collect();
            if early.is_empty() {
                break;
            }
            assert!(late < 8 * WAITING, "{early:?} wait while {late} others have come");
            for _ in waiting.len()..WAITING {
                create(&pods, &format!("late-{late}")).await;
                late += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scheduler.abort();
    }
}
