//! The controller and the agents: who is asked what, who answers, and what that costs.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use svcdiag::{
    api::{NodeProbe, ServiceDiagnosis},
    objects::Lease,
};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, NODES},
    faults::{Fixture, catalogue},
    svcdiag::Controller,
};
use tokio::process::{Child, Command};

use crate::harness::{Harness, at_rest, eventually};

/// The agents' namespace.
pub(crate) const NAMESPACE: &str = "svcdiag-system";

/// The real agent, on a node whose network leads nowhere. Killed when dropped.
pub(crate) struct Agent {
    process: Child,
    _node: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) async fn start(node: &str, kubeconfig: &Path, directory: &Path, arguments: &[&str]) -> Self {
        let network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let sleeper = Command::new("unshare")
            .args(["--net", "sleep", "3600"])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = sleeper.id().unwrap();
        let own = network(std::process::id());
        eventually("the node's network", async || {
            network(pid).filter(|n| Some(n) != own.as_ref())
        })
        .await;
        let log = directory.join(format!("agent-{node}.log"));
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
            .args(["agent", "--node-name", node])
            .args(["--node-network", &format!("/proc/{pid}/ns/net")])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", NAMESPACE)
            .stdin(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            process,
            _node: sleeper,
            log,
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) {
        let pid = self.process.id().unwrap().to_string();
        let killed = Command::new("kill").arg(&pid).status().await.unwrap();
        assert!(killed.success());
        assert!(self.process.wait().await.unwrap().success(), "{}", self.log());
    }
}

/// A cluster, the controller and the agents' namespace.
async fn start() -> Harness {
    let mut harness = Harness::start().await;
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    let apply = ["apply", "-f", "-"];
    harness.kubectl.run_with_input(&apply, &namespace).await.unwrap();
    // What it could not write into a namespace that was not there yet it would try again in a minute.
    harness.restart_controller(&[]).await;
    harness
}

/// Renews the Lease of an agent, as the agent does.
async fn renew(cluster: &Cluster, node: &str, second: u32) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": format!("svcdiag-agent-{node}"), "labels": { "app.kubernetes.io/component": "svcdiag-agent" } },
        "spec": { "holderIdentity": node, "leaseDurationSeconds": 40,
                  "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z") },
    });
    let api: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    let params = PatchParams::apply("test").force();
    api.patch(&format!("svcdiag-agent-{node}"), &params, &Patch::Apply(lease))
        .await
        .unwrap();
}

async fn probes(cluster: &Cluster, namespace: &str) -> Vec<NodeProbe> {
    let api: Api<NodeProbe> = Api::namespaced(cluster.client(), namespace);
    api.list(&ListParams::default()).await.unwrap().items
}

/// The nodes that are asked.
async fn asked(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let mut nodes: Vec<String> = probes(cluster, namespace)
        .await
        .into_iter()
        .map(|p| p.spec.node_name)
        .collect();
    nodes.sort();
    nodes
}

async fn patch(harness: &Harness, namespace: &str, patch: Value) {
    let api = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), namespace);
    api.patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

/// Status and reason of `Ready`.
async fn ready_is(cluster: &Cluster, namespace: &str, status: &str, reason: &str) {
    let api: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), namespace);
    eventually(&format!("Ready is {status}/{reason}"), async || {
        let found = api.get(Fixture::NAME).await.unwrap().status?;
        let ready = found.conditions.into_iter().find(|c| c.type_ == "Ready")?;
        (ready.status == status && ready.reason == reason).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_needs_of_agents_what_the_data_path_says() {
    let mut harness = start().await;
    let fixture = harness.fixture("without").await;
    let api: Api<ServiceDiagnosis> = Api::namespaced(harness.cluster.client(), fixture.namespace());
    let set = async |value: Value| {
        let patch = Patch::Merge(json!({ "spec": { "dataPath": value } }));
        api.patch(Fixture::NAME, &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    let is = async |harness: &Harness, status: &str, reason: &str| {
        ready_is(&harness.cluster, "without", status, reason).await;
    };
    is(&harness, "Unknown", "NoVantagePoint").await;
    set(json!("IfAvailable")).await;
    is(&harness, "True", "DefinitionWorks").await;
    // An agent that has fallen silent is one.
    renew(&harness.cluster, NODES[0], 0).await;
    eventually("it is no longer True", async || {
        let ready = fixture.verdict().await.unwrap();
        (!ready.works()).then_some(())
    })
    .await;
    set(json!("Ignore")).await;
    is(&harness, "True", "DefinitionWorks").await;
    // NodeProbes are removed once the status is written.
    eventually("no agent is asked", async || {
        asked(&harness.cluster, "without").await.is_empty().then_some(())
    })
    .await;
    set(Value::Null).await;
    harness.restart_controller(&["--data-path", "Ignore"]).await;
    is(&harness, "True", "DefinitionWorks").await;
    // What is wrong with the objects counts in any case.
    let fault = catalogue().unwrap().into_iter().find(|f| f.id == "A08").unwrap();
    fault.inject(&fixture).await.unwrap();
    is(&harness, "False", "SelectorMatchesNoPods").await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chosen_node_is_asked_and_no_other() {
    let harness = start().await;
    harness.fixture("asked").await;
    assert!(
        probes(&harness.cluster, "asked").await.is_empty(),
        "nobody could answer"
    );
    renew(&harness.cluster, NODES[0], 0).await;
    eventually("the first agent is asked", async || {
        (asked(&harness.cluster, "asked").await == [NODES[0]]).then_some(())
    })
    .await;
    renew(&harness.cluster, NODES[1], 0).await;
    renew(&harness.cluster, NODES[2], 0).await;
    eventually("all are", async || {
        (asked(&harness.cluster, "asked").await == NODES).then_some(())
    })
    .await;
    for probe in probes(&harness.cluster, "asked").await {
        let owner = &probe.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str()),
            ("ServiceDiagnosis", Fixture::NAME)
        );
        assert_eq!(owner.block_owner_deletion, None);
    }
    // The user asks for another round.
    let revision = async || probes(&harness.cluster, "asked").await[0].spec.revision.clone();
    let before = revision().await;
    patch(
        &harness,
        "asked",
        json!({ "metadata": { "annotations": { "svcdiag.dev/refresh": "now" } } }),
    )
    .await;
    eventually("another round", async || {
        (revision().await != before).then_some(())
    })
    .await;
    // Somebody deletes one, which is not how to be rid of it.
    let api: Api<NodeProbe> = Api::namespaced(harness.cluster.client(), "asked");
    let gone = probes(&harness.cluster, "asked").await.remove(0);
    api.delete(gone.metadata.name.as_deref().unwrap(), &DeleteParams::default())
        .await
        .unwrap();
    eventually("it comes back", async || {
        let probes = probes(&harness.cluster, "asked").await;
        let found = probes.iter().find(|p| p.metadata.name == gone.metadata.name)?;
        (found.metadata.uid != gone.metadata.uid).then_some(())
    })
    .await;
    patch(&harness, "asked", json!({ "spec": { "suspend": true } })).await;
    eventually("nobody is asked", async || {
        asked(&harness.cluster, "asked").await.is_empty().then_some(())
    })
    .await;
    patch(&harness, "asked", json!({ "spec": { "suspend": false } })).await;
    eventually("all are again", async || {
        (asked(&harness.cluster, "asked").await == NODES).then_some(())
    })
    .await;
    let diagnoses = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), "asked");
    diagnoses
        .delete(Fixture::NAME, &DeleteParams::default())
        .await
        .unwrap();
    eventually("they go with their diagnosis", async || {
        asked(&harness.cluster, "asked").await.is_empty().then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_cost_nothing() {
    let harness = start().await;
    harness.fixture("cheap").await;
    renew(&harness.cluster, NODES[0], 0).await;
    eventually("a NodeProbe", async || {
        (!probes(&harness.cluster, "cheap").await.is_empty()).then_some(())
    })
    .await;
    let rounds = async || {
        let count = async |outcome: &str| {
            let line = format!("svcdiag_reconciles_total{{outcome=\"{outcome}\"}}");
            harness.metric(&line).await.unwrap_or_default()
        };
        count("Written").await + count("Unchanged").await + count("Failed").await
    };
    // What the agent's coming has caused.
    let before = at_rest(&rounds).await;
    let (start, versions) = (Instant::now(), probes(&harness.cluster, "cheap").await);
    for second in 1..30 {
        renew(&harness.cluster, NODES[0], second).await;
    }
    let after = at_rest(&rounds).await;
    // A round of its own may fall into this time, and one more each minute.
    let own = 1.0 + (start.elapsed().as_secs_f64() / 60.0).floor();
    assert!(after - before <= own, "{before} rounds before, {after} after");
    assert_eq!(probes(&harness.cluster, "cheap").await, versions);
    let writes = harness.metric("svcdiag_node_probe_writes_total").await.unwrap();
    assert!(writes <= 3.0, "{writes} writes for one NodeProbe");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_are_told_where_the_api_server_is() {
    let harness = start().await;
    let arguments = [
        "-n",
        NAMESPACE,
        "get",
        "configmap",
        "svcdiag-apiserver",
        "-o",
        "json",
    ];
    let read =
        async || -> Option<Value> { serde_json::from_str(&harness.kubectl.run(&arguments).await.ok()?).ok() };
    let map = eventually("the ConfigMap", read).await;
    let addresses = map["data"]["addresses"].as_str().unwrap();
    assert!(
        addresses.starts_with("172.18.0.1:") && addresses.ends_with('\n'),
        "{addresses:?}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_around_a_dead_service_address_and_answers() {
    let harness = start().await;
    harness.fixture("around").await;
    // The usual address leads nowhere; a port that was free a moment ago.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "{}://{}",
        scheme(harness.cluster.url()),
        dead.local_addr().unwrap()
    );
    drop(dead);
    let kubeconfig = harness.cluster.state_dir().join("dead.kubeconfig");
    let text = std::fs::read_to_string(harness.cluster.kubeconfig_path()).unwrap();
    assert!(text.contains(harness.cluster.url()));
    std::fs::write(&kubeconfig, text.replace(harness.cluster.url(), &url)).unwrap();
    let addresses = harness.cluster.state_dir().join("addresses");
    let direct = harness.cluster.url().split("://").nth(1).unwrap();
    std::fs::write(&addresses, format!("{direct}\n")).unwrap();
    let file = format!("--apiserver-addresses={}", addresses.display());
    let agent = Agent::start(NODES[0], &kubeconfig, harness.cluster.state_dir(), &[&file]).await;
    // This one is told to go elsewhere, with the same credentials.
    let named = ["--apiserver", harness.cluster.url()];
    let other = Agent::start(NODES[1], &kubeconfig, harness.cluster.state_dir(), &named).await;
    for node in &NODES[..2] {
        eventually("an answer", async || {
            let probes = probes(&harness.cluster, "around").await;
            let probe = probes.into_iter().find(|p| p.spec.node_name == *node)?;
            probe.status?.observed_generation
        })
        .await;
    }
    other.stop().await;
    assert!(agent.log().contains("does not answer"), "{}", agent.log());
    agent.stop().await;
    harness.stop().await;
}

fn scheme(url: &str) -> &str {
    url.split("://").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_nodes_leases_and_events_the_api_objects_are_judged() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let Some(server) = cluster.embedded() else {
        println!("the rights of a real API server are those of the role, in a test of its own");
        cluster.stop().await;
        return;
    };
    let fixture = Fixture::new(cluster.client(), "without");
    fixture.set_up().await.unwrap();
    fixture.wait_until_settled().await.unwrap();
    server.store().deny(&["nodes", "leases", "events"]);
    let program = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(program, cluster.kubeconfig_path(), cluster.state_dir(), &[]).unwrap();
    eventually("a verdict", async || {
        let verdict = fixture.verdict().await.ok()?;
        verdict.is_healthy().then_some(())
    })
    .await;
    let log = || std::fs::read_to_string(controller.log()).unwrap();
    for kind in ["Node", "Lease", "Event"] {
        let told = log()
            .lines()
            .filter(|l| l.contains("not allowed to list and watch") && l.contains(&format!("kind={kind}")))
            .count();
        assert_eq!(told, 1, "{kind}: {}", log());
    }
    server.store().deny(&[]);
    eventually("the right is noticed", async || {
        (log().matches("can be listed and watched now").count() == 3).then_some(())
    })
    .await;
    controller.stop().await;
    cluster.stop().await;
}
