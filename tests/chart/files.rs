//! The files that are made from others, and an installation from them.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::{Value, json};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    kubectl::Kubectl,
};

use super::{CHART, helm, kustomize, parse, rendered, root, template};

/// What hack/chart writes from crds/ is what is there.
#[test]
fn the_crds_of_the_chart_are_those_of_crds() {
    let directory = tempfile::tempdir().unwrap();
    let written = Command::new(root("hack/chart")).arg(directory.path()).status();
    assert!(written.unwrap().success());
    let files = |path: &Path| -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        entries
            .map(|e| {
                (
                    e.file_name().into_string().unwrap(),
                    std::fs::read_to_string(e.path()).unwrap(),
                )
            })
            .collect()
    };
    let expected = files(directory.path());
    assert_eq!(expected.len(), 2);
    let is_same = files(&root("charts/svcdiag/templates/crds")) == expected;
    assert!(is_same, "they are out of date: run make generate and commit");
}

#[test]
fn helm_has_nothing_to_complain_about() {
    helm(
        &["lint", CHART, "--namespace", "svcdiag-system", "--strict"],
        None,
    )
    .unwrap();
}

/// `make dist` writes them: the manifests are those of config/, and the archive is the chart, the same each time.
#[tokio::test]
async fn the_files_to_install_from_are_config_and_the_chart() {
    let kubectl = Kubectl::find().await.unwrap();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = directories.each_ref().map(|directory| {
        let output = Command::new(root("hack/install-files"))
            .arg(directory.path())
            .env("KUBECTL", kubectl.program())
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let names = String::from_utf8(output.stdout).unwrap();
        names
            .lines()
            .map(|name| {
                (
                    name.to_owned(),
                    std::fs::read(directory.path().join(name)).unwrap(),
                )
            })
            .collect::<BTreeMap<_, _>>()
    });
    assert!(first == second, "they differ from one time to the next");
    let archive = format!("svcdiag-{}.tgz", env!("CARGO_PKG_VERSION"));
    for (file, directory) in [
        ("install.yaml", "config/default"),
        ("install-agentless.yaml", "config/agentless"),
    ] {
        let text = std::str::from_utf8(&first[file]).unwrap();
        assert!(parse(text) == kustomize(&[directory]).await, "{file}");
    }
    let archive = directories[0].path().join(archive);
    let of_archive = template("svcdiag", "svcdiag-system", archive.to_str().unwrap(), &json!({}));
    assert!(parse(&of_archive.unwrap()) == rendered(&json!({})));
}

/// The namespace of the release is made by Helm first, and labelled by the chart.
#[tokio::test(flavor = "multi_thread")]
async fn one_command_installs_it_and_says_what_to_type_next() {
    let without_crds = tempfile::tempdir().unwrap();
    let config = ClusterConfig {
        controllers: false,
        crds: without_crds.path().to_owned(),
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let kubeconfig = cluster.kubeconfig_path().to_owned();
    let kubectl = Kubectl::find().await.unwrap().with_kubeconfig(&kubeconfig);
    let notes = tokio::task::spawn_blocking(move || {
        let install = [
            "install",
            "svcdiag",
            CHART,
            "--namespace",
            "probes",
            "--create-namespace",
        ];
        helm(&install, Some(&kubeconfig)).unwrap()
    })
    .await
    .unwrap();
    for line in [
        "kubectl get svcdiag -A",
        "kind: ServiceDiagnosis",
        "kubectl -n probes get pods -l app.kubernetes.io/component=svcdiag-agent -o wide",
    ] {
        assert!(notes.contains(line), "{line} in {notes}");
    }
    for (namespace, level) in [("probes", "privileged"), ("svcdiag-controller", "restricted")] {
        let text = kubectl.run(&["get", "namespace", namespace, "-o", "json"]).await;
        let found: Value = serde_json::from_str(&text.unwrap()).unwrap();
        let labels = &found["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], level, "{namespace}");
    }
    for (kind, namespace, name) in [
        ("daemonset", "probes", "svcdiag-agent"),
        ("deployment", "svcdiag-controller", "svcdiag-controller"),
        ("crd", "default", "servicediagnoses.svcdiag.dev"),
    ] {
        kubectl.run(&["get", kind, "-n", namespace, name]).await.unwrap();
    }
    cluster.stop().await;
}
