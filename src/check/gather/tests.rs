use std::fmt::Debug;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};

use super::*;
use crate::objects::Object;

const AGENTS: &str = "agents";

async fn create<K>(client: &Client, namespace: &str, object: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// A Service with two diagnoses, one of which had the agents of two nodes look; one of these has
/// fallen silent.
async fn cluster(now: Timestamp) -> Cluster {
    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let client = cluster.client();
    for name in ["shop", AGENTS] {
        let api: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }
    let service = json!({ "metadata": { "name": "cart" }, "spec": { "ports": [{ "port": 80 }] } });
    create::<Service>(&client, "shop", service).await;
    let pod = json!({ "metadata": { "name": "cart-1" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    create::<Pod>(&client, "shop", pod).await;
    for (name, kind, type_) in [
        ("of-pod", "Pod", "Warning"),
        ("of-node", "Node", "Warning"),
        ("good", "Pod", "Normal"),
    ] {
        let event = json!({ "metadata": { "name": name }, "type": type_, "reason": "FailedMount",
            "involvedObject": { "kind": kind, "name": "cart-1", "namespace": "shop" } });
        create::<Event>(&client, "shop", event).await;
    }
    let node = json!({ "metadata": { "name": "one", "labels": { "zone": "a" } } });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    for name in ["idle", "watched"] {
        let diagnosis = json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "name": name }, "spec": { "serviceName": "cart" } });
        create::<ServiceDiagnosis>(&client, "shop", diagnosis).await;
    }
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(client.clone(), "shop");
    let uid = diagnoses.get("watched").await.unwrap().metadata.uid;
    let probes: Api<NodeProbe> = Api::namespaced(client.clone(), "shop");
    for (node, ago) in [("one", 5), ("two", 300)] {
        let renewed = now - jiff::SignedDuration::from_secs(ago);
        let lease = json!({ "metadata": { "name": format!("svcdiag-agent-{node}"),
                "labels": { "app.kubernetes.io/component": "svcdiag-agent" } },
            "spec": { "leaseDurationSeconds": 40, "renewTime": renewed } });
        create::<Lease>(&client, AGENTS, lease).await;
        let probe = json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe", "metadata": { "name": node },
            "spec": { "nodeName": node, "diagnosis": { "name": "watched", "uid": uid }, "serviceName": "cart",
                      "intervalSeconds": 60 } });
        create::<NodeProbe>(&client, "shop", probe).await;
        let status = json!({ "status": { "observedGeneration": 1, "facts": {} } });
        let patch = Patch::Merge(&status);
        probes
            .patch_status(node, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    cluster
}

async fn look(cluster: &Cluster, now: Timestamp) -> Facts {
    let spec = ServiceDiagnosisSpec::for_service("cart");
    let gathered = gather(&cluster.client(), "shop", spec, AGENTS).await.unwrap();
    gathered.facts(now)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_saw_for_a_diagnosis_of_the_service_is_used() {
    let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    let cluster = cluster(now).await;
    let facts = look(&cluster, now).await;
    let nodes: Vec<(&str, bool)> = facts
        .nodes
        .iter()
        .map(|n| (&*n.name, n.alive_until.is_some_and(|until| until > now)))
        .collect();
    assert_eq!(nodes, [("one", true), ("two", false)]);
    for node in &facts.nodes {
        let probe = node.probe.as_ref().unwrap();
        assert!(probe.is_current && probe.facts.is_some());
    }
    assert!(facts.unreadable.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_them_there_are_no_agents_and_no_gap() {
    let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    let cluster = cluster(now).await;
    for kind in ["leases", "nodeprobes", "servicediagnoses"] {
        cluster.embedded().unwrap().store().deny(&[kind]);
        let facts = look(&cluster, now).await;
        assert!(facts.nodes.is_empty() && facts.unreadable.is_empty(), "{kind}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_about_pods_nodes_and_kinds_of_policies_are_gathered() {
    let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    let cluster = cluster(now).await;
    let facts = look(&cluster, now).await;
    let events: Vec<&str> = facts.events.iter().map(|e| e.name()).collect();
    assert_eq!(events, ["of-pod"]);
    let one = facts.cluster_nodes.iter().find(|n| n.name() == "one").unwrap();
    assert_eq!(
        one.labels()["zone"],
        "a",
        "not only the name by the agent's Lease"
    );
    assert!(facts.other_policy_kinds.is_empty());
    install_cilium(&cluster).await;
    let facts = look(&cluster, now).await;
    assert_eq!(facts.other_policy_kinds, ["CiliumNetworkPolicy"]);
    cluster.stop().await;
}

/// The definition of one kind that is of policies, and of one that is not.
async fn install_cilium(cluster: &Cluster) {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    for (plural, kind) in [
        ("ciliumnetworkpolicies", "CiliumNetworkPolicy"),
        ("ciliumendpoints", "CiliumEndpoint"),
    ] {
        let schema =
            json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
        let crd = json!({ "metadata": { "name": format!("{plural}.cilium.io") },
            "spec": { "group": "cilium.io", "scope": "Namespaced", "names": { "kind": kind, "plural": plural },
                "versions": [{ "name": "v2", "served": true, "storage": true, "schema": schema }] } });
        let crd = serde_json::from_value(crd).unwrap();
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_events_and_nodes_there_are_gaps() {
    let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    let cluster = cluster(now).await;
    cluster.embedded().unwrap().store().deny(&["events", "nodes"]);
    let facts = look(&cluster, now).await;
    assert!(facts.events.is_empty());
    for (resource, part) in [
        ("events", "list events in namespace shop"),
        ("nodes", "list nodes in all namespaces"),
    ] {
        assert!(
            facts.why_unreadable(resource).unwrap().contains(part),
            "{:?}",
            facts.unreadable
        );
    }
    let nodes: Vec<&str> = facts.nodes.iter().map(|n| &*n.name).collect();
    assert_eq!(nodes, ["one", "two"], "the agents count all the same");
    cluster.stop().await;
}
