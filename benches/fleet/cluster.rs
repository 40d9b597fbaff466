//! A cluster of many nodes, and what happens in it: a node fails, workloads are rolled out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use svcdiag_testing_apiserver::Store;

use crate::population;

const CREATED: &str = "2026-01-01T00:00:00Z";

/// Pause between the steps of a rollout: how long a small Pod takes to be ready, and one to end that does so when told.
const STEP: Duration = Duration::from_secs(3);

/// Name of the node with a number.
pub(crate) fn node(number: usize) -> String {
    format!("worker-{number:04}")
}

/// The node of a Pod: those of one Service, and of one namespace, are spread over the cluster.
pub(crate) fn node_of(service: usize, pod: usize, nodes: usize) -> String {
    // A prime, so that neighbours are far from each other.
    node((service * population::PODS + pod) * 617 % nodes)
}

/// So many nodes, each with what a kubelet says of it, and cluster DNS on two of them.
pub(crate) fn objects(nodes: usize) -> impl Iterator<Item = Value> {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "namespace": "kube-system", "name": "kube-dns-x7k2p", "uid": "kube-dns-x7k2p", "creationTimestamp": CREATED,
            "labels": { "kubernetes.io/service-name": "kube-dns" } },
        "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" }],
        "endpoints": [dns_endpoint(0), dns_endpoint(1)],
    });
    let pods = [dns_pod(0), dns_pod(1)];
    (0..nodes).map(ready_node).chain(pods).chain([slice])
}

/// Name, address and UID of a Pod of cluster DNS.
fn dns(number: usize) -> (String, String, String) {
    let name = format!("coredns-5d78c9869d-{number}");
    let uid = format!("uid-{name}");
    (name, format!("10.127.0.{}", number + 2), uid)
}

fn dns_pod(number: usize) -> Value {
    let (name, ip, uid) = dns(number);
    let port =
        |name: &str, protocol: &str| json!({ "name": name, "containerPort": 53, "protocol": protocol });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "kube-system", "name": name, "uid": uid, "creationTimestamp": CREATED,
            "labels": { "k8s-app": "kube-dns" } },
        "spec": { "nodeName": node(number), "dnsPolicy": "Default", "containers": [{
            "name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1.12.0",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")] }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "startTime": CREATED,
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": CREATED }] },
    })
}

fn dns_endpoint(number: usize) -> Value {
    let (name, ip, uid) = dns(number);
    json!({
        "addresses": [ip], "conditions": { "ready": true, "serving": true, "terminating": false }, "nodeName": node(number),
        "targetRef": { "kind": "Pod", "namespace": "kube-system", "name": name, "uid": uid },
    })
}

fn ready_node(number: usize) -> Value {
    let name = node(number);
    let images: Vec<Value> = (0..30)
        .map(|i| json!({ "names": [format!("registry.example.internal/team/app-{i}:1.2.3")], "sizeBytes": 123_456_789 }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": CREATED, "labels": {
            "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "m6i.2xlarge",
            "topology.kubernetes.io/region": "eu-central-1", "topology.kubernetes.io/zone": format!("eu-central-1{}", ["a", "b", "c"][number % 3]),
            "node.example.internal/pool": format!("pool-{}", number % 7), "node.example.internal/image": "2026-01",
        } },
        "spec": {},
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": format!("172.20.{}.{}", number / 250, number % 250 + 1) },
                { "type": "Hostname", "address": name },
            ],
            "conditions": conditions("True"), "images": images,
            "nodeInfo": { "kubeletVersion": "v1.36.0", "osImage": "Linux", "kernelVersion": "6.12.0" },
        },
    })
}

fn conditions(ready: &str) -> Value {
    let of = |kind: &str, status: &str| {
        let since = if status == "Unknown" {
            jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        } else {
            CREATED.to_owned()
        };
        json!({ "type": kind, "status": status, "reason": "KubeletReady", "message": "", "lastTransitionTime": since,
            "lastHeartbeatTime": CREATED })
    };
    json!([
        of("MemoryPressure", "False"),
        of("DiskPressure", "False"),
        of("PIDPressure", "False"),
        of("Ready", ready)
    ])
}

/// Writes what a cluster's own controllers write when a kubelet has fallen silent: its Node is not Ready, neither are its
/// Pods, and EndpointSlices say so.
pub(crate) async fn fail_node(
    store: Option<&Store>,
    client: &Client,
    node: &str,
    services: usize,
    nodes: usize,
) {
    let api = Api::<Node>::all(client.clone());
    let patch = Patch::Merge(json!({ "status": { "conditions": conditions("Unknown") } }));
    api.patch_status(node, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let lost = (0..services).flat_map(|service| (0..population::PODS).map(move |pod| (service, pod)));
    let lost = lost.filter(|(service, pod)| node_of(*service, *pod, nodes) == node);
    stream::iter(lost)
        .for_each_concurrent(16, |(service, pod)| async move {
            let (namespace, name) = population::key(service);
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            let pod = format!("{name}-7d9f8c6b5-{pod}");
            set_ready(store, &pods, &pod, false).await;
            let is_its =
                |endpoint: &Endpoint| endpoint.target_ref.as_ref().unwrap().name.as_ref() == Some(&pod);
            change_endpoints(client, &namespace, &name, |endpoints| {
                for endpoint in endpoints.iter_mut().filter(|e| is_its(e)) {
                    let conditions = endpoint.conditions.as_mut().unwrap();
                    (conditions.ready, conditions.serving) = (Some(false), Some(false));
                }
            })
            .await;
        })
        .await;
}

/// Through the API where there is no store. Pods that were put into the store unchecked lack what the API server adds, so it
/// would take a patch of the status for one of the spec as well.
async fn set_ready(store: Option<&Store>, pods: &Api<Pod>, name: &str, is_ready: bool) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let of = |kind: &str, is_true: bool| json!({ "type": kind, "status": if is_true { "True" } else { "False" }, "lastTransitionTime": now });
    let conditions = json!([
        of("PodScheduled", true),
        of("Initialized", true),
        of("ContainersReady", is_ready),
        of("Ready", is_ready),
    ]);
    let Some(store) = store else {
        let patch = Patch::Merge(json!({ "status": { "conditions": conditions } }));
        pods.patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
        return;
    };
    let mut pod = serde_json::to_value(pods.get(name).await.unwrap()).unwrap();
    pod["status"]["conditions"] = conditions;
    store.put_unchecked("", "pods", pod);
}

async fn change_endpoints(
    client: &Client,
    namespace: &str,
    name: &str,
    change: impl FnOnce(&mut Vec<Endpoint>),
) {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let mut slice = api.get(&format!("{name}-x7k2p")).await.unwrap();
    change(slice.endpoints.as_mut().unwrap());
    let name = slice.metadata.name.clone().unwrap();
    api.replace(&name, &PostParams::default(), &slice).await.unwrap();
}

/// Addresses of new Pods.
static ADDRESSES: AtomicUsize = AtomicUsize::new(0);

/// Rolls a Service's Pods out over and over: a new Pod, then it is ready and an old one goes, which is gone a step later.
pub(crate) async fn roll_out(store: Option<Arc<Store>>, client: Client, service: usize) {
    let (store, (namespace, name)) = (store.as_deref(), population::key(service));
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let labels = ListParams::default().labels(&format!("app={name}"));
    let mut current: Vec<Pod> = pods.list(&labels).await.unwrap().items;
    loop {
        let old = current.remove(0);
        let new = start_pod(store, &pods, &old).await;
        tokio::time::sleep(STEP).await;
        let new_name = new.metadata.name.clone().unwrap();
        set_ready(store, &pods, &new_name, true).await;
        let old_name = old.metadata.name.clone().unwrap();
        let is_of = |endpoint: &Endpoint, pod: &str| {
            endpoint.target_ref.as_ref().unwrap().name.as_deref() == Some(pod)
        };
        change_endpoints(&client, &namespace, &name, |endpoints| {
            let mut added = endpoints[0].clone();
            added.addresses = vec![new.status.as_ref().unwrap().pod_ip.clone().unwrap()];
            added.node_name = new.spec.as_ref().unwrap().node_name.clone();
            let target = added.target_ref.as_mut().unwrap();
            (target.name, target.uid) = (Some(new_name.clone()), new.metadata.uid.clone());
            let conditions = added.conditions.as_mut().unwrap();
            (conditions.ready, conditions.serving, conditions.terminating) =
                (Some(true), Some(true), Some(false));
            endpoints.push(added);
            for endpoint in endpoints.iter_mut().filter(|e| is_of(e, &old_name)) {
                let conditions = endpoint.conditions.as_mut().unwrap();
                (conditions.ready, conditions.terminating) = (Some(false), Some(true));
            }
        })
        .await;
        tokio::time::sleep(STEP).await;
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&old_name, &at_once).await.unwrap();
        change_endpoints(&client, &namespace, &name, |endpoints| {
            endpoints.retain(|e| !is_of(e, &old_name))
        })
        .await;
        current.push(new);
        tokio::time::sleep(STEP).await;
    }
}

/// A Pod like another one, with a name and an address of its own, that runs and is not ready.
async fn start_pod(store: Option<&Store>, pods: &Api<Pod>, like: &Pod) -> Pod {
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let mut pod = like.clone();
    let app = pod.metadata.labels.as_ref().unwrap()["app"].clone();
    pod.metadata = ObjectMeta {
        name: Some(format!("{app}-7d9f8c6b5-n{number}")),
        namespace: pod.metadata.namespace,
        labels: pod.metadata.labels,
        owner_references: pod.metadata.owner_references,
        ..ObjectMeta::default()
    };
    pod.status = None;
    let name = pod.metadata.name.clone().unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let ip = format!("10.140.{}.{}", number / 250 % 250, number % 250 + 1);
    let patch = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    set_ready(store, pods, &name, false).await;
    pods.get(&name).await.unwrap()
}

/// The Services with a Pod on a node.
pub(crate) fn services_on(node: &str, services: usize, nodes: usize) -> Vec<(String, String)> {
    let is_on = |service: &usize| (0..population::PODS).any(|pod| node_of(*service, pod, nodes) == node);
    (0..services).filter(is_on).map(population::key).collect()
}
