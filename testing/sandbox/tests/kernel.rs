//! Nodes and Pods in the kernel: who reaches whom, and that nothing stays behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath},
    faults::Fixture,
    kernel::{Error, Wiring},
    proxy::ProxyMode,
};

/// Whatever takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(180);

async fn start(wiring: Wiring) -> (Cluster, Fixture) {
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
    let fixture = Fixture::of(&cluster, "default");
    fixture.set_up().await.unwrap();
    (cluster, fixture)
}

/// Pods that are not about to go.
async fn pods(cluster: &Cluster, app: &str) -> Vec<Pod> {
    let api = Api::<Pod>::namespaced(cluster.client(), "default");
    let labels = ListParams::default().labels(&format!("app={app}"));
    let mut pods = api.list(&labels).await.unwrap().items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref().unwrap();
    status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// What an HTTP request from a Pod is answered. On a busy machine the first ones may be late.
async fn answer(cluster: &Cluster, from: &Pod, address: &str, port: u16) -> String {
    let start = Instant::now();
    loop {
        match try_answer(cluster, from, address, port).await {
            Ok(name) => return name,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{address}: {error:?}"),
        }
    }
}

/// What one HTTP request is answered. Python is there wherever the tests are.
async fn try_answer(cluster: &Cluster, from: &Pod, address: &str, port: u16) -> Result<String, Error> {
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
    printed.map(|printed| printed.trim().to_owned())
}

async fn everybody_reaches_everybody(wiring: Wiring) {
    let (cluster, _fixture) = start(wiring).await;
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

/// Processes that have this text in their command line. A test of another cluster has other names.
fn processes(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// The network namespaces of processes.
fn namespaces() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read_link(entry.path().join("ns/net")).ok())
        .collect()
}

/// The directory below cgroup hierarchies that a process of a Pod is in.
fn cgroup_of(pid: &str) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text
        .lines()
        .find_map(|line| Some(line.split(':').nth(2)?).filter(|path| path.contains("kubepods")));
    let path = path.expect("a Pod's process is in the Pod's cgroup");
    let roots = ["", "unified", "pids", "systemd", "memory"];
    let mut directories = roots
        .map(|root| PathBuf::from(format!("/sys/fs/cgroup/{root}{path}")))
        .into_iter();
    directories.find(|directory| directory.is_dir()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_leaves_nothing_behind() {
    let (cluster, fixture) = start(Wiring::Bridge).await;
    let kernel = cluster.kernel().unwrap();
    let ours: BTreeSet<PathBuf> = {
        let mut paths: Vec<PathBuf> = kernel.nodes().iter().map(|node| node.netns_path()).collect();
        paths.extend(kernel.pod_networks().await.into_iter().map(|(_, path)| path));
        paths
            .iter()
            .map(|path| std::fs::read_link(path).unwrap())
            .collect()
    };
    assert!(
        ours.len() >= 9,
        "three nodes, two of DNS, four of the walk-through: {ours:?}"
    );
    let (name, network) = kernel.pod_networks().await.remove(0);
    let pid = network
        .components()
        .nth(2)
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap()
        .to_owned();
    let cgroup = cgroup_of(&pid);
    let pods: Vec<String> = kernel
        .pod_networks()
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(!processes(&name).is_empty());
    // One that hangs has to go as well.
    conduct(&fixture, "sandbox-2", Some("hung")).await;

    // Nodes stay as long as somebody holds them, and a fixture does.
    drop(fixture);
    cluster.stop().await;
    // The kernel takes a moment to forget.
    eventually("the namespaces are gone", async || {
        namespaces().is_disjoint(&ours)
    })
    .await;
    eventually("the cgroup is gone", async || !cgroup.exists()).await;
    for pod in &pods {
        assert_eq!(processes(pod), Vec::<String>::new());
    }
}

/// Says how kube-proxy of a node is to behave.
async fn conduct(fixture: &Fixture, node: &str, conduct: Option<&str>) {
    let patch = json!({ "metadata": { "annotations": { "sandbox.svcdiag.dev/kube-proxy": conduct } } });
    let nodes = Api::<Node>::all(fixture.client().clone());
    nodes
        .patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kube_proxy_that_hangs_is_silent_until_it_goes_on() {
    let (cluster, fixture) = start(Wiring::Bridge).await;
    let kernel = cluster.kernel().unwrap();
    let is_live = async |node: &str| {
        let script =
            "python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:10256/livez\", timeout=1)'";
        kernel.node(node).unwrap().sh(script, &[]).await.is_ok()
    };
    eventually("kube-proxy answers", async || is_live("sandbox-2").await).await;
    conduct(&fixture, "sandbox-2", Some("hung")).await;
    eventually("kube-proxy is silent", async || !is_live("sandbox-2").await).await;
    assert!(
        is_live("sandbox-1").await,
        "that of another node is not concerned"
    );
    conduct(&fixture, "sandbox-2", None).await;
    eventually("kube-proxy answers again", async || is_live("sandbox-2").await).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dual_stack_service_answers_in_both_families() {
    let (cluster, fixture) = start(Wiring::Bridge).await;
    let deployments = Api::<Deployment>::namespaced(cluster.client(), "default");
    let listen = json!({ "sandbox.svcdiag.dev/listen": "tcp://[::]:9376" });
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": listen } } } });
    deployments
        .patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    fixture.wait_until_settled().await.unwrap();
    let service = json!({
        "metadata": { "name": "both" },
        "spec": { "selector": { "app": "hostnames" }, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{ "port": 80, "targetPort": 9376 }] },
    });
    let service: Service = serde_json::from_value(service).unwrap();
    let services = Api::<Service>::namespaced(cluster.client(), "default");
    let service = services.create(&PostParams::default(), &service).await.unwrap();
    let ips = service.spec.unwrap().cluster_ips.unwrap();
    assert!(
        ips.iter().any(|ip| ip.contains(':')) && ips.iter().any(|ip| ip.contains('.')),
        "{ips:?}"
    );

    let client = pods(&cluster, "client").await.remove(0);
    let servers = pods(&cluster, "hostnames").await;
    assert_eq!(servers.len(), 3);
    let names: Vec<String> = servers.iter().map(ResourceExt::name_any).collect();
    for server in &servers {
        for address in addresses(server) {
            assert_eq!(answer(&cluster, &client, &address, 9376).await, server.name_any());
        }
    }
    for ip in ips {
        eventually("the Service leads to Pods", async || {
            let answered = try_answer(&cluster, &client, &ip, 80).await;
            answered.is_ok_and(|name| names.contains(&name))
        })
        .await;
    }
    cluster.stop().await;
}
