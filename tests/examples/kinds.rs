//! Where examples name our kinds without having an object of them.

use std::collections::BTreeSet;

use kube::Resource;
use serde_json::Value;
use svcdiag::api::{ServiceDiagnosis, crds};

use super::{documents, read, root, yaml};

#[test]
fn health_checks_name_the_group_and_version_that_there_is() {
    let mut count = 0;
    for (path, document) in documents() {
        let checks = document["spec"]["healthChecks"].as_array();
        let of_kind = |check: &&Value| check["kind"] == ServiceDiagnosis::kind(&()).as_ref();
        for check in checks.into_iter().flatten().filter(of_kind) {
            let version = ServiceDiagnosis::api_version(&());
            assert_eq!(check["apiVersion"], version.as_ref(), "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 1);
}

/// k9s shows the columns of kubectl, by their names in capitals, and those that have an expression.
#[test]
fn the_view_shows_columns_that_there_are() {
    let api_version = ServiceDiagnosis::api_version(&());
    let plural = ServiceDiagnosis::plural(&());
    let views = yaml(&root("examples/k9s/views.yaml"));
    let view = &views["views"][format!("{api_version}/{plural}")];
    let crd = crds().remove(0);
    let printed = crd.pointer("/spec/versions/0/additionalPrinterColumns");
    let printed = printed.and_then(Value::as_array).unwrap().iter();
    let mut there_are: BTreeSet<String> = printed
        .map(|column| column["name"].as_str().unwrap().to_uppercase())
        .collect();
    there_are.extend(["NAMESPACE", "NAME"].map(str::to_owned));
    let columns = view["columns"].as_array().unwrap().iter();
    for column in columns.map(|column| column.as_str().unwrap()) {
        let is_known = column.contains(":.status.") || there_are.contains(column);
        assert!(is_known, "{column} is not in {there_are:?}");
    }
    let sorted = view["sortColumn"].as_str().unwrap().trim_end_matches(":asc");
    assert!(there_are.contains(sorted), "{sorted}");
}

#[test]
fn plugins_are_for_services_and_for_diagnoses() {
    let plugins = yaml(&root("examples/k9s/plugins.yaml"));
    let plugins = plugins["plugins"].as_object().unwrap();
    let scopes: BTreeSet<&str> = plugins
        .values()
        .flat_map(|plugin| plugin["scopes"].as_array().unwrap())
        .map(|scope| scope.as_str().unwrap())
        .collect();
    assert_eq!(scopes, BTreeSet::from(["servicediagnoses", "services"]));
}

/// The section in Headlamp reads the kind that there is, and fields that it has.
#[test]
fn the_section_reads_fields_that_there_are() {
    let text = read(&root("examples/headlamp/src/diagnosis.ts"));
    let (group, version) = (ServiceDiagnosis::group(&()), ServiceDiagnosis::version(&()));
    let kind = ServiceDiagnosis::kind(&());
    for needed in [
        format!("group: '{group}', version: '{version}'"),
        format!("pluralName: '{}'", ServiceDiagnosis::plural(&())),
        format!("kind: '{kind}'"),
    ] {
        assert!(text.contains(&needed), "{needed}");
    }
    let crd = crds().remove(0);
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let cause = &schema["status"]["properties"]["rootCause"]["properties"];
    for (object, field) in [
        (&schema["spec"]["properties"], "serviceName"),
        (&schema["status"]["properties"], "observedGeneration"),
        (&schema["status"]["properties"], "conditions"),
        (cause, "message"),
        (cause, "remediation"),
        (cause, "link"),
    ] {
        assert!(object[field].is_object() && text.contains(field), "{field}");
    }
}
