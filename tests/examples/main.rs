//! The files of `examples/`: they parse, our own kinds in them are valid, svcdiag understands the commands in them, the
//! permissions in them are what `check` uses, and the scripts for Argo CD say what their tests say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs svcdiag and Helm"
)]

mod argo_cd;
mod commands;
#[path = "../common/files.rs"]
mod files;
mod helm;
mod kinds;
mod queries;
mod rights;
#[path = "../common/helm.rs"]
mod run_helm;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use files::files;
use serde_json::Value;
use svcdiag::api::ServiceDiagnosis;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All documents in YAML, with their files. Templates of the chart are for Helm to read.
fn documents() -> Vec<(PathBuf, Value)> {
    let mut all = Vec::new();
    let is_template = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "templates");
    for path in files(&root("examples"), "yaml") {
        if is_template(&path) {
            continue;
        }
        let text = read(&path);
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        all.extend(documents.into_iter().map(|document| (path.clone(), document)));
    }
    all
}

#[test]
fn every_object_has_its_type_and_a_name() {
    let mut kinds = BTreeSet::new();
    for (path, document) in documents() {
        assert!(document.is_object(), "{}", path.display());
        let Some(kind) = document["kind"].as_str() else {
            continue;
        };
        for field in ["/apiVersion", "/metadata/name"] {
            let found = document.pointer(field).and_then(Value::as_str);
            assert!(found.is_some(), "{}: no {field}", path.display());
        }
        kinds.insert(kind.to_owned());
    }
    for kind in [
        "AnalysisTemplate",
        "HelmRelease",
        "Kustomization",
        "MetricTemplate",
        "ServiceDiagnosis",
        "Task",
    ] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
}

#[test]
fn every_diagnosis_is_one_that_the_type_has() {
    let mut count = 0;
    for (path, document) in documents() {
        if document["kind"] == "ServiceDiagnosis" {
            is_valid(&document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// Nothing is lost on the way through the type but defaults that it adds.
fn is_valid(document: &Value) -> Result<ServiceDiagnosis, String> {
    let diagnosis: ServiceDiagnosis =
        serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&diagnosis).map_err(|error| error.to_string())?;
    for part in ["spec", "status"] {
        for (field, value) in document[part].as_object().into_iter().flatten() {
            if back[part][field] != *value {
                return Err(format!("{part}.{field} is read as {}", back[part][field]));
            }
        }
    }
    Ok(diagnosis)
}

/// A comment at the top says what a file does and how it is applied.
#[test]
fn every_example_begins_with_what_it_is() {
    for path in files(&root("examples"), "yaml") {
        let part = |name: &str| path.components().any(|it| it.as_os_str() == name);
        if part("argo-cd") || part("templates") || path.ends_with("helm/values.yaml") {
            continue;
        }
        assert!(read(&path).starts_with("# "), "{}", path.display());
    }
}

/// Each example is on the page.
#[test]
fn the_page_links_to_every_example() {
    let page = read(&root("docs/gitops.md"));
    for path in files(&root("examples"), "yaml") {
        let path = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        let is_part = ["argo-cd", "helm"]
            .iter()
            .any(|tool| path.starts_with(&format!("examples/{tool}/")));
        assert!(is_part || page.contains(&format!("(../{path})")), "{path}");
    }
    for directory in ["examples/argo-cd", "examples/headlamp", "examples/helm"] {
        assert!(page.contains(&format!("(../{directory})")), "{directory}");
    }
}
