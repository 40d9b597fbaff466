//! A cluster full of healthy Services: objects of the size that a real cluster has.

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Client,
    api::{Api, ApiResource, GroupVersionKind, PostParams, TypeMeta},
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

/// So many Services with their Deployments, ReplicaSets, Pods and slices, kind by kind: what an object refers to comes before
/// it. `node_of` says on which node each Pod of each Service is.
pub(crate) fn objects(
    services: usize,
    node_of: impl Fn(usize, usize) -> String + Copy,
) -> impl Iterator<Item = Value> {
    let namespaces = (0..services).step_by(PER_NAMESPACE).map(namespace);
    let pods = (0..services).flat_map(move |i| (0..PODS).map(move |p| pod(i, p, &node_of(i, p))));
    namespaces
        .chain((0..services).map(service))
        .chain((0..services).map(deployment))
        .chain((0..services).map(replica_set))
        .chain(pods)
        .chain((0..services).map(move |i| slice(i, |p| node_of(i, p))))
}

/// Puts objects into the store as they are.
pub(crate) fn put(store: &Store, objects: impl Iterator<Item = Value>) {
    for object in objects {
        let resource = resource(&object);
        store.put_unchecked(&resource.group, &resource.plural, object);
    }
}

/// Under what the API serves an object.
pub(crate) fn resource(object: &Value) -> ApiResource {
    let types: TypeMeta = serde_json::from_value(object.clone()).unwrap();
    ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap())
}

fn namespace(i: usize) -> Value {
    let (name, _) = key(i);
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "uid": name, "labels": { "kubernetes.io/metadata.name": name } },
    })
}

/// In the range of the sandbox, and none of those that the API server and cluster DNS have.
fn cluster_ip(i: usize) -> String {
    format!("10.96.{}.{}", 100 + i / 250, i % 250 + 1)
}

fn pod_ip(i: usize, p: usize) -> String {
    format!("10.{}.{}.{}", 128 + p, i / 250, i % 250 + 1)
}

fn service(i: usize) -> Value {
    let (namespace, name) = key(i);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(&namespace, &name, &name),
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip(i), "selector": { "app": name },
            "clusterIPs": [cluster_ip(i)], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    })
}

fn deployment(i: usize) -> Value {
    let (namespace, name) = key(i);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(&namespace, &name, &name),
        "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": name } }, "template": pod_template(&name) },
        "status": { "observedGeneration": 1, "replicas": PODS, "readyReplicas": PODS, "updatedReplicas": PODS },
    })
}

/// Name of the ReplicaSet of a Deployment.
fn set_of(name: &str) -> String {
    format!("{name}-7d9f8c6b5")
}

fn replica_set(i: usize) -> Value {
    let (namespace, name) = key(i);
    let mut metadata = metadata(&namespace, &set_of(&name), &name);
    metadata["ownerReferences"] = owner("apps/v1", "Deployment", &name);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata,
        "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": name } }, "template": pod_template(&name) },
        "status": { "observedGeneration": 1, "replicas": PODS, "readyReplicas": PODS },
    })
}

fn slice(i: usize, node_of: impl Fn(usize) -> String) -> Value {
    let (namespace, name) = key(i);
    let endpoint = |p: usize| {
        let pod = format!("{}-{p}", set_of(&name));
        json!({
            "addresses": [pod_ip(i, p)], "conditions": { "ready": true, "serving": true, "terminating": false }, "nodeName": node_of(p),
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod, "uid": format!("{namespace}-{pod}") },
        })
    };
    let mut metadata = metadata(&namespace, &format!("{name}-x7k2p"), &name);
    metadata["labels"] = json!({
        "app": name, "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    metadata["ownerReferences"] = owner("v1", "Service", &name);
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": (0..PODS).map(endpoint).collect::<Vec<_>>(),
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
            "serviceAccountName": "default",
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

fn pod(i: usize, p: usize, node: &str) -> Value {
    let ((namespace, app), ip) = (key(i), pod_ip(i, p));
    let set = set_of(&app);
    let mut metadata = metadata(&namespace, &format!("{set}-{p}"), &app);
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": format!("{namespace}-{set}"), "controller": true,
    }]);
    let mut spec = pod_template(&app)["spec"].take();
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
