//! `svcdiag check` on a cluster with agents: they probe a Service that no diagnosis watches, for as long as the check
//! takes.

use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::Value;
use svcdiag::api::{ServiceDiagnosis, ServiceDiagnosisSpec};
use svcdiag_sandbox::{error::chain, faults::Fixture};

use crate::harness::{Harness, NAMESPACE, fault, on_a_cluster};

/// Reason of `Ready`, and how many diagnoses there are afterwards.
async fn check(harness: &Harness, arguments: &[&str]) -> Result<(String, usize), String> {
    let all = [
        &["check", Fixture::NAME, "-n", NAMESPACE, "-o", "json"],
        arguments,
    ]
    .concat();
    let printed = harness.svcdiag(&all).await?;
    let object: Value = serde_json::from_slice(&printed).map_err(|e| format!("not JSON: {e}"))?;
    let conditions = object["status"]["conditions"].as_array().cloned();
    let ready = conditions
        .unwrap_or_default()
        .into_iter()
        .find(|c| c["type"] == "Ready");
    let reason = ready.and_then(|c| Some(c["reason"].as_str()?.to_owned()));
    let left = harness.diagnoses().list(&ListParams::default()).await;
    let left = left.map_err(|e| chain(&e))?.items.len();
    Ok((reason.ok_or_else(|| format!("no Ready in {object}"))?, left))
}

async fn judge(harness: &Harness) -> Result<(), String> {
    let diagnoses = harness.diagnoses();
    let expect = async |arguments: &[&str], wanted: &str| {
        let deleted = diagnoses.delete(Fixture::NAME, &DeleteParams::default()).await;
        deleted.map_err(|e| chain(&e))?;
        let found = check(harness, arguments).await?;
        let again = ServiceDiagnosis::new(Fixture::NAME, ServiceDiagnosisSpec::for_service(Fixture::NAME));
        let made = diagnoses.create(&PostParams::default(), &again).await;
        made.map_err(|e| chain(&e))?;
        match found == (wanted.to_owned(), 0) {
            true => Ok(()),
            false => Err(format!(
                "check {arguments:?}: {found:?} instead of {wanted} and nothing left"
            )),
        }
    };
    expect(&["--read-only"], "NoVantagePoint").await?;
    // As long as it takes on a busy machine; a fault is told as soon as it is known, and not when it has lasted.
    let patient = ["--timeout", "10m"];
    expect(&patient, "ServiceWorks").await?;
    fault("N15")
        .inject(&harness.fixture)
        .await
        .map_err(|e| chain(&e))?;
    let start = std::time::Instant::now();
    expect(&patient, "IPForwardingDisabled").await?;
    println!("a fault is checked in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_probe_a_service_that_no_diagnosis_watches_for_as_long_as_it_is_checked() {
    on_a_cluster(judge).await;
}
