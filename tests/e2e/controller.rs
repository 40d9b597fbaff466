//! How the controller behaves as a program: rest, restarts, limits, metrics, shutdown.

use std::{process::Stdio, time::Duration};

use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use svcdiag::api::{ServiceDiagnosis, ServiceDiagnosisSpec};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fixture, Verdict},
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Harness, SOON, eventually};

async fn version(harness: &Harness, namespace: &str) -> String {
    let api = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), namespace);
    api.get(Fixture::NAME)
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_at_rest_nor_after_a_restart() {
    let mut harness = Harness::start().await;
    let fixture = harness.fixture("rest").await;
    let api = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), "rest");
    let patch = json!({ "spec": { "intervalSeconds": 10 } });
    api.patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    harness.wait(&fixture, "current", Verdict::is_healthy).await;
    let before = version(&harness, "rest").await;
    let unchanged = r#"svcdiag_reconciles_total{outcome="Unchanged"}"#;
    let rounds = harness.metric(unchanged).await.unwrap_or_default();
    // One interval, a tenth more at most.
    eventually("another round", async || {
        harness.metric(unchanged).await.filter(|now| *now > rounds)
    })
    .await;
    assert_eq!(version(&harness, "rest").await, before);
    harness.restart_controller(&[]).await;
    eventually("a round after the restart", async || {
        harness.metric(unchanged).await
    })
    .await;
    assert_eq!(version(&harness, "rest").await, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let harness = Harness::start().await;
    harness.fixture("seen").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            harness.http(path).await,
            ("HTTP/1.1 200 OK".to_owned(), "ok".to_owned())
        );
    }
    let ready = r#"svcdiag_ready{namespace="seen",name="hostnames",reason="NoVantagePoint"}"#;
    let value = eventually("the metric of the diagnosis", async || {
        harness.metric(ready).await
    })
    .await;
    assert!(value.abs() < f64::EPSILON);
    for counter in [
        r#"svcdiag_reconciles_total{outcome="Written"}"#,
        "svcdiag_status_writes_total",
        "svcdiag_reconcile_duration_seconds_count",
        "svcdiag_verdict_duration_seconds_count",
        "svcdiag_diagnoses",
    ] {
        assert!(
            harness.metric(counter).await.is_some_and(|n| n > 0.0),
            "{counter}"
        );
    }
    harness.stop().await;
}

async fn create(harness: &Harness, namespace: &str, name: &str) -> Api<ServiceDiagnosis> {
    let api = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), namespace);
    let diagnosis = ServiceDiagnosis::new(name, ServiceDiagnosisSpec::for_service(Fixture::NAME));
    api.create(&PostParams::default(), &diagnosis).await.unwrap();
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_for_tenants_hold() {
    let arguments = ["--max-diagnoses-per-namespace=1", "--namespace=bound"];
    let harness = Harness::start_with(&arguments).await;
    harness.fixture("bound").await;
    // Seconds decide which is older.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let api = create(&harness, "bound", "second").await;
    let ready = async |api: &Api<ServiceDiagnosis>, name: &str| {
        let status = api.get(name).await.unwrap().status?;
        status.conditions.into_iter().find(|c| c.type_ == "Ready")
    };
    let told = eventually("a status", async || ready(&api, "second").await).await;
    assert_eq!(
        (told.status.as_str(), told.reason.as_str()),
        ("Unknown", "Pending")
    );
    assert!(
        told.message.contains("--max-diagnoses-per-namespace"),
        "{}",
        told.message
    );
    // The first one makes room.
    api.delete(Fixture::NAME, &Default::default()).await.unwrap();
    eventually("judged now", async || {
        ready(&api, "second")
            .await
            .filter(|r| r.reason == "NoVantagePoint")
    })
    .await;
    // Another namespace is none of its business.
    let fixture = Fixture::new(harness.cluster.client(), "elsewhere");
    fixture.set_up().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.verdict().await.unwrap().conditions().is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_of_a_labelled_namespace_is_diagnosed() {
    let harness = Harness::start().await;
    let kubectl = async |arguments: &[&str]| {
        let all = [&["-n", "auto"], arguments].concat();
        harness.kubectl.run(&all).await
    };
    let manifests = "
apiVersion: v1
kind: Namespace
metadata: {name: auto, labels: {svcdiag.dev/auto: 'true'}}
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: auto}
spec: {selector: {app: one}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: auto, annotations: {svcdiag.dev/auto: 'false'}}
spec: {selector: {app: one}, ports: [{port: 80}]}
";
    harness
        .kubectl
        .run_with_input(&["apply", "-f", "-"], manifests)
        .await
        .unwrap();
    eventually("the root cause of the automatic diagnosis", async || {
        let table = kubectl(&["get", "svcdiag", "one"]).await.ok()?;
        table.contains("SelectorMatchesNoPods").then_some(())
    })
    .await;
    assert!(kubectl(&["get", "svcdiag", "out"]).await.is_err());
    kubectl(&["annotate", "service", "one", "svcdiag.dev/auto=false"])
        .await
        .unwrap();
    eventually("opting out takes the diagnosis away", async || {
        kubectl(&["get", "svcdiag", "one"]).await.err()
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_in_good_order_and_a_wrong_flag_at_once() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let controller = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_svcdiag"));
        command
            .arg("controller")
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig_path())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    };
    for signal in ["-TERM", "-INT"] {
        let mut child = controller(&["--listen=127.0.0.1:0"]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut logged = String::new();
        while !logged.contains("address=") {
            let line = tokio::time::timeout(SOON, log.next_line()).await.unwrap();
            logged.push_str(&line.unwrap().expect("it ended by itself"));
        }
        let pid = child.id().unwrap().to_string();
        let killed = tokio::process::Command::new("kill").args([signal, &pid]).status();
        assert!(killed.await.unwrap().success());
        let rest = async {
            while let Some(line) = log.next_line().await.unwrap() {
                logged.push_str(&line);
            }
            child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(SOON, rest).await.unwrap();
        assert!(
            status.success() && logged.contains("has stopped"),
            "{signal}: {logged}"
        );
    }
    let refused = controller(&["--listen=nowhere"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let refused = controller(&[&listen]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("choose another address with --listen"), "{told}");
    cluster.stop().await;
}
