//! The chart with a ServiceDiagnosis: what Helm renders, and that Helm 4 waits for the verdict.

use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use tokio::task::JoinHandle;

use super::{is_valid, run_helm::helm};

const CHART: &str = "examples/helm";

/// Longer than Helm takes to return from what it does not wait for.
const A_WHILE: Duration = Duration::from_secs(8);

/// What takes as long as this hangs.
const SOON: Duration = Duration::from_secs(120);

#[test]
fn the_chart_has_a_service_and_its_diagnosis() {
    let text = helm(&["template", "web", CHART, "--namespace", "shop"], None).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let diagnosis = is_valid(find("ServiceDiagnosis")).unwrap();
    assert_eq!(
        diagnosis.spec.service_name,
        find("Service")["metadata"]["name"].as_str().unwrap()
    );
    assert_eq!(
        objects.iter().filter(|object| object["kind"].is_string()).count(),
        2
    );
}

/// A cluster without a controller: the test writes the verdicts.
struct Release {
    cluster: Cluster,
    diagnoses: Api<ServiceDiagnosis>,
    helm: JoinHandle<Result<String, String>>,
}

impl Release {
    /// Starts `helm install --wait`, and returns when the diagnosis is there.
    async fn install(timeout: &'static str) -> Self {
        let config = ClusterConfig {
            controllers: false,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::start(config).await.unwrap();
        let kubeconfig = cluster.kubeconfig_path().to_owned();
        let helm = tokio::task::spawn_blocking(move || {
            let place = ["--namespace", "shop", "--create-namespace"];
            let install = [
                &["install", "web", CHART][..],
                &place,
                &["--wait", "--timeout", timeout],
            ];
            helm(&install.concat(), Some(&kubeconfig))
        });
        let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "shop");
        let start = Instant::now();
        while diagnoses.get_opt("web").await.unwrap().is_none() {
            assert!(start.elapsed() < SOON && !helm.is_finished(), "no diagnosis");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            cluster,
            diagnoses,
            helm,
        }
    }

    async fn write(&self, ready: &str, reason: &str, other: Option<&str>) {
        let condition = |type_: &str, status: &str| {
            json!({ "type": type_, "status": status, "reason": reason,
            "message": "As told.", "lastTransitionTime": "2026-11-02T10:00:00Z", "observedGeneration": 1 })
        };
        let mut conditions = vec![condition("Ready", ready)];
        conditions.extend(other.map(|type_| condition(type_, "True")));
        let status = json!({ "status": { "observedGeneration": 1, "conditions": conditions } });
        let params = PatchParams::default();
        self.diagnoses
            .patch_status("web", &params, &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn outcome(self) -> Result<String, String> {
        let outcome = tokio::time::timeout(SOON, self.helm).await;
        self.cluster.stop().await;
        outcome.expect("Helm does not return").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_until_the_service_works() {
    let release = Release::install("100s").await;
    tokio::time::sleep(A_WHILE).await;
    assert!(
        !release.helm.is_finished(),
        "it did not wait for the first verdict"
    );
    release.write("Unknown", "Pending", Some("Reconciling")).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!release.helm.is_finished(), "it did not wait for the probes");
    release.write("True", "ServiceWorks", None).await;
    release.outcome().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_fails_if_the_service_does_not_work() {
    let release = Release::install("15s").await;
    release
        .write("False", "SelectorMatchesNoPods", Some("Stalled"))
        .await;
    let error = release.outcome().await.unwrap_err();
    assert!(error.contains("ServiceDiagnosis"), "{error}");
}
