//! The local cluster does what a cluster does with the walk-through.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use svcdiag_sandbox::faults::Fixture;

async fn cluster() -> Cluster {
    let logs = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(logs)
        .with_test_writer()
        .try_init();
    Cluster::start(ClusterConfig::default()).await.unwrap()
}

async fn patch(fixture: &Fixture, patch: serde_json::Value) {
    Api::<Deployment>::namespaced(fixture.client().clone(), fixture.namespace())
        .patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_becomes_ready_with_three_endpoints_on_three_nodes() {
    let cluster = cluster().await;
    let fixture = Fixture::new(cluster.client(), "walk");
    let start = Instant::now();
    fixture.set_up().await.unwrap();
    println!("the walk-through was ready after {:?}", start.elapsed());

    let slices = Api::<EndpointSlice>::namespaced(cluster.client(), "walk")
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(slices.items.len(), 1);
    let slice = &slices.items[0];
    assert_eq!(
        slice.labels()["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("default"), Some(9376)));
    let endpoints = slice.endpoints.as_ref().unwrap();
    let nodes: BTreeSet<_> = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.node_name.clone())
        .collect();
    assert_eq!(nodes.len(), 3);
    assert!(
        endpoints
            .iter()
            .all(|endpoint| endpoint.zone.is_some() && endpoint.target_ref.is_some())
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_changes_the_number_of_endpoints() {
    let cluster = cluster().await;
    let fixture = Fixture::new(cluster.client(), "scale");
    fixture.set_up().await.unwrap();
    for replicas in [5, 0, 1] {
        patch(&fixture, json!({ "spec": { "replicas": replicas } })).await;
        fixture.wait_for_endpoints(replicas).await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_replaces_every_pod_and_never_leaves_the_service_short() {
    let cluster = cluster().await;
    let fixture = Fixture::new(cluster.client(), "roll");
    fixture.set_up().await.unwrap();
    let pods = Api::<Pod>::namespaced(cluster.client(), "roll");
    let names = async || -> BTreeSet<String> {
        let list = pods
            .list(&ListParams::default().labels("app=hostnames"))
            .await
            .unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    };
    let before = names().await;
    patch(
        &fixture,
        json!({ "spec": { "template": { "metadata": { "labels": { "release": "two" } } } } }),
    )
    .await;
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let ready = fixture.ready_endpoints().await.unwrap();
        assert!((3..=4).contains(&ready), "{ready} endpoints during the rollout");
        let now = names().await;
        if now.len() == 3 && now.is_disjoint(&before) {
            break;
        }
        assert!(Instant::now() < deadline, "the rollout takes too long: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.wait_until_settled().await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_has_numbered_pods() {
    let cluster = cluster().await;
    let api = Api::<StatefulSet>::namespaced(cluster.client(), "default");
    let set = serde_json::from_value(json!({
        "metadata": { "name": "db" },
        "spec": {
            "replicas": 2, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } },
                "spec": { "containers": [{ "name": "db", "image": "registry.k8s.io/pause" }] } },
        },
    }))
    .unwrap();
    api.create(&PostParams::default(), &set).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(180);
    while api
        .get("db")
        .await
        .unwrap()
        .status
        .and_then(|status| status.ready_replicas)
        != Some(2)
    {
        assert!(Instant::now() < deadline, "the StatefulSet does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pods = Api::<Pod>::namespaced(cluster.client(), "default")
        .list(&ListParams::default())
        .await
        .unwrap();
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["db-0", "db-1"]);
    cluster.stop().await;
}
