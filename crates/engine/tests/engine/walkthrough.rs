//! The walk-through of the "Debug Services" page as Facts: Deployment and Service `hostnames`, three
//! ready Pods on three nodes, one client Pod, cluster DNS. Tests change it with JSON merge patches.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use svcdiag_api::ServiceDiagnosisSpec;
use svcdiag_engine::{ClusterDns, Facts, OtherService};
use svcdiag_objects::{Deployment, EndpointSlice, NetworkPolicy, Pod, Service};

/// Namespace of the walk-through; not `default`, so that a forgotten -n shows.
pub(crate) const NS: &str = "shop";

/// The present of all fixtures.
pub(crate) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// A time that long before the present.
pub(crate) fn ago(seconds: i64) -> String {
    (now() - SignedDuration::from_secs(seconds)).to_string()
}

/// Reads an object from JSON.
pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e} in {value}"))
}

/// Changes an object by a JSON merge patch.
pub(crate) fn patch<T: Serialize + DeserializeOwned>(target: &mut T, patch: Value) {
    let mut value = serde_json::to_value(&*target).unwrap();
    merge(&mut value, &patch);
    *target = object(value);
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in fields {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// A running Pod that has been ready for an hour.
pub(crate) fn pod(name: &str, node: &str, ip: &str, labels: Value) -> Arc<Pod> {
    Arc::new(object(json!({
        "metadata": {
            "name": name, "namespace": NS, "uid": format!("uid-{name}"), "labels": labels,
            "creationTimestamp": ago(3700),
        },
        "spec": {
            "nodeName": node, "dnsPolicy": "ClusterFirst",
            "containers": [{
                "name": "app", "image": "registry.k8s.io/serve_hostname",
                "ports": [{ "containerPort": 9376, "protocol": "TCP" }],
                "readinessProbe": { "periodSeconds": 5 },
            }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "startTime": ago(3700),
            "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": ago(3700) },
                { "type": "ContainersReady", "status": "True", "lastTransitionTime": ago(3600) },
                { "type": "Ready", "status": "True", "lastTransitionTime": ago(3600) },
            ],
            "containerStatuses": [{
                "name": "app", "ready": true, "started": true, "restartCount": 0,
                "state": { "running": { "startedAt": ago(3650) } },
            }],
        },
    })))
}

/// A slice that lists these Pods as the endpoints controller would.
pub(crate) fn slice(service: &str, pods: &[Arc<Pod>], port: Value) -> Arc<EndpointSlice> {
    let endpoint = |pod: &Arc<Pod>| {
        let ready = pod.condition("Ready").is_some_and(|c| c.status == "True");
        json!({
            "addresses": [pod.status.pod_ip.clone().unwrap_or_default()],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "nodeName": pod.spec.node_name,
            "targetRef": { "kind": "Pod", "namespace": NS, "name": pod.metadata.name, "uid": pod.metadata.uid },
        })
    };
    Arc::new(object(json!({
        "metadata": {
            "name": format!("{service}-x7k2p"), "namespace": NS, "creationTimestamp": ago(3600),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [port],
    })))
}

/// Labels of the Pods behind the Service.
pub(crate) fn app() -> Value {
    json!({ "app": "hostnames", "pod-template-hash": "632524106" })
}

/// The healthy walk-through.
pub(crate) fn healthy() -> Facts {
    let mut facts = Facts::new(now(), NS, ServiceDiagnosisSpec::for_service("hostnames"));
    facts.service = Some(Arc::new(object::<Service>(json!({
        "metadata": { "name": "hostnames", "namespace": NS, "creationTimestamp": ago(3600) },
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.1.175", "clusterIPs": ["10.96.1.175"], "ipFamilies": ["IPv4"],
            "selector": { "app": "hostnames" },
            "ports": [{ "name": "default", "protocol": "TCP", "port": 80, "targetPort": 9376 }],
        },
    }))));
    facts.deployments = vec![Arc::new(object::<Deployment>(json!({
        "metadata": { "name": "hostnames", "namespace": NS, "uid": "uid-deployment", "creationTimestamp": ago(3700) },
        "spec": { "replicas": 3, "template": { "metadata": { "labels": { "app": "hostnames" } } } },
        "status": { "conditions": [
            { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastUpdateTime": ago(3600) },
        ] },
    })))];
    facts.replica_sets = vec![Arc::new(object(json!({
        "metadata": { "name": "hostnames-632524106", "namespace": NS, "uid": "uid-rs", "creationTimestamp": ago(3700),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "hostnames",
                "uid": "uid-deployment", "controller": true }] },
        "spec": { "replicas": 3, "template": { "metadata": { "labels": app() } } },
    })))];
    facts.pods = [
        ("bbpiw", "n1", "10.244.1.5"),
        ("ly40y", "n2", "10.244.2.6"),
        ("tlaok", "n3", "10.244.3.7"),
    ]
    .map(|(id, node, ip)| {
        let mut pod = pod(&format!("hostnames-632524106-{id}"), node, ip, app());
        owned(Arc::make_mut(&mut pod), "uid-rs");
        pod
    })
    .to_vec();
    facts.slices = vec![slice(
        "hostnames",
        &facts.pods,
        json!({ "name": "default", "port": 9376, "protocol": "TCP" }),
    )];
    facts
        .pods
        .push(pod("client", "n1", "10.244.1.9", json!({ "app": "client" })));
    facts.namespaces = vec![namespace(NS), namespace("kube-system")];
    facts.cluster_dns = Some(dns());
    facts
}

/// Makes a ReplicaSet the controller of a Pod.
pub(crate) fn owned(target: &mut Pod, uid: &str) {
    patch(
        target,
        json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true },
    ] } }),
    );
}

pub(crate) fn namespace(name: &str) -> Arc<svcdiag_objects::Namespace> {
    Arc::new(object(
        json!({ "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } }),
    ))
}

fn dns() -> ClusterDns {
    let pods = ["coredns-1", "coredns-2"].map(|name| {
        let mut pod = pod(name, "n1", "10.244.1.2", json!({ "k8s-app": "kube-dns" }));
        patch(
            Arc::make_mut(&mut pod),
            json!({ "metadata": { "namespace": "kube-system" } }),
        );
        pod
    });
    ClusterDns {
        service: Arc::new(object(json!({
            "metadata": { "name": "kube-dns", "namespace": "kube-system" },
            "spec": { "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "selector": { "k8s-app": "kube-dns" },
                "ports": [{ "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53 }] },
        }))),
        pods: pods.to_vec(),
        policies: Vec::new(),
        caches: Vec::new(),
        config_map: None,
        domain: None,
    }
}

/// Another Service of the namespace.
pub(crate) fn other_service(name: &str, selector: Value) -> OtherService {
    object(json!({ "name": name, "selector": selector }))
}

/// Changes the Service.
pub(crate) fn service(facts: &mut Facts, change: Value) {
    patch(Arc::make_mut(facts.service.as_mut().unwrap()), change);
}

/// Changes every Pod behind the Service.
pub(crate) fn each_pod(facts: &mut Facts, change: impl Fn(&mut Pod)) {
    for pod in facts
        .pods
        .iter_mut()
        .filter(|p| p.metadata.name.as_ref().unwrap().starts_with("hostnames-"))
    {
        change(Arc::make_mut(pod));
    }
}

/// Writes the EndpointSlice anew from the Pods behind the Service, as the endpoints controller would.
pub(crate) fn resync(facts: &mut Facts) {
    let pods: Vec<Arc<Pod>> = facts
        .pods
        .iter()
        .filter(|p| p.metadata.name.as_ref().unwrap().starts_with("hostnames-"))
        .cloned()
        .collect();
    facts.slices = vec![slice(
        "hostnames",
        &pods,
        json!({ "name": "default", "port": 9376, "protocol": "TCP" }),
    )];
}

/// Makes a Pod not ready since a while: its conditions, and the state of its container.
pub(crate) fn not_ready(pod: &mut Pod, since: i64, container: Value) {
    patch(
        pod,
        json!({ "status": { "conditions": [
        { "type": "PodScheduled", "status": "True", "lastTransitionTime": ago(3700) },
        { "type": "ContainersReady", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": ago(since) },
        { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": ago(since) },
    ], "containerStatuses": [container] } }),
    );
}

/// Adds a NetworkPolicy to the namespace.
pub(crate) fn policy(facts: &mut Facts, name: &str, spec: Value) {
    facts.policies.push(Arc::new(object::<NetworkPolicy>(
        json!({ "metadata": { "name": name, "namespace": NS }, "spec": spec }),
    )));
}

/// Names the clients.
pub(crate) fn name_clients(facts: &mut Facts) {
    patch(
        &mut facts.spec,
        json!({ "clients": { "podSelector": { "matchLabels": { "app": "client" } } } }),
    );
}
