use std::fmt::Debug;

use kube::{
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};

use super::*;

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
        .map(|n| (n.name.as_str(), n.alive_until.is_some_and(|until| until > now)))
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
