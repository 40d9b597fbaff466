//! The kubelets of all nodes: scheduled Pods come up, become ready and end.
//!
//! What a Pod's status says at a moment is a pure function ([`super::kubelet_status`]) of its
//! spec, its annotations, its address and how long it has been on the node. This file only keeps
//! the clock and the addresses, and writes the status when it differs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::kubelet_addresses::Addresses;
use super::kubelet_process;
use super::kubelet_status::{self, Moment};
use super::{Options, Outcome, RETRY_AFTER, annotations, done, drain, everything, retry};
use crate::error::{Context, RequestError, chain, optional};

/// What the kubelets remember, as real ones do.
struct Kubelet {
    client: Client,
    options: Options,
    pods: Store<Pod>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// When each Pod was first seen on its node, by UID.
    arrived: HashMap<String, Instant>,
    /// When each Pod was first seen to be on its way out, by UID.
    leaving: HashMap<String, Instant>,
    addresses: Addresses,
    /// InternalIP by node; nodes of a sandbox do not change theirs.
    nodes: BTreeMap<String, String>,
}

/// Runs until dropped.
pub(super) async fn run(client: Client, options: Options) {
    let controller = Controller::new(Api::<Pod>::all(client.clone()), everything());
    let kubelet = Kubelet {
        client,
        options,
        pods: controller.store(),
        memory: Mutex::default(),
    };
    drain("kubelet", controller.run(reconcile, retry, Arc::new(kubelet))).await;
}

async fn reconcile(pod: Arc<Pod>, kubelet: Arc<Kubelet>) -> Outcome {
    let Some(node) = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .filter(|name| !name.is_empty())
    else {
        return done();
    };
    let uid = pod.uid().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return kubelet.end(&pod, &uid).await;
    }
    let host = kubelet.host_address(&node).await?;
    let (elapsed, addresses) = kubelet.remember(&pod, &uid, &node, &host);
    let has_process = pod.annotations().get(annotations::PROCESS).map(String::as_str) != Some("none");
    if let Some(kernel) = &kubelet.options.kernel
        && has_process
        && let Err(error) = kernel
            .start_pod(&kubelet_process::setup(&pod, &node, &addresses))
            .await
    {
        tracing::warn!(
            pod = pod.name_any(),
            error = chain(&error),
            "a Pod has no process"
        );
        return Ok(Action::requeue(RETRY_AFTER));
    }
    let moment = Moment {
        now: Timestamp::now(),
        elapsed,
        pace: kubelet.options.pace,
        host: &host,
        addresses,
    };
    let old = pod.status.clone().unwrap_or_default();
    let status = kubelet_status::at(&pod, &old, &moment);
    if !same(&old, &status) {
        kubelet.write(&pod, status).await?;
    }
    Ok(moment
        .next_change()
        .map_or_else(Action::await_change, Action::requeue))
}

impl Kubelet {
    fn remember(&self, pod: &Pod, uid: &str, node: &str, host: &str) -> (std::time::Duration, Vec<String>) {
        let mut memory = self.memory.lock();
        let elapsed = memory
            .arrived
            .entry(uid.to_owned())
            .or_insert_with(Instant::now)
            .elapsed();
        if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            return (elapsed, vec![host.to_owned()]);
        }
        let addresses = memory
            .addresses
            .of(pod, uid, node, self.options.dual_stack, &self.pods);
        (elapsed, addresses)
    }

    async fn host_address(&self, node: &str) -> Result<String, RequestError> {
        let known = |memory: &Memory| memory.nodes.get(node).cloned();
        if let Some(address) = known(&self.memory.lock()) {
            return Ok(address);
        }
        let list = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await
            .during("list", || "the Nodes".to_owned())?;
        let mut memory = self.memory.lock();
        for node in list {
            let addresses = node
                .status
                .as_ref()
                .and_then(|status| status.addresses.clone())
                .unwrap_or_default();
            if let Some(internal) = addresses
                .into_iter()
                .find(|address| address.type_ == "InternalIP")
            {
                memory.nodes.insert(node.name_any(), internal.address);
            }
        }
        Ok(known(&memory).unwrap_or_else(|| "127.0.0.1".to_owned()))
    }

    /// Writes the whole status with the resourceVersion we saw: conditions of others are not lost.
    async fn write(&self, pod: &Pod, status: PodStatus) -> Result<(), RequestError> {
        let namespace = pod.namespace().unwrap_or_default();
        let mut pod = pod.clone();
        pod.status = Some(status);
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        optional(
            api.replace_status(&pod.name_any(), &PostParams::default(), &pod)
                .await,
        )
        .during("update the status of", || {
            format!("Pod {namespace}/{}", pod.name_any())
        })?;
        Ok(())
    }

    /// A Pod on its way out is left as it is for a moment, then it is gone.
    async fn end(&self, pod: &Pod, uid: &str) -> Outcome {
        let waited = {
            let mut memory = self.memory.lock();
            memory
                .leaving
                .entry(uid.to_owned())
                .or_insert_with(Instant::now)
                .elapsed()
        };
        let seconds = pod
            .annotations()
            .get(annotations::STOP_SECONDS)
            .and_then(|seconds| seconds.parse().ok());
        let stop = seconds.map_or(self.options.pace.stop, Duration::from_secs);
        if let Some(rest) = stop.checked_sub(waited).filter(|rest| !rest.is_zero()) {
            return Ok(Action::requeue(rest));
        }
        if let Some(kernel) = &self.options.kernel {
            kernel.stop_pod(uid).await;
        }
        let namespace = pod.namespace().unwrap_or_default();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        optional(api.delete(&pod.name_any(), &params).await).during("finish the deletion of", || {
            format!("Pod {namespace}/{}", pod.name_any())
        })?;
        let mut memory = self.memory.lock();
        memory.arrived.remove(uid);
        memory.leaving.remove(uid);
        memory.addresses.release(uid);
        done()
    }
}

/// Whether the server already has this status: compared as it travels, in whole seconds.
fn same(old: &PodStatus, new: &PodStatus) -> bool {
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(old), Ok(new)) => old == new,
        _ => false,
    }
}
