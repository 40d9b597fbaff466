//! Two controllers: one works, the other takes over when the first is killed, and one that was stopped for long writes
//! nothing when it goes on.

use std::{path::Path, process::Stdio, time::Instant};

use kube::api::{Api, DeleteParams};
use serde_json::json;
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fault, Fixture, Verdict, catalogue},
};
use tokio::process::{Child, Command};

use crate::harness::{SOON, eventually};

/// A controller that takes part in the election.
struct Candidate {
    process: Child,
    log: std::path::PathBuf,
}

impl Candidate {
    fn start(cluster: &Cluster, name: &str) -> Self {
        Self::start_with(cluster, name, &["--leader-elect"])
    }

    fn start_with(cluster: &Cluster, name: &str, arguments: &[&str]) -> Self {
        let log = cluster.state_dir().join(format!("{name}.log"));
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
            .args(["controller", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig_path())
            .env("POD_NAME", name)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, log }
    }

    fn says(&self, words: &str) -> bool {
        read(&self.log).contains(words)
    }

    async fn leads(&self) {
        eventually("it is the leader", async || {
            self.says("This controller is the leader").then_some(())
        })
        .await;
    }

    async fn stands_by(&self) {
        eventually("it stands by", async || {
            self.says("Another controller is the leader").then_some(())
        })
        .await;
    }

    async fn signal(&self, name: &str) {
        let pid = self.process.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Its exit code, once it has ended.
    async fn end(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(SOON, self.process.wait()).await;
        ended.expect("it ends").unwrap().code()
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

async fn wait(fixture: &Fixture, what: &str, test: impl Fn(&Verdict) -> bool) {
    let start = Instant::now();
    loop {
        let verdict = fixture.verdict().await.unwrap();
        if test(&verdict) {
            return;
        }
        assert!(start.elapsed() < SOON, "not {what}: {:#?}", verdict.conditions());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn fault(id: &str) -> Fault {
    catalogue().unwrap().into_iter().find(|f| f.id == id).unwrap()
}

async fn cluster_and_fixture(namespace: &str) -> (Cluster, Fixture) {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), namespace);
    fixture.set_up().await.unwrap();
    (cluster, fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standby_takes_over_from_a_leader_that_is_killed_or_stopped() {
    let (cluster, fixture) = cluster_and_fixture("election").await;
    let mut first = Candidate::start(&cluster, "first");
    first.leads().await;
    wait(&fixture, "healthy", Verdict::is_healthy).await;
    let mut second = Candidate::start(&cluster, "second");
    second.stands_by().await;

    first.process.start_kill().unwrap();
    first.end().await;
    let killed = Instant::now();
    second.leads().await;
    println!(
        "killed: the standby leads after {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    let broken = fault("A08");
    broken.inject(&fixture).await.unwrap();
    wait(&fixture, &broken.title, |v| broken.expected.is_met_by(v)).await;

    // Stopped in good order, it gives its Lease up.
    let mut third = Candidate::start(&cluster, "third");
    third.stands_by().await;
    let stopped = Instant::now();
    second.signal("TERM").await;
    assert_eq!(second.end().await, Some(0));
    third.leads().await;
    println!(
        "stopped: the standby leads after {:.1} s",
        stopped.elapsed().as_secs_f64()
    );
    broken.undo(&fixture).await.unwrap();
    wait(&fixture, "healthy again", Verdict::is_healthy).await;
    third.signal("TERM").await;
    third.end().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on() {
    let (cluster, fixture) = cluster_and_fixture("frozen").await;
    let mut first = Candidate::start(&cluster, "first");
    first.leads().await;
    wait(&fixture, "healthy", Verdict::is_healthy).await;
    let second = Candidate::start(&cluster, "second");
    second.stands_by().await;
    first.signal("STOP").await;
    second.leads().await;
    // What the first would write at once: it has not heard of this change.
    let broken = fault("A08");
    broken.inject(&fixture).await.unwrap();
    wait(&fixture, &broken.title, |v| broken.expected.is_met_by(v)).await;
    second.signal("STOP").await;
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), fixture.namespace());
    let version = async || {
        diagnoses
            .get(Fixture::NAME)
            .await
            .unwrap()
            .metadata
            .resource_version
    };
    // What was on its way when it was stopped has arrived.
    let mut before = version().await;
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let now = version().await;
        if now == before {
            break;
        }
        before = now;
    }
    broken.undo(&fixture).await.unwrap();

    first.signal("CONT").await;
    // The second holds the Lease, though it is stopped now: the first ends and may take over as another process only.
    assert_eq!(first.end().await, Some(3));
    assert!(first.says("was taken over by second"), "{}", read(&first.log));
    assert_eq!(version().await, before, "{}", read(&first.log));
    second.signal("CONT").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_without_election_does_not_start_beside_one_that_leads() {
    let (cluster, _fixture) = cluster_and_fixture("beside").await;
    let first = Candidate::start(&cluster, "first");
    first.leads().await;
    let mut other = Candidate::start_with(&cluster, "other", &[]);
    assert_eq!(other.end().await, Some(3));
    assert!(
        other.says("another controller is running: first renews Lease"),
        "{}",
        read(&other.log)
    );

    // A Lease that nobody renews is no controller.
    drop(first);
    let alone = Candidate::start_with(&cluster, "alone", &[]);
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "beside");
    let deleted = diagnoses.delete(Fixture::NAME, &DeleteParams::default()).await;
    deleted.unwrap();
    let again = json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": "again" }, "spec": { "serviceName": Fixture::NAME } });
    let again: ServiceDiagnosis = serde_json::from_value(again).unwrap();
    diagnoses
        .create(&kube::api::PostParams::default(), &again)
        .await
        .unwrap();
    eventually("it writes", async || {
        let status = diagnoses.get("again").await.unwrap().status;
        status.filter(|s| !s.conditions.is_empty()).map(drop)
    })
    .await;
    drop(alone);
    cluster.stop().await;
}
