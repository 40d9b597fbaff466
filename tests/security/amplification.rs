//! A tenant with 31 diagnoses of a hundred nodes each, who has the agents asked again ten times a second.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use svcdiag::{
    api::{NodeProbe, ServiceDiagnosis},
    objects::Lease,
};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::Fixture,
    svcdiag::Controller,
};

use super::memory::peak_of;

const TENANT: &str = "tenant";
pub(crate) const AGENTS: &str = "svcdiag-system";
const NODES: usize = 101;
const DIAGNOSES: usize = 31;

/// What the controller takes of 100 nodes, by default.
const MAX_NODES: usize = 10;

/// And the nodes of three endpoints and of the client, which do not count.
const EACH: usize = MAX_NODES + 4;

/// What takes as long as this hangs.
const SOON: Duration = Duration::from_secs(180);

pub(crate) async fn apply<K>(api: &Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(object)).await.unwrap();
}

/// That of the agents.
pub(crate) async fn create_namespace(cluster: &Cluster) {
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": AGENTS } });
    apply(&namespaces, namespace).await;
}

/// Nodes of which nothing is there but what says that they have agents.
async fn hollow_nodes(cluster: &Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client());
    for n in 0..NODES {
        let node = format!("hollow-{n}");
        apply(
            &nodes,
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }),
        )
        .await;
        pretend_agent(cluster, &node).await;
    }
}

/// What says that an agent runs on a node.
pub(crate) async fn pretend_agent(cluster: &Cluster, node: &str) {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), AGENTS);
    let labels = json!({ "app.kubernetes.io/component": "svcdiag-agent" });
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": format!("svcdiag-agent-{node}"), "labels": labels },
        "spec": { "holderIdentity": node, "leaseDurationSeconds": 3600, "renewTime": "2026-01-01T00:00:00.000000Z" },
    });
    apply(&leases, lease).await;
}

fn diagnosis(n: usize, refresh: &str) -> Value {
    json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "name": format!("d{n}"), "annotations": { "svcdiag.dev/refresh": refresh } },
            "spec": { "serviceName": Fixture::NAME, "nodes": { "maxNodes": 100 } } })
}

async fn probes(cluster: &Cluster) -> Vec<NodeProbe> {
    let api: Api<NodeProbe> = Api::namespaced(cluster.client(), TENANT);
    api.list(&ListParams::default()).await.unwrap().items
}

/// The sum of all generations: so often were they written.
fn writes(probes: &[NodeProbe]) -> i64 {
    probes.iter().filter_map(|p| p.metadata.generation).sum()
}

/// Waits until as many are there and none is written for three seconds.
async fn at_rest(cluster: &Cluster, least: usize) -> Vec<NodeProbe> {
    let (start, mut since, mut last) = (Instant::now(), Instant::now(), probes(cluster).await);
    while last.len() < least || since.elapsed() < Duration::from_secs(3) {
        assert!(start.elapsed() < SOON, "{} NodeProbes", last.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = probes(cluster).await;
        if (now.len(), writes(&now)) != (last.len(), writes(&last)) {
            (since, last) = (Instant::now(), now);
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_makes_few_node_probes_and_has_them_written_seldom() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    create_namespace(&cluster).await;
    hollow_nodes(&cluster).await;
    Fixture::new(cluster.client(), TENANT).set_up().await.unwrap();
    let controller = Controller::start(
        Path::new(env!("CARGO_BIN_EXE_svcdiag")),
        cluster.kubeconfig_path(),
        cluster.state_dir(),
        &[],
    )
    .unwrap();
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), TENANT);
    for n in 0..DIAGNOSES {
        apply(&diagnoses, diagnosis(n, "0")).await;
    }
    let before = at_rest(&cluster, DIAGNOSES * MAX_NODES).await;
    // With that of the fixture, which samples three nodes.
    let most = DIAGNOSES * EACH + 3 + EACH - MAX_NODES;
    assert!(before.len() <= most, "{} NodeProbes", before.len());
    let start = Instant::now();
    let mut refreshed = 0;
    while start.elapsed() < Duration::from_secs(12) {
        refreshed += 1;
        apply(&diagnoses, diagnosis(0, &refreshed.to_string())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = start.elapsed().as_secs();
    let after = probes(&cluster).await;
    let written = writes(&after) - writes(&before);
    let peak = peak_of(controller.pid().unwrap());
    println!(
        "{DIAGNOSES} diagnoses of 100 nodes: {} NodeProbes; {refreshed} refreshes in {took} s: {written} writes; \
         peak memory of the controller: {peak} MiB",
        after.len()
    );
    assert!(after.len() <= most, "{} NodeProbes", after.len());
    // Three questions at once, and one in ten seconds, each to every node.
    let questions = 3 + took / 10 + 1;
    assert!(
        written > 0 && written <= (questions * EACH as u64) as i64,
        "{written} writes"
    );
    assert!(peak < 256, "{peak} MiB");
    controller.stop().await;
    cluster.stop().await;
}
