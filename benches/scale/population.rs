//! A cluster full of healthy Services: objects of the size that a real cluster has.

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Client,
    api::{Api, PostParams},
};
use serde_json::{Value, json};
use svcdiag::api::{ServiceDiagnosis, ServiceDiagnosisSpec};
use svcdiag_testing_apiserver::Store;

/// Pods of each Service.
pub(crate) const PODS: usize = 3;

/// Services of each namespace.
const PER_NAMESPACE: usize = 20;

const CREATED: &str = "2026-01-01T00:00:00Z";

/// Namespace and name of a Service and all that belongs to it.
pub(crate) fn key(i: usize) -> (String, String) {
    (format!("team-{}", i / PER_NAMESPACE), format!("app-{i}"))
}

/// Puts so many Services with their Deployments, ReplicaSets, Pods and slices into the store; `node_of` says on which node
/// each Pod of each Service is.
pub(crate) fn populate(store: &Store, services: usize, node_of: impl Fn(usize, usize) -> String) {
    for i in 0..services {
        let (namespace, name) = key(i);
        if i % PER_NAMESPACE == 0 {
            store.put_unchecked("", "namespaces", json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": namespace, "uid": namespace, "labels": { "kubernetes.io/metadata.name": namespace } },
            }));
        }
        store.put_unchecked("", "services", service(&namespace, &name, i));
        let template = pod_template(&name);
        store.put_unchecked("apps", "deployments", json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(&namespace, &name, &name),
            "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": name } }, "template": template },
            "status": { "observedGeneration": 1, "replicas": PODS, "readyReplicas": PODS, "updatedReplicas": PODS },
        }));
        let set = format!("{name}-7d9f8c6b5");
        let mut set_metadata = metadata(&namespace, &set, &name);
        set_metadata["ownerReferences"] = owner("apps/v1", "Deployment", &name);
        store.put_unchecked("apps", "replicasets", json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": set_metadata,
            "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": name } }, "template": template },
            "status": { "observedGeneration": 1, "replicas": PODS, "readyReplicas": PODS },
        }));
        let mut endpoints = Vec::new();
        for p in 0..PODS {
            let (pod_name, ip, node) = (
                format!("{set}-{p}"),
                format!("10.{}.{}.{}", 128 + p, i / 250, i % 250 + 1),
                node_of(i, p),
            );
            store.put_unchecked(
                "",
                "pods",
                pod(&namespace, &pod_name, &name, &set, &ip, &node, &template["spec"]),
            );
            endpoints.push(json!({
                "addresses": [ip], "conditions": { "ready": true, "serving": true, "terminating": false }, "nodeName": node,
                "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod_name, "uid": format!("{namespace}-{pod_name}") },
            }));
        }
        let slice = format!("{name}-x7k2p");
        let mut slice_metadata = metadata(&namespace, &slice, &name);
        slice_metadata["labels"] = json!({
            "app": name, "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        });
        slice_metadata["ownerReferences"] = owner("v1", "Service", &name);
        store.put_unchecked("discovery.k8s.io", "endpointslices", json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice_metadata, "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints,
        }));
    }
}

/// None of those that the API server and cluster DNS have.
fn cluster_ip(i: usize) -> String {
    format!("10.97.{}.{}", i / 250, i % 250 + 1)
}

fn service(namespace: &str, name: &str, i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name, name),
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip(i), "selector": { "app": name },
            "clusterIPs": [cluster_ip(i)], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    })
}

fn metadata(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "generation": 1, "creationTimestamp": CREATED,
        "labels": { "app": app, "team": namespace, "app.kubernetes.io/managed-by": "Helm" },
        "annotations": { "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" },
        "managedFields": [{
            "manager": "helm", "operation": "Update", "apiVersion": "v1", "time": CREATED, "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": { "f:labels": { "f:app": {}, "f:team": {} } }, "f:spec": { "f:containers": {
                "k:{\"name\":\"app\"}": { "f:env": {}, "f:image": {}, "f:resources": { "f:limits": {}, "f:requests": {} } } } } },
        }],
    })
}

fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!([{ "apiVersion": api_version, "kind": kind, "name": name, "uid": name, "controller": true }])
}

fn pod_template(app: &str) -> Value {
    let env: Vec<Value> = (0..12)
        .map(|i| json!({ "name": format!("SETTING_{i}"), "value": format!("https://service-{i}.example.internal:8443/path") }))
        .collect();
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "containers": [{
                "name": "app", "image": format!("registry.example.internal/{app}:1.2.3"), "env": env,
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 10, "failureThreshold": 3 },
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
            }],
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            ],
            "volumes": [{ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } }] } }],
        },
    })
}

fn pod(namespace: &str, name: &str, app: &str, set: &str, ip: &str, node: &str, spec: &Value) -> Value {
    let mut metadata = metadata(namespace, name, app);
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": format!("{namespace}-{set}"), "controller": true,
    }]);
    let mut spec = spec.clone();
    spec["nodeName"] = json!(node);
    let conditions: Vec<Value> = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": CREATED }))
    .to_vec();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "startTime": CREATED, "qosClass": "Burstable", "conditions": conditions,
            "containerStatuses": [{
                "name": "app", "ready": true, "started": true, "restartCount": 0, "image": format!("registry.example.internal/{app}:1.2.3"),
                "imageID": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "state": { "running": { "startedAt": CREATED } },
            }],
        },
    })
}

/// A diagnosis of each Service.
pub(crate) async fn create_diagnoses(client: &Client, count: usize, interval: u64) {
    stream::iter(0..count)
        .map(|i| async move {
            let (namespace, name) = key(i);
            let mut spec = ServiceDiagnosisSpec::for_service(&name);
            spec.interval_seconds = u32::try_from(interval).unwrap();
            let api = Api::<ServiceDiagnosis>::namespaced(client.clone(), &namespace);
            api.create(&PostParams::default(), &ServiceDiagnosis::new(&name, spec))
                .await
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
}
