//! The command of a remediation, typed as it stands, makes the Service work again.

use serde_json::Value;
use svcdiag_sandbox::faults::{Scene, Verdict, catalogue};

use crate::rig::Rig;

/// The first command in a remediation: what stands between backquotes and begins with kubectl.
fn command(remediation: &str) -> Option<&str> {
    remediation
        .split('`')
        .skip(1)
        .step_by(2)
        .find(|text| text.starts_with("kubectl "))
}

async fn remedy_mends(rig: &Rig, id: &str) {
    let scene: Scene = rig.scene(&format!("remedy-{}", id.to_lowercase())).await;
    let fault = catalogue().unwrap().into_iter().find(|f| f.id == id).unwrap();
    fault.inject(&scene).await.unwrap();
    rig.wait(&scene, &fault.title, |v| fault.expected.is_met_by(v))
        .await;
    let namespace = scene.namespace();
    let arguments = ["-n", namespace, "get", "svcdiag", Scene::NAME, "-o", "json"];
    let diagnosis: Value = serde_json::from_str(&rig.kubectl.run(&arguments).await.unwrap()).unwrap();
    let remediation = diagnosis["status"]["rootCause"]["remediation"].as_str().unwrap();
    let command = command(remediation).unwrap_or_else(|| panic!("no command in: {remediation}"));
    println!("{id}: {command}");
    // As a user would: in a shell, so that quotes count.
    let program = rig.kubectl.program().to_str().unwrap();
    let line = command.replacen("kubectl", program, 1);
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", &line])
        .env("KUBECONFIG", rig.cluster.kubeconfig_path());
    let output = shell.output().await.unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    rig.wait(&scene, "mended", Verdict::is_healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_remedies_of_a_wrong_selector_and_of_a_workload_scaled_to_zero_work() {
    let rig = Rig::start().await;
    for id in ["A08", "A09", "A09-statefulset"] {
        remedy_mends(&rig, id).await;
    }
    rig.stop().await;
}
