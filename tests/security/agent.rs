//! The agent as it is shipped, a process of its own, on the node of a test cluster.

use std::{
    fs::File,
    os::fd::AsRawFd,
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{PostParams, ResourceExt},
};
use serde_json::{Value, json};
use svcdiag::api::{NodeFacts, NodeProbe};
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use tokio::process::{Child, Command};

use super::{
    memory::peak_of,
    test_cluster::{NAMESPACE, TestCluster},
};

/// What takes as long as this hangs.
const SOON: Duration = Duration::from_secs(120);

pub(crate) struct Agent {
    cluster: Cluster,
    process: Child,
    _network: File,
}

impl Agent {
    /// Starts it, with an API server that asks it nothing yet.
    pub(crate) async fn start(host: &TestCluster) -> Self {
        Self::start_by(host, |command| command.spawn().unwrap()).await
    }

    /// The same by whoever starts programs.
    pub(crate) async fn start_by(host: &TestCluster, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(cluster.client());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let network = host.node.run(|| File::open("/proc/thread-self/ns/net")).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
        let log = File::create(cluster.state_dir().join("agent.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_svcdiag"));
        command
            .args(["agent", "--node-name", "n1", "--node-network", &path])
            .arg("--health-socket")
            .arg(cluster.state_dir().join("health.sock"))
            .env("KUBECONFIG", cluster.kubeconfig_path())
            .env("POD_NAMESPACE", "svcdiag-system")
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Self {
            process: spawn(&mut command),
            cluster,
            _network: network,
        }
    }

    /// Of an administrator.
    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().expect("the agent runs")
    }

    /// Asks it whether it is well, as the kubelet does.
    pub(crate) async fn assert_healthy(&self) {
        let socket = self.cluster.state_dir().join("health.sock");
        let health = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
            .args(["health", "--socket"])
            .arg(socket)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&health.stderr);
        assert!(health.status.success(), "{said}\n{}", self.log());
    }

    /// Asks it, and waits for what it saw.
    pub(crate) async fn round(&self, name: &str, spec: Value) -> NodeFacts {
        let api: Api<NodeProbe> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let probe = json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": name }, "spec": spec,
        });
        let probe = serde_json::from_value(probe).unwrap();
        let made = api.create(&PostParams::default(), &probe).await.unwrap();
        let start = Instant::now();
        loop {
            let found = api.get(&made.name_any()).await.unwrap();
            if let Some(facts) = found.status.and_then(|s| s.facts) {
                return facts;
            }
            assert!(start.elapsed() < SOON, "no facts came\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Says how much memory an attack has taken, and fails if it is much.
    pub(crate) fn assert_peak(&self, attack: &str) {
        let peak = peak_of(self.pid());
        println!("peak memory of the agent under {attack}: {peak} MiB");
        assert!(peak < 64, "{peak} MiB");
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.state_dir().join("agent.log")).unwrap_or_default()
    }

    pub(crate) async fn stop(mut self) {
        self.process.kill().await.unwrap();
        self.cluster.stop().await;
    }
}
