//! A tenant changes the EndpointSlice after the controller has approved the Service's endpoints and before the agent
//! dials: the node is to dial what was approved, and nothing once it is not any more.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use svcdiag::api::{DialPath, NodeProbe, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, NODES},
    faults::Fixture,
    svcdiag::Controller,
};

use super::{
    agent::Agent,
    amplification::{apply, create_namespace, pretend_agent},
    test_cluster::{NAMESPACE, TestCluster},
};

/// What takes as long as this hangs.
const SOON: Duration = Duration::from_secs(180);

/// What only the node reaches: a port on its loopback, and one at an address of its own.
struct Victim(Vec<TcpListener>);

impl Victim {
    fn of(cluster: &TestCluster) -> Self {
        let listen = |address: &'static str| {
            let listener = cluster.node.run(move || TcpListener::bind(address)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        Self(["127.0.0.1:9376", "10.244.1.1:9376"].map(listen).into())
    }

    fn addresses(&self) -> Vec<String> {
        let ip = |l: &TcpListener| l.local_addr().unwrap().ip().to_string();
        self.0.iter().map(ip).collect()
    }

    /// Who has dialled it.
    fn dialled_by(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for listener in &self.0 {
            loop {
                match listener.accept() {
                    Ok((_, from)) => all.push(from),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        all
    }
}

fn slice(addresses: &[String]) -> Value {
    let endpoint =
        |ip: &String| json!({ "addresses": [ip], "conditions": { "ready": true }, "nodeName": "n1" });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "hostnames-x", "labels": { "kubernetes.io/service-name": "hostnames" } },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "", "port": 9376, "protocol": "TCP" }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_the_approval_is_not_dialled() {
    let cluster = TestCluster::new();
    let victim = Victim::of(&cluster);
    let agent = Agent::start(&cluster).await;
    let services: Api<Service> = Api::namespaced(agent.client(), NAMESPACE);
    let service = json!({
        "metadata": { "name": "hostnames" },
        "spec": { "clusterIP": "10.96.0.7", "ports": [{ "port": 80, "targetPort": 9376 }] },
    });
    let service = serde_json::from_value(service).unwrap();
    services.create(&PostParams::default(), &service).await.unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(agent.client(), NAMESPACE);
    let good: Vec<String> = cluster.endpoints.iter().map(|pod| pod.ip()).collect();
    let flips = [slice(&good), slice(&victim.addresses()[1..])];
    let is_over = Arc::new(AtomicBool::new(false));
    let attack = {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let params = PatchParams::apply("tenant").force();
            let mut flipped = 0;
            while !is_over.load(Ordering::Relaxed) {
                for flip in &flips {
                    slices
                        .patch("hostnames-x", &params, &Patch::Apply(flip))
                        .await
                        .unwrap();
                    flipped += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            flipped
        })
    };
    let approved = serde_json::to_value(cluster.spec()).unwrap();
    for round in 0..3 {
        let facts = agent.round(&format!("round-{round}"), approved.clone()).await;
        assert_eq!(
            (facts.probes_failed, &facts.failures[..]),
            (0, &[][..]),
            "{facts:#?}"
        );
        let from_node = |path| facts.dials.iter().any(|d| d.from.is_none() && d.path == path);
        assert!(
            from_node(DialPath::Endpoint) && from_node(DialPath::Service),
            "{facts:#?}"
        );
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(attack.await.unwrap() > 2);
    assert_eq!(victim.dialled_by(), []);

    // The victim would have noticed: what is approved is dialled, but for what nobody else than the node reaches.
    let mut approved = approved;
    approved["subsets"][0]["addresses"] = json!(victim.addresses());
    agent.round("approved", approved).await;
    let dialled = victim.dialled_by();
    assert!(!dialled.is_empty());
    assert!(dialled.iter().all(|from| !from.ip().is_loopback()), "{dialled:?}");
    agent.stop().await;
}

/// Waits until the NodeProbes are as they should be, or the diagnosis is.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_used_up_his_questions_keeps_no_node_dialling() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    create_namespace(&cluster).await;
    for node in NODES {
        pretend_agent(&cluster, node).await;
    }
    let fixture = Fixture::new(cluster.client(), "tenant");
    fixture.set_up().await.unwrap();
    // Whoever asks too often waits for an hour.
    let controller = Controller::start(
        Path::new(env!("CARGO_BIN_EXE_svcdiag")),
        cluster.kubeconfig_path(),
        cluster.state_dir(),
        &["--min-probe-interval", "3600"],
    )
    .unwrap();
    let probes: Api<NodeProbe> = Api::namespaced(cluster.client(), "tenant");
    let dialling = async || {
        let listed = probes.list(&ListParams::default()).await.unwrap().items;
        listed.iter().filter(|probe| probe.spec.from_node).count()
    };
    until("nodes dial", async || dialling().await == NODES.len()).await;
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "tenant");
    until("questions are held back", async || {
        fixture.refresh().await.unwrap();
        let found = diagnoses.get(Fixture::NAME).await.unwrap();
        let conditions = found.status.map(|s| s.conditions).unwrap_or_default();
        conditions
            .iter()
            .any(|c| c.message.contains("--min-probe-interval"))
    })
    .await;
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client(), "tenant");
    let mut own = slice(&["192.168.9.9".to_owned()]);
    own["metadata"]["labels"]["kubernetes.io/service-name"] = Fixture::NAME.into();
    apply(&slices, own).await;
    until("no node dials", async || dialling().await == 0).await;
    controller.stop().await;
    cluster.stop().await;
}
