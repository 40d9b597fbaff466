//! The Helm chart: what a real Helm renders from it are the objects of config/, one by one, with labels of Helm's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs Helm"
)]

mod files;
#[path = "../common/helm.rs"]
mod helm;
mod objects;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use svcdiag_sandbox::kubectl::Kubectl;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
use helm::helm;

const CHART: &str = "charts/svcdiag";

/// Kind, namespace and name.
type Key = (String, String, String);
type Objects = BTreeMap<Key, Value>;

fn root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn parse(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let mut found = Objects::new();
    for object in documents.into_iter().filter(|o| o["kind"].is_string()) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let key = (
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        assert!(
            found.insert(key.clone(), object).is_none(),
            "{key:?} is there twice"
        );
    }
    found
}

/// The objects of kustomizations.
async fn kustomize(directories: &[&str]) -> Objects {
    let kubectl = Kubectl::find().await.unwrap();
    let mut all = Objects::new();
    for directory in directories {
        let path = root(directory);
        let text = kubectl.run(&["kustomize", path.to_str().unwrap()]).await.unwrap();
        all.extend(parse(&text));
    }
    all
}

fn template(release: &str, namespace: &str, chart: &str, values: &Value) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("values.yaml");
    std::fs::write(&file, values.to_string()).unwrap();
    let values = file.to_str().unwrap();
    helm(
        &[
            "template",
            release,
            chart,
            "--namespace",
            namespace,
            "--values",
            values,
        ],
        None,
    )
}

fn rendered(values: &Value) -> Objects {
    parse(&template("svcdiag", "svcdiag-system", CHART, values).unwrap())
}

/// The container of the only object of a kind.
fn container<'a>(objects: &'a Objects, kind: &str) -> &'a Value {
    let (_, object) = objects.iter().find(|(key, _)| key.0 == kind).unwrap();
    &object["spec"]["template"]["spec"]["containers"][0]
}
