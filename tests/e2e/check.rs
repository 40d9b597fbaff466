//! `svcdiag check` on a cluster: answers, exit codes and what it says when it may not read.

use std::process::Output;

use serde_json::Value;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fixture, catalogue},
    kubectl::Kubectl,
};

use crate::{
    harness::{Harness, svcdiag},
    rights::kubeconfig_of,
};

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The exit code, and what is printed to either stream.
#[track_caller]
pub(crate) fn assert_answer(output: &Output, code: i32, parts: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_that_of_the_controller() {
    let harness = Harness::start().await;
    let fixture = harness.fixture("check").await;
    let check = async |arguments: &[&str]| {
        let all = [&["check", Fixture::NAME, "-n", "check"], arguments].concat();
        harness.svcdiag(&all).await
    };
    let faultless = "No fault in the API objects, but the data path was not probed";
    assert_answer(&check(&[]).await, 2, &[faultless]);
    assert_answer(&check(&["--api-only"]).await, 0, &["ServiceExists"]);

    for id in ["A04", "A08", "A10", "A19", "A01"] {
        let fault = catalogue().unwrap().into_iter().find(|f| f.id == id).unwrap();
        fault.inject(&fixture).await.unwrap();
        harness
            .wait(&fixture, &fault.title, |v| fault.expected.is_met_by(v))
            .await;
        let output = check(&["-o", "json"]).await;
        assert_answer(&output, 1, &[]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let arguments = ["-n", "check", "get", "svcdiag", Fixture::NAME, "-o", "json"];
        let written: Value = serde_json::from_str(&harness.kubectl.run(&arguments).await.unwrap()).unwrap();
        for field in ["condition", "reason", "message", "remediation", "impact"] {
            assert_eq!(
                found["status"]["rootCause"][field], written["status"]["rootCause"][field],
                "{id}"
            );
        }
        let table = check(&["-o", "wide"]).await;
        let cause = &found["status"]["rootCause"];
        assert_answer(
            &table,
            1,
            &[
                cause["condition"].as_str().unwrap(),
                cause["reason"].as_str().unwrap(),
                cause["remediation"].as_str().unwrap(),
            ],
        );
        assert!(!text(&table).contains('\u{1b}'), "colours in a pipe");
        fault.undo(&fixture).await.unwrap();
        fixture.wait_until_settled().await.unwrap();
    }
    let ports = check(&["--ports", "8080", "-o", "yaml"]).await;
    assert_answer(&ports, 1, &["reason: PortNotListed"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_until_the_service_works() {
    let harness = Harness::start().await;
    let fixture = harness.fixture("patience").await;
    let fault = catalogue().unwrap().into_iter().find(|f| f.id == "A08").unwrap();
    fault.inject(&fixture).await.unwrap();
    let check = async |timeout: &str| {
        let arguments = [
            "check",
            Fixture::NAME,
            "-n",
            "patience",
            "--api-only",
            "--wait",
            "--timeout",
            timeout,
        ];
        harness.svcdiag(&arguments).await
    };
    assert_answer(&check("3s").await, 1, &["SelectorMatchesNoPods"]);
    let mend = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        fault.undo(&fixture).await.unwrap();
    };
    let (output, ()) = tokio::join!(check("120s"), mend);
    // Only the last answer is printed.
    assert_answer(&output, 0, &["3 of 3 endpoints are ready"]);
    assert!(
        !text(&output).contains("SelectorMatchesNoPods"),
        "{}",
        text(&output)
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_names_the_clients_by_its_labels() {
    let harness = Harness::start().await;
    harness.fixture("named").await;
    let first = [
        "-n",
        "named",
        "get",
        "pods",
        "-l",
        "app=hostnames",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    let pod = harness.kubectl.run(&first).await.unwrap();
    let check = async |from: &str| {
        harness
            .svcdiag(&[
                "check",
                Fixture::NAME,
                "-n",
                "named",
                "--from",
                from,
                "-o",
                "json",
            ])
            .await
    };
    let output = check(&format!("pod/{}", pod.trim())).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let labels = &found["spec"]["clients"]["podSelector"]["matchLabels"];
    assert_eq!(labels["app"], "hostnames", "{found:#}");
    let nobody = "there is no Pod nobody in namespace named";
    assert_answer(&check("nobody").await, 3, &[nobody]);
    assert_answer(&check("other/pod").await, 3, &["--client-namespace"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_access_it_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("kubeconfig");
    let output = svcdiag(&["check", "web"], &nobody).await;
    assert_answer(&output, 3, &["kubeconfig"]);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&nobody, config).unwrap();
    assert_answer(
        &svcdiag(&["check", "web"], &nobody).await,
        3,
        &[
            "the connection to the server http://127.0.0.1:",
            "(context c) was refused",
        ],
    );
    assert_answer(&svcdiag(&["collect"], &nobody).await, 3, &["<SERVICE>"]);
    assert_answer(
        &svcdiag(&["check", "Web"], &nobody).await,
        3,
        &["Web", "is not a valid name for a Service"],
    );
    assert_answer(
        &svcdiag(&["check", "--help"], &nobody).await,
        0,
        &["Exit codes", "Examples"],
    );
}

const NO_SERVICES: [&str; 2] = [
    "not allowed to list services in namespace rights",
    "kubectl auth can-i list services -n rights",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_with_the_command_to_ask_for_it() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "rights");
    fixture.set_up().await.unwrap();
    let admin = Kubectl::find()
        .await
        .unwrap()
        .with_kubeconfig(cluster.kubeconfig_path());
    let restricted = match cluster.embedded() {
        Some(server) => {
            server.store().deny(&["services"]);
            cluster.kubeconfig_path().to_owned()
        }
        None => {
            admin
                .run(&["create", "serviceaccount", "reader", "-n", "rights"])
                .await
                .unwrap();
            kubeconfig_of(&cluster, &admin, "rights", "reader").await
        }
    };
    let check = async || {
        svcdiag(
            &["check", Fixture::NAME, "-n", "rights", "-o", "wide"],
            &restricted,
        )
        .await
    };
    assert_answer(&check().await, 3, &NO_SERVICES);

    match cluster.embedded() {
        Some(server) => server.store().deny(&["networkpolicies"]),
        None => let_reader_read(&admin).await,
    }
    // What it may not read is a gap, not an error and never a fault.
    assert_answer(&check().await, 2, &["not allowed to list networkpolicies"]);
    cluster.stop().await;
}

/// The three rights without which nothing can be said.
async fn let_reader_read(kubectl: &Kubectl) {
    let resources = "--resource=services,pods,endpointslices.discovery.k8s.io";
    let role = [
        "create",
        "role",
        "read",
        "-n",
        "rights",
        "--verb=get,list",
        resources,
    ];
    kubectl.run(&role).await.unwrap();
    let account = "--serviceaccount=rights:reader";
    let binding = [
        "create",
        "rolebinding",
        "read",
        "-n",
        "rights",
        "--role=read",
        account,
    ];
    kubectl.run(&binding).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_has_a_line_and_what_does_not_work_comes_first() {
    let harness = Harness::start().await;
    let _fixture = harness.fixture("survey").await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: zebra, namespace: survey}\nspec: {selector: {app: zebra}, ports: [{port: 80}]}\n";
    let apply = ["apply", "-f", "-"];
    harness.kubectl.run_with_input(&apply, service).await.unwrap();
    let check = async |arguments: &[&str]| harness.svcdiag(&[&["check"], arguments].concat()).await;

    let all = check(&["-n", "survey"]).await;
    assert_answer(
        &all,
        1,
        &["2 Services in namespace survey: 1 does not work, 1 unknown."],
    );
    let table = String::from_utf8(all.stdout.clone()).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0][..4],
        ["SERVICE", "READY", "REASON", "ENDPOINTS"],
        "{table}"
    );
    assert_eq!(
        rows[1][..3],
        ["zebra", "False", "SelectorMatchesNoPods"],
        "{table}"
    );
    assert_eq!(rows[2][..2], [Fixture::NAME, "Unknown"], "{table}");
    assert_eq!(rows.len(), 3, "{table}");

    // The answer of a single Service is the same.
    let listed: Value = serde_json::from_slice(&check(&["-A", "-o", "json"]).await.stdout).unwrap();
    assert_eq!(listed["kind"], "List");
    let items = listed["items"].as_array().unwrap();
    let of = |name: &str| {
        let is_it = |item: &&Value| item["spec"]["serviceName"] == name;
        items
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{name} is not listed"))
    };
    assert_eq!(of("kubernetes")["metadata"]["namespace"], "default");
    for name in ["zebra", Fixture::NAME] {
        let single = check(&[name, "-n", "survey", "-o", "json"]).await;
        let single: Value = serde_json::from_slice(&single.stdout).unwrap();
        let reasons = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().unwrap().clone();
            conditions
                .into_iter()
                .map(|c| (c["type"].clone(), c["reason"].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(reasons(of(name)), reasons(&single), "{name}");
        assert_eq!(
            of(name)["status"]["rootCause"],
            single["status"]["rootCause"],
            "{name}"
        );
    }

    assert_answer(
        &check(&["-n", "survey", "--fail-on", "never"]).await,
        0,
        &["zebra"],
    );
    assert_answer(
        &check(&["-A", "-o", "junit"]).await,
        1,
        &["<testsuite name=\"survey/zebra\""],
    );
    assert_answer(
        &check(&["-A", "-o", "html"]).await,
        1,
        &["<span class=\"name\">survey/zebra</span>"],
    );
    assert_answer(
        &check(&["-n", "surfey"]).await,
        3,
        &["namespace surfey does not exist"],
    );
    let nowhere = check(&["zebra", "-n", "surfey"]).await;
    assert_answer(
        &nowhere,
        1,
        &["note: namespace surfey does not exist", "ServiceNotFound"],
    );
    let empty = check(&["-n", "kube-node-lease"]).await;
    assert_answer(&empty, 0, &["No Services found in namespace kube-node-lease."]);
    assert_answer(&check(&["--ports", "80"]).await, 3, &["SERVICE"]);
    assert_answer(&check(&["-A", "zebra"]).await, 3, &["cannot be used with"]);
}
