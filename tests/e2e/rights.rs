//! The rights in config/rbac suffice for all that the controller does. The embedded server grants
//! everybody everything; the real one is the judge.

use std::path::{Path, PathBuf};

use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fault, Scene, Verdict, catalogue},
    kubectl::Kubectl,
    svcdiag::Controller,
};

use crate::rig::eventually;

/// A kubeconfig with the token of a service account.
pub async fn kubeconfig_of(cluster: &Cluster, admin: &Kubectl, namespace: &str, account: &str) -> PathBuf {
    let path = cluster.state_dir().join(format!("{account}.kubeconfig"));
    std::fs::copy(cluster.kubeconfig_path(), &path).unwrap();
    if cluster.embedded().is_some() {
        return path;
    }
    let token = admin
        .run(&["create", "token", account, "-n", namespace])
        .await
        .unwrap();
    let owner = admin.clone().with_kubeconfig(&path);
    let token = format!("--token={}", token.trim());
    let user = ["config", "set-credentials", account, &token];
    owner.run(&user).await.unwrap();
    let user = format!("--user={account}");
    let context = ["config", "set-context", "--current", &user];
    owner.run(&context).await.unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_does_its_work_with_the_rights_of_its_role() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let kubectl = Kubectl::find().await.unwrap();
    let kubectl = kubectl.with_kubeconfig(cluster.kubeconfig_path());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default");
    let apply = ["apply", "--server-side", "-k", config.to_str().unwrap()];
    kubectl.run(&apply).await.unwrap();
    // No kubelet here runs the image; the binary stands in for the Pod.
    let scale = [
        "-n",
        "svcdiag-system",
        "delete",
        "deployment",
        "svcdiag-controller",
    ];
    kubectl.run(&scale).await.unwrap();
    let own = kubeconfig_of(&cluster, &kubectl, "svcdiag-system", "svcdiag-controller").await;
    let program = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(program, &own, cluster.state_dir(), &[]).unwrap();

    let scene = Scene::new(cluster.client(), "role");
    scene.set_up().await.unwrap();
    let verdict = async |test: &dyn Fn(&Verdict) -> bool| {
        eventually("the verdict", async || {
            scene.verdict().await.ok().filter(|v| test(v))
        })
        .await
    };
    verdict(&Verdict::is_healthy).await;
    let faults = catalogue().unwrap();
    let fault: &Fault = faults.iter().find(|f| f.id == "A08").unwrap();
    fault.inject(&scene).await.unwrap();
    verdict(&|v| fault.expected.is_met_by(v)).await;
    eventually("an Event", async || {
        let events = kubectl.run(&["-n", "role", "get", "events"]).await.ok()?;
        events.contains("SelectorMatchesNoPods").then_some(())
    })
    .await;
    let label = ["label", "namespace", "role", "svcdiag.dev/auto=true"];
    kubectl.run(&label).await.unwrap();
    let service = "
apiVersion: v1
kind: Service
metadata: {name: more, namespace: role}
spec: {ports: [{port: 80}]}
";
    kubectl
        .run_with_input(&["apply", "-f", "-"], service)
        .await
        .unwrap();
    let automatic = ["-n", "role", "get", "svcdiag", "more"];
    eventually("an automatic diagnosis", async || {
        kubectl.run(&automatic).await.ok()
    })
    .await;
    kubectl
        .run(&["label", "namespace", "role", "svcdiag.dev/auto-"])
        .await
        .unwrap();
    eventually("its end", async || kubectl.run(&automatic).await.err()).await;
    let log = std::fs::read_to_string(controller.log()).unwrap();
    assert!(!log.contains("orbidden"), "{log}");
    controller.stop().await;
    cluster.stop().await;
}
