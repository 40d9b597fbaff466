//! The Pods of kube-proxy, as its DaemonSet has them: one on each node, made anew when it is deleted.
//!
//! They are objects only. The process of a node's kube-proxy is there in any case ([`super::kubeproxy`]); a new
//! Pod means a new process, which writes all rules once, whatever it does or does not do afterwards.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::json;

use super::Kernel;
use crate::controllers::annotations;

const NAMESPACE: &str = "kube-system";
const LABEL: (&str, &str) = ("k8s-app", "kube-proxy");

/// Makes the Pods that are missing; the UIDs of all, by node.
pub(super) async fn sync(client: &Client, kernel: &Kernel) -> Result<BTreeMap<String, String>, kube::Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let params = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
    let found = pods.list(&params).await?.items;
    let node_of = |pod: &Pod| pod.spec.as_ref()?.node_name.clone();
    let mut all: BTreeMap<String, String> = found
        .iter()
        .filter_map(|pod| Some((node_of(pod)?, pod.uid()?)))
        .collect();
    for node in kernel.nodes() {
        if !all.contains_key(node.name())
            && let Some(pod) = pod(node.name())
        {
            let created = pods.create(&PostParams::default(), &pod).await?;
            all.insert(node.name().to_owned(), created.uid().unwrap_or_default());
        }
    }
    Ok(all)
}

fn pod(node: &str) -> Option<Pod> {
    let value = json!({
        "metadata": {
            "name": format!("kube-proxy-{node}"),
            "namespace": NAMESPACE,
            "labels": { LABEL.0: LABEL.1 },
            "annotations": { annotations::PROCESS: "none" },
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "kube-proxy", "image": "registry.k8s.io/kube-proxy:v1.36.0" }],
        },
    });
    serde_json::from_value(value).ok()
}
