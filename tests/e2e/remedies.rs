//! The command of a remediation, typed as it stands, makes the Service work again.

use serde_json::Value;
use svcdiag_sandbox::faults::{Fixture, Verdict, catalogue};

use crate::harness::Harness;

/// The first command in a remediation: what stands between backquotes and begins with kubectl.
fn command(remediation: &str) -> Option<&str> {
    remediation
        .split('`')
        .skip(1)
        .step_by(2)
        .find(|text| text.starts_with("kubectl "))
}

async fn remedy_fixes(harness: &Harness, id: &str) {
    let fixture: Fixture = harness.fixture(&format!("remedy-{}", id.to_lowercase())).await;
    let fault = catalogue().unwrap().into_iter().find(|f| f.id == id).unwrap();
    fault.inject(&fixture).await.unwrap();
    harness
        .wait(&fixture, &fault.title, |v| fault.expected.is_met_by(v))
        .await;
    let namespace = fixture.namespace();
    let arguments = ["-n", namespace, "get", "svcdiag", Fixture::NAME, "-o", "json"];
    let diagnosis: Value = serde_json::from_str(&harness.kubectl.run(&arguments).await.unwrap()).unwrap();
    let remediation = diagnosis["status"]["rootCause"]["remediation"].as_str().unwrap();
    let command = command(remediation).unwrap_or_else(|| panic!("no command in: {remediation}"));
    println!("{id}: {command}");
    // As a user would: in a shell, so that quotes count.
    let program = harness.kubectl.program().to_str().unwrap();
    let line = command.replacen("kubectl", program, 1);
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", &line])
        .env("KUBECONFIG", harness.cluster.kubeconfig_path());
    let output = shell.output().await.unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    harness.wait(&fixture, "fixed", Verdict::is_healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_remedies_of_a_wrong_selector_and_of_a_workload_scaled_to_zero_work() {
    let harness = Harness::start().await;
    for id in ["A08", "A09", "A09-statefulset"] {
        remedy_fixes(&harness, id).await;
    }
    harness.stop().await;
}
