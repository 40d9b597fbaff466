//! Reports of OpenReports: written where the flag is set and the kind is served, by the leader alone, and never without the flag.

use std::path::Path;

use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use svcdiag::api::{ConditionType, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fault, Fixture, Verdict, catalogue},
    kubectl::Kubectl,
    svcdiag::Controller,
};

use crate::{
    harness::{Harness, at_rest, eventually},
    rights::{granted_by, kubeconfig_of},
};

const FLAG: &str = "--open-reports";

/// As much of the kind as the controller writes. Unknown fields would be refused.
fn kind() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer" });
    let object = |properties: Value| json!({ "type": "object", "properties": properties });
    let result = object(json!({
        "policy": text(), "rule": text(), "category": text(), "message": text(),
        "severity": { "type": "string", "enum": ["critical", "high", "medium", "low", "info"] },
        "result": { "type": "string", "enum": ["pass", "fail", "warn", "error", "skip"] },
        "properties": { "type": "object", "additionalProperties": text() },
        "timestamp": { "type": "object", "required": ["nanos", "seconds"],
            "properties": { "nanos": number(), "seconds": number() } },
    }));
    let schema = object(json!({
        "source": text(),
        "scope": object(json!({ "apiVersion": text(), "kind": text(), "namespace": text(), "name": text() })),
        "summary": object(json!({ "pass": number(), "fail": number(), "warn": number(), "error": number(), "skip": number() })),
        "results": { "type": "array", "items": result },
    }));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "reports.openreports.io" },
        "spec": {
            "group": "openreports.io", "scope": "Namespaced",
            "names": { "kind": "Report", "listKind": "ReportList", "plural": "reports", "singular": "report" },
            "versions": [{ "name": "v1alpha1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

async fn serve_the_kind(harness: &Harness) {
    let apply = ["apply", "--server-side", "-f", "-"];
    let applied = harness.kubectl.run_with_input(&apply, &kind().to_string()).await;
    applied.unwrap();
}

fn reports(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report");
    Api::namespaced_with(cluster.client(), namespace, &ApiResource::from_gvk(&kind))
}

/// The Report of the fixture's diagnosis, once a test holds for it.
async fn report(
    harness: &Harness,
    namespace: &str,
    what: &str,
    test: impl Fn(&Value) -> bool,
) -> DynamicObject {
    let api = reports(&harness.cluster, namespace);
    eventually(what, async || {
        let found = api.get(&format!("svcdiag-{}", Fixture::NAME)).await.ok()?;
        test(&found.data).then_some(found)
    })
    .await
}

fn result<'a>(report: &'a DynamicObject, rule: &str) -> &'a Value {
    let results = report.data["results"].as_array().unwrap();
    results.iter().find(|result| result["rule"] == rule).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_follows_the_verdict_and_goes_with_the_diagnosis() {
    let harness = Harness::start_with(&[FLAG]).await;
    serve_the_kind(&harness).await;
    let fixture = harness.fixture("reported").await;
    let healthy = report(&harness, "reported", "a Report", |data| {
        data["summary"]["pass"] != json!(0)
    })
    .await;
    assert_eq!(healthy.data["summary"]["fail"], json!(0));
    assert_eq!(healthy.data["scope"]["name"], Fixture::NAME);
    assert_eq!(
        healthy.metadata.labels.as_ref().unwrap()["app.kubernetes.io/managed-by"],
        "svcdiag"
    );

    let faults = catalogue().unwrap();
    let fault: &Fault = faults.iter().find(|fault| fault.id == "A08").unwrap();
    fault.inject(&fixture).await.unwrap();
    let broken = report(&harness, "reported", "the fault", |data| {
        data["summary"]["fail"] != json!(0)
    })
    .await;
    harness
        .wait(&fixture, "broken", |v| fault.expected.is_met_by(v))
        .await;
    let endpoints = result(&broken, "EndpointsPopulated");
    assert_eq!(endpoints["result"], "fail");
    assert_eq!(endpoints["severity"], "critical");
    assert_eq!(endpoints["properties"]["reason"], "SelectorMatchesNoPods");
    let diagnoses = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), "reported");
    let status = diagnoses.get(Fixture::NAME).await.unwrap().status.unwrap();
    let condition = status.condition(ConditionType::EndpointsPopulated).unwrap();
    assert_eq!(endpoints["message"], condition.message);
    let fix = endpoints["properties"]["fix"].as_str().unwrap();
    assert!(fix.contains("kubectl"), "{fix}");

    // At rest it is left alone.
    let version = async || {
        let report = report(&harness, "reported", "a Report", |_| true).await;
        report.metadata.resource_version
    };
    at_rest(&version).await;
    fault.undo(&fixture).await.unwrap();
    harness.wait(&fixture, "healthy", Verdict::is_healthy).await;
    report(&harness, "reported", "no fault", |data| {
        data["summary"]["fail"] == json!(0)
    })
    .await;

    diagnoses
        .delete(Fixture::NAME, &DeleteParams::default())
        .await
        .unwrap();
    let api = reports(&harness.cluster, "reported");
    eventually("it goes with its owner", async || {
        let left = api.list(&Default::default()).await.ok()?;
        left.items.is_empty().then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_kind_the_log_says_so_once_and_verdicts_are_written() {
    let harness = Harness::start_with(&[FLAG]).await;
    for namespace in ["first", "second"] {
        harness.fixture(namespace).await;
    }
    let said = eventually("it is said", async || {
        Some(harness.log()).filter(|log| log.contains("does not serve the kind Report"))
    })
    .await;
    assert_eq!(said.matches("does not serve the kind").count(), 1, "{said}");
    let refused = r#"svcdiag_api_requests_total{verb="PATCH",code="404"}"#;
    let asked = at_rest(async || harness.metric(refused).await).await;
    assert!(asked.is_some_and(|count| count <= 2.0), "{asked:?}");
    harness.stop().await;
}

/// Without the flag no right of that API is made use of: `rights` sees to that.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_suffices_and_grants_no_more() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let Some(server) = cluster.embedded() else {
        println!("which rights are made use of is for the embedded server to say");
        return;
    };
    let kubectl = Kubectl::find().await.unwrap();
    let kubectl = kubectl.with_kubeconfig(cluster.kubeconfig_path());
    let apply = ["apply", "--server-side", "-f", "-"];
    kubectl.run_with_input(&apply, &kind().to_string()).await.unwrap();
    let account = "svcdiag-controller";
    let own = kubeconfig_of(&cluster, &kubectl, account, account).await;
    let program = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(program, &own, cluster.state_dir(), &[FLAG]).unwrap();
    Fixture::new(cluster.client(), "role").set_up().await.unwrap();
    let api = reports(&cluster, "role");
    let name = format!("svcdiag-{}", Fixture::NAME);
    eventually("a Report", async || api.get(&name).await.ok()).await;
    let mut used = server.store().rights_used(account);
    used.retain(|right| right.contains("openreports.io"));
    // For the admission plugin that owner references need.
    used.insert("delete reports.openreports.io".to_owned());
    let granted = granted_by(&kubectl, "config/open-reports", &["svcdiag-open-reports"]).await;
    assert_eq!(used, granted);
    controller.stop().await;
    cluster.stop().await;
}
