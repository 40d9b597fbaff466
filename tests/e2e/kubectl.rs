//! An unmodified kubectl on our kinds: what a user types, and what comes back.

use std::process::Stdio;

use serde_json::{Value, json};
use svcdiag_sandbox::{
    faults::{Fixture, Verdict},
    kubectl::{Error, Kubectl},
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Harness, SOON, eventually};

const NAMESPACE: &str = "typed";

/// A kubectl and the namespace it works in.
struct User<'a> {
    kubectl: &'a Kubectl,
}

impl User<'_> {
    async fn types(&self, line: &str) -> String {
        self.tries(line, "").await.unwrap()
    }

    async fn applies(&self, arguments: &str, manifest: &Value) -> Result<String, Error> {
        self.tries(&format!("apply {arguments} -f -"), &manifest.to_string())
            .await
    }

    /// The arguments are split at spaces; none of ours has one.
    async fn tries(&self, line: &str, input: &str) -> Result<String, Error> {
        let arguments: Vec<&str> = ["-n", NAMESPACE]
            .into_iter()
            .chain(line.split_whitespace())
            .collect();
        self.kubectl.run_with_input(&arguments, input).await
    }

    async fn status(&self) -> Value {
        let text = self.types("get svcdiag hostnames -o json").await;
        serde_json::from_str(&text).unwrap()
    }
}

fn diagnosis(spec: &Value) -> Value {
    json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": "hostnames", "namespace": NAMESPACE }, "spec": spec,
    })
}

fn message(result: Result<String, Error>) -> String {
    match result {
        Err(Error::Failed { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_types_works() {
    let harness = Harness::start().await;
    println!(
        "kubectl {} on {}",
        harness.kubectl.version(),
        harness.cluster.describe()
    );
    let fixture = Fixture::new(harness.cluster.client(), NAMESPACE);
    fixture.set_up().await.unwrap();
    let user = User {
        kubectl: &harness.kubectl,
    };
    user.types("delete svcdiag hostnames").await;
    applying(&user).await;
    harness.wait(&fixture, "healthy", Verdict::is_healthy).await;
    reading(&user).await;
    patching(&harness, &fixture, &user).await;
    waiting(&user).await;
    probes(&user).await;
    deleting(&harness, &user).await;
    harness.stop().await;
}

/// Client-side and server-side, twice and with a change.
async fn applying(user: &User<'_>) {
    let first = diagnosis(&json!({ "serviceName": "hostnames" }));
    let second = diagnosis(&json!({ "serviceName": "hostnames", "intervalSeconds": 30 }));
    let told = async |arguments: &str, manifest: &Value| user.applies(arguments, manifest).await.unwrap();
    assert!(told("", &first).await.ends_with("created\n"));
    assert!(told("", &first).await.ends_with("unchanged\n"));
    assert!(told("", &second).await.ends_with("configured\n"));
    user.types("delete svcdiag hostnames").await;
    for manifest in [&first, &first, &second] {
        assert!(
            told("--server-side", manifest)
                .await
                .ends_with("serverside-applied\n")
        );
    }
    let applied = user.status().await;
    assert_eq!(applied["spec"]["intervalSeconds"], 30);
    // The same by another manager is a conflict, and names the field.
    let third = diagnosis(&json!({ "serviceName": "hostnames", "intervalSeconds": 20 }));
    let refusal = message(user.applies("--server-side --field-manager=other", &third).await);
    assert!(refusal.contains(".spec.intervalSeconds"), "{refusal}");
}

async fn reading(user: &User<'_>) {
    let table = user.types("get svcdiag").await;
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    let expected = [
        "NAME",
        "READY",
        "REASON",
        "SERVICE",
        "ENDPOINTS",
        "DNS",
        "PROXY",
        "HAIRPIN",
        "AGE",
    ];
    assert_eq!(columns, expected);
    // The reason is there as well while nothing is known to fail.
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        cells[..5],
        ["hostnames", "Unknown", "NoVantagePoint", "hostnames", "3/3"],
        "{table}"
    );
    let wide = user.types("get svcdiag hostnames -o wide").await;
    let columns: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns[expected.len()..], ["MESSAGE", "MODE", "SINCE"]);
    let status = user.status().await;
    let ready = status["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Ready");
    assert!(
        wide.contains(ready.unwrap()["message"].as_str().unwrap()),
        "{wide}"
    );
    let yaml = user.types("get servicediagnosis/hostnames -o yaml").await;
    for part in [
        "kind: ServiceDiagnosis",
        "type: ServiceExists",
        "reason: ServiceFound",
    ] {
        assert!(yaml.contains(part), "{part} is not in:\n{yaml}");
    }
    let described = user.types("describe svcdiag hostnames").await;
    assert!(
        described.contains("ServiceFound") && described.contains("NoVantagePoint"),
        "{described}"
    );
    let explained = user.types("explain svcdiag.spec.intervalSeconds").await;
    assert!(explained.contains("intervalSeconds <integer>"), "{explained}");
    let explained = user.types("explain svcdiag").await;
    assert!(
        explained.contains("ServiceDiagnosis") && explained.contains("FIELDS:"),
        "{explained}"
    );
    let by_category = user
        .types("get svcdiag --field-selector metadata.name=hostnames -o name")
        .await;
    assert_eq!(by_category, "servicediagnosis.svcdiag.dev/hostnames\n");
}

/// All kinds of patches, and what they lead to.
async fn patching(harness: &Harness, fixture: &Fixture, user: &User<'_>) {
    user.types(r#"patch svcdiag hostnames --type=merge -p {"spec":{"skip":["HairpinOK"]}}"#)
        .await;
    let skipped = |v: &Verdict| v.condition("HairpinOK").is_some_and(|c| c.reason == "Skipped");
    harness
        .wait(fixture, "without the stage HairpinOK", skipped)
        .await;
    user.types(r#"patch svcdiag hostnames --type=json -p [{"op":"remove","path":"/spec/skip"}]"#)
        .await;
    harness
        .wait(fixture, "with the stage HairpinOK", |v| !skipped(v))
        .await;
    // Strategic: the port is found by its number, the other fields stay.
    user.types(r#"patch service hostnames -p {"spec":{"ports":[{"port":80,"targetPort":"web"}]}}"#)
        .await;
    harness
        .wait(fixture, "without the port web", |v| {
            v.broken_stages() == ["DefinitionValid"]
        })
        .await;
    let described = user.types("describe svcdiag hostnames").await;
    assert!(
        described.contains("Warning  NamedPortNotFound"),
        "no Event in:\n{described}"
    );
    user.types(r#"patch service hostnames -p {"spec":{"ports":[{"port":80,"targetPort":9376}]}}"#)
        .await;
    harness.wait(fixture, "healthy", Verdict::is_healthy).await;
}

async fn waiting(user: &User<'_>) {
    user.types("wait --for=condition=EndpointsPopulated svcdiag/hostnames --timeout=180s")
        .await;
    let mut watch = user
        .kubectl
        .command(&["-n", NAMESPACE, "get", "svcdiag", "-w"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    user.types("scale deployment hostnames --replicas=0").await;
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("ScaledToZero") {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(SOON, told)
        .await
        .expect("get -w does not show the verdict");
    watch.kill().await.unwrap();
    user.types("wait --for=condition=Ready=False svcdiag/hostnames --timeout=180s")
        .await;
    user.types("scale deployment hostnames --replicas=3").await;
    user.types("wait --for=condition=Ready=Unknown svcdiag/hostnames --timeout=180s")
        .await;
    let none = tokio::time::timeout(
        SOON,
        user.tries("wait --for=condition=Ready svcdiag/hostnames --timeout=1s", ""),
    );
    assert!(message(none.await.unwrap()).contains("timed out waiting"));
}

async fn probes(user: &User<'_>) {
    // Of a diagnosis that is not there: those of one that is are the controller's to keep in order.
    for node in ["sandbox-0", "sandbox-1"] {
        let probe = json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": format!("hostnames-{node}") },
            "spec": {
                "nodeName": node, "serviceName": "hostnames", "intervalSeconds": 60,
                "diagnosis": { "name": "another", "uid": "u" },
            },
        });
        user.applies("", &probe).await.unwrap();
    }
    let found = user
        .types("get nodeprobes --field-selector spec.nodeName=sandbox-1 -o name")
        .await;
    assert_eq!(found, "nodeprobe.svcdiag.dev/hostnames-sandbox-1\n");
    let moved = user
        .tries(
            r#"patch nprobe hostnames-sandbox-1 --type=merge -p {"spec":{"nodeName":"other"}}"#,
            "",
        )
        .await;
    assert!(message(moved).contains("spec.nodeName"));
}

/// What a Service or a Deployment owns goes with it.
async fn deleting(harness: &Harness, user: &User<'_>) {
    user.types(&format!("label namespace {NAMESPACE} svcdiag.dev/auto=true"))
        .await;
    let cart = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "cart" },
        "spec": { "selector": { "app": "cart" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    user.applies("", &cart).await.unwrap();
    eventually("a diagnosis of the new Service", async || {
        user.tries("get svcdiag cart", "").await.ok()
    })
    .await;
    user.types("delete service cart").await;
    eventually("the diagnosis goes with its Service", async || {
        user.tries("get svcdiag cart", "").await.err()
    })
    .await;
    user.types("delete deployment hostnames").await;
    eventually("the Pods go with their Deployment", async || {
        let left = user.types("get pods -l app=hostnames -o name").await;
        left.is_empty().then_some(())
    })
    .await;
    // The user's own diagnosis is not the controller's to delete.
    user.types(&format!("label namespace {NAMESPACE} svcdiag.dev/auto-"))
        .await;
    user.types("get svcdiag hostnames").await;
    user.types("delete svcdiag hostnames").await;
    let line = format!("svcdiag_ready{{namespace=\"{NAMESPACE}\",name=\"hostnames\"");
    eventually("the metric goes with the diagnosis", async || {
        harness.metric(&line).await.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_spec_is_refused_and_the_field_named() {
    let harness = Harness::start().await;
    let fixture = Fixture::new(harness.cluster.client(), NAMESPACE);
    fixture.set_up().await.unwrap();
    let user = User {
        kubectl: &harness.kubectl,
    };
    let cases = [
        (
            json!({ "serviceName": "hostnames", "servicename": "x" }),
            "spec.servicename",
        ),
        (json!({}), "spec.serviceName"),
        (json!({ "serviceName": "" }), "spec.serviceName"),
        (
            json!({ "serviceName": "hostnames", "intervalSeconds": 0 }),
            "spec.intervalSeconds",
        ),
        (
            json!({ "serviceName": "hostnames", "intervalSeconds": "soon" }),
            "intervalSeconds",
        ),
        (
            json!({ "serviceName": "hostnames", "skip": ["Hairpin"] }),
            "spec.skip[0]",
        ),
        (
            json!({ "serviceName": "hostnames", "ports": ["80"] }),
            "spec.ports[0]",
        ),
        (
            json!({ "serviceName": "hostnames", "ports": [0] }),
            "spec.ports[0]",
        ),
        (
            json!({ "serviceName": "hostnames", "probe": { "http": { "path": "health" } } }),
            "spec.probe.http.path",
        ),
        (
            json!({ "serviceName": "hostnames", "probe": { "http": { "path": "/", "scheme": "ftp" } } }),
            "spec.probe.http.scheme",
        ),
    ];
    let refused = async |how: &str, manifest: &Value, field: &str| {
        let refusal = message(user.applies(how, manifest).await);
        assert!(
            refusal.contains(field),
            "{field} is not named for {manifest} {how}: {refusal}"
        );
    };
    for (spec, field) in cases {
        let mut manifest = diagnosis(&spec);
        manifest["metadata"]["name"] = json!("bad");
        for how in ["", "--server-side"] {
            refused(how, &manifest, field).await;
        }
    }
    let other = diagnosis(&json!({ "serviceName": "other" }));
    refused("", &other, "spec.serviceName").await;
    refused("--server-side --force-conflicts", &other, "spec.serviceName").await;
    harness.stop().await;
}
