//! Secrets where people put them: none of them is in a bundle, which is sent to strangers.

use std::{fs, path::Path};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::Fixture,
    kubectl::Kubectl,
};
use tokio::process::Command;

const NAMESPACE: &str = "shop";

/// What is never to be found, with a number for each kind.
const SECRET: &str = "hunter2-";

/// Objects with a secret of a kind each.
fn planted(pod: &str, uid: &str) -> Vec<Value> {
    let meta = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
    vec![
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns", "kube-system"), "data": { "Corefile":
            format!(".:53 {{\n  kubernetes cluster.local\n  pdsql postgres \"user=dns password={SECRET}1\"\n  forward . tls://u:{SECRET}1@9.9.9.9\n}}\n") } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("kube-proxy", "kube-system"), "data": {
            "config.conf": "kind: KubeProxyConfiguration\nmode: nftables\n",
            "kubeconfig.conf": format!("users:\n- name: x\n  user: {{token: {SECRET}2}}\n") } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings", NAMESPACE),
            "data": { "password": format!("{SECRET}3") } }),
        json!({ "apiVersion": "v1", "kind": "Event", "metadata": meta("pull", NAMESPACE), "type": "Warning",
            "reason": "Failed", "count": 1, "lastTimestamp": jiff::Timestamp::now().to_string(),
            "involvedObject": { "kind": "Pod", "namespace": NAMESPACE, "name": pod, "uid": uid },
            "message": format!("Failed to pull image: Get https://u:{SECRET}4@registry/v2/?token={SECRET}4") }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": Fixture::NAME, "namespace": NAMESPACE,
            "annotations": {
                "example.com/backend": format!("https://admin:{SECRET}5@db/x"),
                "svcdiag.dev/note": format!("https://admin:{SECRET}5@db/x"),
                "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"token\":\"{SECRET}6\"}}") } } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta("planted", NAMESPACE), "spec": {
            "initContainers": [
                { "name": "i", "image": format!("u:{SECRET}7@web:1") },
                { "name": "d", "image": format!("u:{SECRET}7@registry/web@sha256:{}", "a".repeat(64)) },
                { "name": "k", "image": format!("registry/kept@sha256:{}", "a".repeat(64)) }],
            "containers": [{ "name": "c", "image": format!("u:{SECRET}7@registry.example/web:1"),
                             "args": [format!("--password={SECRET}8")],
                             "env": [{ "name": "DB_PASSWORD", "value": format!("{SECRET}8") }] }] } }),
    ]
}

fn all_files(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_gets_into_a_bundle() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    Fixture::new(cluster.client(), NAMESPACE).set_up().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let chosen = ListParams::default().labels("app=hostnames");
    let pod = pods.list(&chosen).await.unwrap().items.remove(0);
    let name = pod.metadata.name.clone().unwrap();
    let kubectl = Kubectl::find()
        .await
        .unwrap()
        .with_kubeconfig(cluster.kubeconfig_path());
    for object in planted(&name, pod.metadata.uid.as_deref().unwrap()) {
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        kubectl.run_with_input(&apply, &object.to_string()).await.unwrap();
    }
    // Last, so that nobody overwrites it before it is read.
    let waiting = json!({ "status": { "conditions": [{ "type": "Planted", "status": "False",
        "message": format!("cannot reach postgres://root:{SECRET}9@db/x with --token={SECRET}9") }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(waiting))
        .await
        .unwrap();
    let bundle = cluster.state_dir().join("bundle");
    let collected = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
        .args(["collect", Fixture::NAME, "-n", NAMESPACE, "-o"])
        .arg(&bundle)
        .env("KUBECONFIG", cluster.kubeconfig_path())
        .output()
        .await
        .unwrap();
    assert!(collected.status.success(), "{collected:?}");
    let mut files = Vec::new();
    all_files(&bundle, &mut files);
    let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
    // What they were planted in is there, so that it was read.
    for kept in [
        "kubernetes cluster.local",
        "nftables",
        "Failed to pull image",
        "\"planted\"",
        "\"registry/kept@sha256:a",
    ] {
        assert!(
            all.contains(kept),
            "{kept}: {:?}",
            files.iter().map(|(path, _)| path).collect::<Vec<_>>()
        );
    }
    let told: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            text.lines()
                .filter(|l| l.contains(SECRET))
                .map(move |l| format!("{path}: {l}"))
        })
        .collect();
    assert!(told.is_empty(), "{told:#?}");
    cluster.stop().await;
}
