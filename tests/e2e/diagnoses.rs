//! `svcdiag list` and `svcdiag wait`, mostly on a cluster without a controller, so that every status is the one that a test
//! writes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::Fixture,
    kubectl::Kubectl,
};
use tokio::process::Command;

use crate::{
    check::assert_answer,
    harness::{Harness, SOON, svcdiag},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_svcdiag");

/// A cluster in which nothing happens by itself.
async fn cluster() -> Cluster {
    let config = ClusterConfig {
        controllers: false,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let api: Api<Namespace> = Api::all(cluster.client());
    for name in ["shop", "web"] {
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }
    cluster
}

fn diagnoses(client: &Client, namespace: &str) -> Api<ServiceDiagnosis> {
    Api::namespaced(client.clone(), namespace)
}

async fn create(client: &Client, namespace: &str, name: &str, tier: &str) {
    let object = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": name, "labels": { "tier": tier }, "annotations": { "example.org/owner": "us" } },
        "spec": { "serviceName": name },
    });
    let object = serde_json::from_value(object).unwrap();
    let api = diagnoses(client, namespace);
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Writes a verdict on a generation, as the controller would.
async fn write(client: &Client, namespace: &str, name: &str, ready: (&str, &str), generation: i64) {
    let mut status = json!({
        "observedGeneration": generation,
        "conditions": [{ "type": "Ready", "status": ready.0, "reason": ready.1, "message": "It is so.",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation }],
        "summary": { "endpoints": "0/3", "dns": "OK", "proxy": "nftables 2/2", "hairpin": "n/a" },
        "rootCause": null,
    });
    if ready.0 == "False" {
        status["rootCause"] = json!({
            "condition": "EndpointsPopulated", "reason": ready.1, "impact": "All",
            "message": "3 Pods are not ready.", "remediation": "Look at their readiness probes.",
        });
    }
    let patch = Patch::Merge(json!({ "status": status }));
    let patched = diagnoses(client, namespace)
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    patched.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnoses_are_listed_and_what_does_not_work_comes_first() {
    let cluster = cluster().await;
    let client = cluster.client();
    for (namespace, name, tier) in [
        ("shop", "cart", "backend"),
        ("shop", "new", "frontend"),
        ("web", "zebra", "frontend"),
    ] {
        create(&client, namespace, name, tier).await;
    }
    write(&client, "shop", "cart", ("True", "ServiceWorks"), 1).await;
    write(&client, "web", "zebra", ("False", "NoReadyEndpoints"), 1).await;
    let list =
        async |arguments: &[&str]| svcdiag(&[&["list"], arguments].concat(), cluster.kubeconfig_path()).await;
    let rows = async |arguments: &[&str]| {
        let output = list(arguments).await;
        assert_answer(&output, 0, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text
            .lines()
            .map(|line| line.split_whitespace().take(4).map(str::to_owned).collect());
        rows.collect::<Vec<Vec<String>>>()
    };
    assert_eq!(
        rows(&["-A"]).await,
        [
            ["NAMESPACE", "NAME", "READY", "REASON"],
            ["web", "zebra", "False", "NoReadyEndpoints"],
            ["shop", "new", "Unknown", "-"],
            ["shop", "cart", "True", "ServiceWorks"],
        ]
    );
    assert_eq!(
        rows(&[
            "-n",
            "shop",
            "--no-headers",
            "-l",
            "tier in (backend,batch),!canary"
        ])
        .await,
        [["cart", "True", "ServiceWorks", "cart"]]
    );
    assert_answer(
        &list(&["-A", "-o", "wide"]).await,
        0,
        &["MESSAGE", "SINCE", "0/3", "nftables 2/2", "It is so."],
    );
    let names = list(&["-A", "-o", "name"]).await;
    assert_eq!(
        String::from_utf8(names.stdout).unwrap(),
        "servicediagnosis.svcdiag.dev/zebra\nservicediagnosis.svcdiag.dev/new\nservicediagnosis.svcdiag.dev/cart\n"
    );
    let listed: Value = serde_json::from_slice(&list(&["-n", "web", "-o", "json"]).await.stdout).unwrap();
    assert_eq!(
        (&listed["kind"], &listed["apiVersion"]),
        (&json!("List"), &json!("v1"))
    );
    let only = &listed["items"][0];
    assert_eq!(only["kind"], "ServiceDiagnosis");
    assert_eq!(only["status"]["rootCause"]["reason"], "NoReadyEndpoints");
    assert_eq!(only["metadata"]["annotations"]["example.org/owner"], "us");
    let yaml = list(&["-n", "web", "-o", "yaml"]).await;
    assert_answer(&yaml, 0, &["kind: List", "reason: NoReadyEndpoints"]);

    let empty = list(&["-n", "nowhere"]).await;
    assert_answer(
        &empty,
        0,
        &[
            "No ServiceDiagnoses found in namespace nowhere.",
            "svcdiag check -n nowhere",
        ],
    );
    assert_answer(
        &list(&["-l", "tier in backend"]).await,
        3,
        &["--selector \"tier in backend\" is not a label selector"],
    );
    assert_answer(&list(&["-A", "-n", "shop"]).await, 3, &["cannot be used with"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_kind_says_how_to_install_it_and_what_needs_nothing() {
    let no_crds = tempfile::tempdir().unwrap();
    let config = ClusterConfig {
        controllers: false,
        crds: no_crds.path().to_owned(),
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    for arguments in [&["list"][..], &["wait", "web"], &["wait", "--all"]] {
        assert_answer(
            &svcdiag(arguments, cluster.kubeconfig_path()).await,
            3,
            &[
                "ServiceDiagnoses are not installed",
                "docs/install.md",
                "svcdiag check -A",
            ],
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_a_verdict_on_the_present_generation() {
    let cluster = cluster().await;
    let client = cluster.client();
    create(&client, "shop", "cart", "backend").await;
    create(&client, "shop", "web", "frontend").await;
    let waits = |arguments: &'static [&'static str]| {
        let kubeconfig = cluster.kubeconfig_path().to_owned();
        tokio::spawn(async move {
            let arguments = [&["wait", "-n", "shop"], arguments].concat();
            tokio::time::timeout(SOON, svcdiag(&arguments, &kubeconfig))
                .await
                .unwrap()
        })
    };

    // The default status of a new object is no answer.
    let both = waits(&["web", "svcdiag/cart", "--timeout=170s"]);
    write(&client, "shop", "web", ("True", "ServiceWorks"), 1).await;
    write(&client, "shop", "cart", ("False", "NoReadyEndpoints"), 1).await;
    // Long enough to have seen them; the watch is resumed when it is cut.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!both.is_finished());
    if let Some(server) = cluster.embedded() {
        server.drop_watches();
    }
    write(&client, "shop", "cart", ("True", "ServiceWorks"), 1).await;
    assert_answer(
        &both.await.unwrap(),
        0,
        &[
            "servicediagnosis.svcdiag.dev/cart condition met\n",
            "servicediagnosis.svcdiag.dev/web condition met\n",
        ],
    );

    // A change of the spec makes the verdict one on another spec, until there is a new one.
    let patch = Patch::Merge(json!({ "spec": { "intervalSeconds": 30 } }));
    let api = diagnoses(&client, "shop");
    let patched = api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(2));
    assert_answer(
        &waits(&["web", "--timeout=1s"]).await.unwrap(),
        1,
        &[
            "timed out after 1s",
            "no verdict on generation 2 of its spec yet, the last one is on generation 1",
        ],
    );
    let broken = waits(&[
        "-l",
        "tier=frontend",
        "--for=condition=ready=false",
        "--timeout=170s",
    ]);
    write(&client, "shop", "web", ("False", "NoReadyEndpoints"), 2).await;
    assert_answer(&broken.await.unwrap(), 0, &["web condition met"]);
    assert_answer(
        &waits(&["--all", "--timeout=0"]).await.unwrap(),
        1,
        &[
            "error: not met: 1 of 2 ServiceDiagnoses does not have condition=Ready=True",
            "shop/web: Ready is False (NoReadyEndpoints)",
            "Evidence    3 Pods are not ready.",
            "Fix         Look at their readiness probes.",
        ],
    );

    let deleted = waits(&["web", "--timeout=170s"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    api.delete("web", &DeleteParams::default()).await.unwrap();
    assert_answer(&deleted.await.unwrap(), 1, &["shop/web: was deleted"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_the_cluster_and_the_kubeconfig_are_completed() {
    let cluster = cluster().await;
    create(&cluster.client(), "shop", "web", "frontend").await;
    create(&cluster.client(), "web", "cart", "backend").await;
    let directory = tempfile::tempdir().unwrap();
    let completer = directory.path().join("kubectl_complete-svcdiag");
    std::os::unix::fs::symlink(PROGRAM, &completer).unwrap();
    let complete = async |line: &str| {
        let mut command = Command::new(&completer);
        let command = command
            .args(line.split(' '))
            .env("KUBECONFIG", cluster.kubeconfig_path());
        String::from_utf8(command.output().await.unwrap().stdout).unwrap()
    };
    assert_eq!(complete("wait -n shop ").await, "web\n:4\n");
    assert_eq!(
        complete("wait --namespace=web svcdiag/").await,
        "svcdiag/cart\n:4\n"
    );
    assert_eq!(complete("check -n default kub").await, "kubernetes\n:4\n");
    assert_eq!(complete("list --namespace sh").await, "shop\n:4\n");
    let file = std::fs::read_to_string(cluster.kubeconfig_path()).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let context = file["current-context"].as_str().unwrap();
    assert_eq!(complete("list --context ").await, format!("{context}\n:4\n"));
    // What cannot be reached has no names, and no error either.
    assert_eq!(complete("wait --kubeconfig /nowhere ").await, ":4\n");

    // As kubectl itself asks, for which the program is a plugin.
    std::os::unix::fs::symlink(PROGRAM, directory.path().join("kubectl-svcdiag")).unwrap();
    let kubectl = Kubectl::find()
        .await
        .unwrap()
        .with_kubeconfig(cluster.kubeconfig_path());
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut asked = kubectl.command(&["__complete", "svcdiag", "wait", "-n", "shop", ""]);
    let output = asked.env("PATH", path).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("web\n") && text.contains(":4"), "{text}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_the_controller_finds_the_fault() {
    let harness = Harness::start().await;
    let _fixture = harness.fixture("gate").await;
    let scale = ["-n", "gate", "scale", "deployment", Fixture::NAME, "--replicas=0"];
    harness.kubectl.run(&scale).await.unwrap();
    let on = async |arguments: &[&str]| harness.svcdiag(&[arguments, &["-n", "gate"]].concat()).await;
    let found = on(&[
        "wait",
        Fixture::NAME,
        "--for=condition=Ready=False",
        "--timeout=170s",
    ])
    .await;
    assert_answer(&found, 0, &["hostnames condition met"]);
    assert_answer(
        &on(&["wait", "--all", "--timeout=0"]).await,
        1,
        &[
            "gate/hostnames: Ready is False (ScaledToZero)",
            "Root cause  EndpointsPopulated / ScaledToZero",
        ],
    );
    assert_answer(
        &on(&["list", "--no-headers"]).await,
        0,
        &["hostnames   False   ScaledToZero"],
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_nothing_is_a_usage_error() {
    let cluster = cluster().await;
    create(&cluster.client(), "shop", "web", "frontend").await;
    let wait =
        async |arguments: &[&str]| svcdiag(&[&["wait"], arguments].concat(), cluster.kubeconfig_path()).await;
    for (arguments, parts) in [
        (
            &["wbe", "-n", "shop"][..],
            &[
                "ServiceDiagnosis wbe does not exist in namespace shop",
                "svcdiag list -n shop",
            ][..],
        ),
        (
            &["-l", "tier=backend", "-n", "shop"],
            &["no ServiceDiagnosis in namespace shop with labels tier=backend"],
        ),
        (
            &["--all", "-n", "nowhere"],
            &["no ServiceDiagnosis in namespace nowhere"],
        ),
        (&["-l", "a in b"], &["is not a label selector"]),
        (&[], &["NAME"]),
        (&["web", "--all"], &["cannot be used with"]),
        (&["web", "--for=condition=Available"], &["EndpointsPopulated"]),
        (&["web", "--timeout=soon"], &["30s"]),
    ] {
        assert_answer(&wait(arguments).await, 3, parts);
    }
    if let Some(server) = cluster.embedded() {
        server.store().deny(&["servicediagnoses"]);
        assert_answer(
            &wait(&["web", "-n", "shop"]).await,
            3,
            &["not allowed to get ServiceDiagnosis web", "kubectl auth can-i"],
        );
    }
    cluster.stop().await;
}
