//! What befalls a controller: watches end, history is forgotten, the API server restarts, others
//! write, objects cannot be parsed. The conditions come right all the same.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::faults::{Fault, Fixture, Verdict, catalogue};

use crate::harness::{Harness, eventually};

fn fault(id: &str) -> Fault {
    catalogue().unwrap().into_iter().find(|f| f.id == id).unwrap()
}

/// Breaks and fixes the fixture; both must be seen.
async fn verdict_follows(harness: &Harness, fixture: &Fixture) {
    let fault = fault("A08");
    fault.inject(fixture).await.unwrap();
    harness
        .wait(fixture, &fault.title, |v| fault.expected.is_met_by(v))
        .await;
    fault.undo(fixture).await.unwrap();
    harness.wait(fixture, "healthy", Verdict::is_healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_api_server_is_survived() {
    let mut harness = Harness::start().await;
    let fixture = harness.fixture("restart").await;
    harness.cluster.restart_server().await.unwrap();
    verdict_follows(&harness, &fixture).await;
    let fault = fault("A19");
    fault.inject(&fixture).await.unwrap();
    harness.cluster.restart_server().await.unwrap();
    harness
        .wait(&fixture, &fault.title, |v| fault.expected.is_met_by(v))
        .await;
    assert!(harness.http("/healthz").await.0.contains("200"));
    harness.stop().await;
}

/// Interruptions of watches that the controller has counted.
async fn interruptions(harness: &Harness) -> u64 {
    let (_, metrics) = harness.http("/metrics").await;
    let counts = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("svcdiag_watch_errors_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_the_api_server_verdicts_follow_soon() {
    let mut harness = Harness::start().await;
    let fixture = harness.fixture("outage").await;
    if harness.cluster.embedded().is_none() {
        println!("the real API server cannot be taken away for a while; its restart is a test of its own");
        harness.stop().await;
        return;
    }
    harness.cluster.stop_server().await;
    // Long enough for the pauses of every watch to have grown.
    eventually("interruptions", async || {
        (interruptions(&harness).await > 40).then_some(())
    })
    .await;
    harness.cluster.restart_server().await.unwrap();
    verdict_follows(&harness, &fixture).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_or_have_expired_are_taken_up_again() {
    let harness = Harness::start().await;
    let fixture = harness.fixture("cut").await;
    let Some(server) = harness.cluster.embedded() else {
        println!("a real API server cannot be asked to cut watches; its restart is a test of its own");
        harness.stop().await;
        return;
    };
    let fault = fault("A19");
    for disturb in [
        svcdiag_testing_apiserver::ApiServer::drop_watches,
        svcdiag_testing_apiserver::ApiServer::compact,
    ] {
        // Before, during and after the change.
        disturb(server);
        fault.inject(&fixture).await.unwrap();
        disturb(server);
        harness
            .wait(&fixture, &fault.title, |v| fault.expected.is_met_by(v))
            .await;
        disturb(server);
        fault.undo(&fixture).await.unwrap();
        harness.wait(&fixture, "healthy", Verdict::is_healthy).await;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_into_the_status_is_put_right() {
    let harness = Harness::start().await;
    let fixture = harness.fixture("writers").await;
    let api = Api::<ServiceDiagnosis>::namespaced(harness.cluster.client(), "writers");
    let lies = json!({ "status": { "conditions": [], "summary": { "endpoints": "9/9" }, "rootCause": {
        "condition": "HairpinOK", "reason": "HairpinTimedOut", "impact": "All", "message": "a lie", "remediation": "none" } } });
    for _ in 0..3 {
        let merge = Patch::Merge(&lies);
        api.patch_status(Fixture::NAME, &PatchParams::default(), &merge)
            .await
            .unwrap();
        harness.wait(&fixture, "put right", Verdict::is_healthy).await;
        // What is the controller's to apply comes first, then goes what is nobody's.
        eventually("all of it is put right", async || {
            let status = api.get_status(Fixture::NAME).await.unwrap().status.unwrap();
            let is_right = status.root_cause.is_none() && status.summary.unwrap().endpoints == "3/3";
            is_right.then_some(())
        })
        .await;
    }
    // Writers of the spec and of metadata, all at once: the verdict is on the last generation.
    let writes = (0..20).map(|i| {
        let api = api.clone();
        async move {
            let patch = json!({ "metadata": { "annotations": { "writer": i.to_string() } }, "spec": { "intervalSeconds": 30 + i } });
            api.patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        }
    });
    futures::future::join_all(writes).await;
    harness.wait(&fixture, "current", Verdict::is_healthy).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diagnosis_that_cannot_be_parsed_is_counted_and_the_others_go_on() {
    let harness = Harness::start().await;
    let fixture = harness.fixture("odd").await;
    let client = harness.cluster.client();
    // A newer CRD may allow what this controller does not know.
    let crds: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &kube::discovery::ApiResource::erase::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >(&()),
    );
    let name = "servicediagnoses.svcdiag.dev";
    let mut crd = crds.get(name).await.unwrap();
    crd.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    crds.replace(name, &PostParams::default(), &crd).await.unwrap();
    let odd: Value = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": "odd", "namespace": "odd" }, "spec": { "intervalSeconds": "often" },
    });
    eventually("the looser CRD takes effect", async || {
        harness
            .kubectl
            .run_with_input(&["apply", "--validate=false", "-f", "-"], &odd.to_string())
            .await
            .ok()
    })
    .await;
    let counter = r#"svcdiag_unparsable_objects_total{kind="ServiceDiagnosis"}"#;
    eventually("it is counted", async || {
        harness.metric(counter).await.filter(|count| *count > 0.0)
    })
    .await;
    assert!(
        harness.log().contains(r#"namespace="odd" name="odd""#),
        "{}",
        harness.log()
    );
    verdict_follows(&harness, &fixture).await;
    harness
        .kubectl
        .run(&["-n", "odd", "delete", "svcdiag", "odd"])
        .await
        .unwrap();
    harness.stop().await;
}

/// The real server checks the types of its own kinds, so it never shows such an object.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_parsed_leaves_a_gap_and_no_blame() {
    let harness = Harness::start().await;
    let Some(server) = harness.cluster.embedded() else {
        println!("a real API server refuses objects of its own kinds that cannot be parsed");
        harness.stop().await;
        return;
    };
    let fixture = harness.fixture("gap").await;
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "odd", "namespace": "gap" }, "spec": { "podSelector": "everything" },
    });
    server
        .store()
        .put_unchecked("networking.k8s.io", "networkpolicies", policy);
    let gap = |v: &Verdict| {
        let policies = v.condition("NetworkPolicyAllows");
        policies.is_some_and(|c| (c.status.as_str(), c.reason.as_str()) == ("Unknown", "ProbeFailed"))
    };
    harness.wait(&fixture, "with a gap", gap).await;
    let counter = r#"svcdiag_unparsable_objects_total{kind="NetworkPolicy"}"#;
    assert!(harness.metric(counter).await.is_some_and(|count| count > 0.0));
    harness
        .kubectl
        .run(&["-n", "gap", "delete", "networkpolicy", "odd"])
        .await
        .unwrap();
    harness.wait(&fixture, "healthy", Verdict::is_healthy).await;
    harness.stop().await;
}
