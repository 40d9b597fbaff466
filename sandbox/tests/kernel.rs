//! Nodes and Pods in the kernel: who reaches whom, and that nothing stays behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath},
    faults::Scene,
    kernel::Wiring,
    proxy::ProxyMode,
};

async fn start(wiring: Wiring) -> (Cluster, Scene) {
    let config = ClusterConfig {
        data_path: Some(DataPath {
            proxy: ProxyMode::Nftables,
            wiring,
        }),
        assets: None,
        dual_stack: true,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let scene = Scene::of(&cluster, "default");
    scene.set_up().await.unwrap();
    (cluster, scene)
}

async fn pods(cluster: &Cluster, app: &str) -> Vec<Pod> {
    let api = Api::<Pod>::namespaced(cluster.client(), "default");
    let labels = ListParams::default().labels(&format!("app={app}"));
    api.list(&labels).await.unwrap().items
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref().unwrap();
    status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// What an HTTP request from a Pod is answered. Python is there wherever the tests are.
async fn answer(cluster: &Cluster, from: &Pod, address: &str, port: u16) -> String {
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let script = format!(
        "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://{host}:{port}/\", timeout=3).read().decode())'"
    );
    let kernel = cluster.kernel().unwrap();
    let printed = kernel.in_pod(&from.uid().unwrap(), &script, &[]).await;
    printed.unwrap().trim().to_owned()
}

async fn everybody_reaches_everybody(wiring: Wiring) {
    let (cluster, _scene) = start(wiring).await;
    let client = pods(&cluster, "client").await.remove(0);
    let servers = pods(&cluster, "hostnames").await;
    assert_eq!(servers.len(), 3);
    for server in &servers {
        for address in addresses(server) {
            if address.contains('.') {
                assert_eq!(answer(&cluster, &client, &address, 9376).await, server.name_any());
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_one_another_by_the_bridge() {
    everybody_reaches_everybody(Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_one_another_by_links_of_their_own() {
    everybody_reaches_everybody(Wiring::PointToPoint).await;
}
