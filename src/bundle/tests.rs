//! From files to a verdict: above all what must not be blamed on a bundle that does not hold everything.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{files::File, *};
use crate::{
    api::{ConditionStatus, ConditionType as C, Reason},
    engine::{Diagnosis, diagnose},
};

mod clients;
mod gathered;
mod lists;
mod manifests;
mod moments;

const NOW: &str = "2026-05-01T12:00:00Z";
const LONG_AGO: &str = "2026-05-01T10:00:00Z";

/// A bundle of these files; a value is written as JSON, which is YAML, too.
fn bundle(files: &[(&str, Value)]) -> Bundle {
    let file = |(path, content): &(&str, Value)| File {
        path: (*path).to_owned(),
        text: content
            .as_str()
            .map_or_else(|| content.to_string(), str::to_owned),
        modified: None,
    };
    Bundle::of(Files {
        files: files.iter().map(file).collect(),
        problems: Vec::new(),
    })
}

fn judge(bundle: &Bundle) -> Diagnosis {
    let diagnosis = bundle.diagnosis("shop", "web");
    diagnose(&facts(bundle, &diagnosis, NOW.parse().unwrap()).0)
}

fn answers(bundle: &Bundle) -> BTreeMap<C, (ConditionStatus, Reason, String)> {
    let stages = judge(bundle).stages.into_iter();
    let answer = |(c, f): (C, crate::engine::Finding)| {
        let status = f.status();
        (c, (status, f.reason, f.message))
    };
    stages.map(answer).collect()
}

#[track_caller]
fn assert_nobody_is_blamed(bundle: &Bundle) {
    let found = judge(bundle);
    assert_eq!(found.root_cause, None, "{:#?}", found.stages);
    assert_eq!(found.ready.status, ConditionStatus::Unknown);
    assert!(!found.api_is_faultless(), "{:#?}", found.stages);
}

#[track_caller]
fn assert_cause(bundle: &Bundle, reason: &str) -> String {
    let cause = judge(bundle)
        .root_cause
        .unwrap_or_else(|| panic!("no fault: {:#?}", answers(bundle)));
    assert_eq!(cause.reason, reason, "{}", cause.message);
    cause.message
}

/// kubectl's list of objects of any kind.
fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "items": items, "kind": "List", "metadata": { "resourceVersion": "" } })
}

/// A list of Pods as the API writes it.
fn api_list(pods: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "7" }, "items": pods })
}

fn service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "shop", "creationTimestamp": LONG_AGO },
        "spec": { "selector": { "app": "web" }, "clusterIP": "10.96.0.7", "ports": [{ "port": 80, "targetPort": 9376 }] } })
}

fn pod(name: &str, labels: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "uid": name, "labels": labels, "creationTimestamp": LONG_AGO },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c" }] },
        "status": { "phase": "Running", "podIP": "10.244.0.5", "podIPs": [{ "ip": "10.244.0.5" }],
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO }] } })
}

fn web_pod() -> Value {
    pod("web-1", json!({ "app": "web" }))
}

fn slice(service: &str, endpoints: Value) -> Value {
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": format!("{service}-x"), "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "", "port": 9376, "protocol": "TCP" }] })
}

fn full_slice() -> Value {
    slice(
        "web",
        json!([{ "addresses": ["10.244.0.5"], "conditions": { "ready": true },
        "targetRef": { "kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "web-1" } }]),
    )
}

/// Everything but the file at a path.
fn without<'a>(path: &str) -> Vec<(&'a str, Value)> {
    let mut files = healthy();
    files.retain(|(p, _)| *p != path);
    files
}

fn healthy<'a>() -> Vec<(&'a str, Value)> {
    vec![
        ("objects/services.yaml", list(&[service()])),
        ("objects/endpointslices.yaml", list(&[full_slice()])),
        ("objects/pods.yaml", list(&[web_pod()])),
        ("objects/deployments.yaml", list(&[])),
        ("objects/replicasets.yaml", list(&[])),
        ("objects/statefulsets.yaml", list(&[])),
        ("objects/networkpolicies.yaml", list(&[])),
    ]
}

#[test]
fn a_healthy_service_is_without_fault() {
    let bundle = bundle(&healthy());
    assert_eq!(bundle.problems, []);
    let found = judge(&bundle);
    assert!(found.api_is_faultless(), "{:#?}", found.stages);
}

#[test]
fn a_kind_that_is_missing_is_never_blamed_on_the_cluster() {
    for (path, _) in healthy() {
        assert_eq!(judge(&bundle(&without(path))).root_cause, None, "{path}");
    }
    for path in [
        "objects/services.yaml",
        "objects/endpointslices.yaml",
        "objects/pods.yaml",
    ] {
        assert_nobody_is_blamed(&bundle(&without(path)));
    }
    assert_nobody_is_blamed(&bundle(&[]));
    // Each alone says nothing, either.
    for file in healthy() {
        assert_nobody_is_blamed(&bundle(&[file]));
    }
}

#[test]
fn without_pods_what_depends_on_them_is_not_known() {
    let answers = answers(&bundle(&without("objects/pods.yaml")));
    for condition in [
        C::DefinitionValid,
        C::PodsHealthy,
        C::EndpointsPopulated,
        C::NetworkPolicyAllows,
    ] {
        let (status, reason, message) = &answers[&condition];
        assert_eq!(
            (*status, *reason),
            (ConditionStatus::Unknown, Reason::ProbeFailed),
            "{condition}"
        );
        assert!(
            message.contains("no list of the Pods of namespace shop"),
            "{message}"
        );
    }
}

#[test]
fn it_is_judged_as_of_when_it_was_made() {
    let now: Timestamp = NOW.parse().unwrap();
    let with = |time: Option<&str>, modified: Option<&str>| {
        let text = time.map_or_else(String::new, |t| format!("time: {t}\n"));
        let file = File {
            path: MANIFEST.to_owned(),
            text,
            modified: modified.map(|m| m.parse().unwrap()),
        };
        let files = vec![file];
        let problems = Vec::new();
        Bundle::of(Files { files, problems }).time(now).to_string()
    };
    assert_eq!(with(Some(LONG_AGO), Some(NOW)), LONG_AGO);
    assert_eq!(with(None, Some(LONG_AGO)), LONG_AGO);
    assert_eq!(with(None, Some("2030-01-01T00:00:00Z")), NOW);
    assert_eq!(with(None, None), NOW);
}

#[test]
fn a_selector_is_not_called_wrong_while_workloads_are_unknown() {
    let mut files = without("objects/deployments.yaml");
    files.retain(|(path, _)| *path != "objects/pods.yaml");
    files.push((
        "objects/pods.json",
        api_list(&[pod("web-1", json!({ "app": "webb" }))]),
    ));
    let cause = judge(&bundle(&files)).root_cause.unwrap();
    assert_eq!(cause.reason, "SelectorMatchesNoPods");
    assert!(!cause.remediation.contains("patch"), "{}", cause.remediation);
    assert!(!cause.message.contains("webb"), "{}", cause.message);
    files.push(("objects/deployments.yaml", list(&[])));
    let cause = judge(&bundle(&files)).root_cause.unwrap();
    assert!(
        cause
            .message
            .contains("app=webb where the selector wants app=web"),
        "{}",
        cause.message
    );
}

#[test]
fn an_object_that_cannot_be_parsed_leaves_a_gap_and_a_problem() {
    let mut files = without("objects/pods.yaml");
    let mut broken = web_pod();
    broken["spec"]["containers"] = "none".into();
    files.push(("objects/pods.yaml", list(&[pod("client", json!({})), broken])));
    let bundle = bundle(&files);
    assert_nobody_is_blamed(&bundle);
    let problem = bundle.problems[0].to_string();
    assert!(
        problem.contains("objects/pods.yaml: item 2: shop/web-1 could not be parsed"),
        "{problem}"
    );
}

#[test]
fn a_file_that_is_cut_short_is_no_list() {
    for (path, content) in healthy() {
        let text = content.to_string();
        for length in [text.len() / 2, text.len() - 1] {
            let mut files = without(path);
            files.push((path, text[..length].into()));
            let bundle = bundle(&files);
            assert!(judge(&bundle).root_cause.is_none(), "{path}");
            assert!(
                bundle.problems[0].what.contains("line 1"),
                "{:?}",
                bundle.problems
            );
        }
    }
    // YAML may be whole without its end.
    let yaml = serde_saphyr::to_string(&list(&[pod("client", json!({}))])).unwrap();
    let cut = yaml.split("kind: List").next().unwrap().to_owned();
    let mut files = without("objects/pods.yaml");
    files.push(("objects/pods.yaml", cut.into()));
    let bundle = bundle(&files);
    assert_nobody_is_blamed(&bundle);
    assert!(
        bundle.problems[0].what.contains("cut short"),
        "{:?}",
        bundle.problems
    );
}

#[test]
fn a_promise_of_the_manifest_needs_its_file() {
    let listed: Vec<Value> = [
        "services",
        "endpointslices",
        "pods",
        "deployments",
        "replicasets",
        "statefulsets",
        "networkpolicies",
    ]
    .iter()
    .map(|resource| json!({ "resource": resource, "namespace": "shop" }))
    .collect();
    let manifest = json!({ "namespace": "shop", "service": "web", "time": NOW, "listed": listed });
    let mut files = healthy();
    files.push((MANIFEST, manifest.clone()));
    assert!(judge(&bundle(&files)).api_is_faultless());
    for path in [
        "objects/services.yaml",
        "objects/endpointslices.yaml",
        "objects/pods.yaml",
    ] {
        let mut files = without(path);
        files.push((MANIFEST, manifest.clone()));
        assert_nobody_is_blamed(&bundle(&files));
        files.push((path, "items: [".into()));
        assert_nobody_is_blamed(&bundle(&files));
    }
    // A list of another namespace, as of cluster DNS, counts for nothing beyond the promise.
    let mut files = without("objects/services.yaml");
    files.push((MANIFEST, json!({ "listed": [] })));
    assert_nobody_is_blamed(&bundle(&files));
}

#[test]
fn endpoints_stand_in_for_slices() {
    let endpoints = |ready: bool| {
        let address = json!([{ "ip": "10.244.0.5", "targetRef": { "kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "web-1" } }]);
        let key = if ready { "addresses" } else { "notReadyAddresses" };
        json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "web", "namespace": "shop" },
            "subsets": [{ key: address, "ports": [{ "port": 9376, "protocol": "TCP" }] }] })
    };
    let mut files = without("objects/endpointslices.yaml");
    files.push(("objects/endpoints.yaml", endpoints(true)));
    assert!(judge(&bundle(&files)).api_is_faultless());
    files.pop();
    files.push(("objects/endpoints.yaml", endpoints(false)));
    assert_cause(&bundle(&files), "EndpointSlicesStale");
    files.pop();
    let mut cut = endpoints(false);
    cut["metadata"]["annotations"] = json!({ "endpoints.kubernetes.io/over-capacity": "truncated" });
    files.push(("objects/endpoints.yaml", cut));
    assert_nobody_is_blamed(&bundle(&files));
    // Where slices were listed and there are none, Endpoints do not make up for them.
    let empty = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [] });
    let mut files = without("objects/endpointslices.yaml");
    files.push(("objects/endpoints.yaml", endpoints(true)));
    files.push(("objects/slices.json", empty));
    assert_cause(&bundle(&files), "EndpointSlicesStale");
    // Where there are slices, they are what kube-proxy reads.
    let mut files = healthy();
    files.push(("objects/endpoints.yaml", endpoints(false)));
    assert!(judge(&bundle(&files)).api_is_faultless());
}

#[test]
fn a_dump_of_the_cluster_is_understood() {
    let typed = |kind: &str, api: &str, item: Value| {
        let mut item = item;
        item.as_object_mut().unwrap().remove("kind");
        item.as_object_mut().unwrap().remove("apiVersion");
        json!({ "kind": format!("{kind}List"), "apiVersion": api, "items": [item] })
    };
    let files = [
        ("shop/pods.json", typed("Pod", "v1", web_pod())),
        ("shop/services.json", typed("Service", "v1", service())),
        (
            "shop/endpoints.json",
            typed("EndpointSlice", "discovery.k8s.io/v1", full_slice()),
        ),
        (
            "shop/deployments.json",
            json!({ "kind": "DeploymentList", "apiVersion": "apps/v1", "items": [] }),
        ),
    ];
    let bundle = bundle(&files);
    assert_eq!(bundle.problems, []);
    let answers = answers(&bundle);
    assert_eq!(answers[&C::EndpointsPopulated].0, ConditionStatus::True);
    // A dump has no NetworkPolicies.
    assert_eq!(answers[&C::NetworkPolicyAllows].1, Reason::ProbeFailed);
}

#[test]
fn dns_is_not_judged_by_some_of_its_pods() {
    let mut dns = service();
    dns["metadata"] = json!({ "name": "kube-dns", "namespace": "kube-system" });
    let mut down = web_pod();
    down["metadata"]["namespace"] = "kube-system".into();
    down["status"]["conditions"][0]["status"] = "False".into();
    let mut files = healthy();
    files.push(("objects/dns.yaml", dns));
    files.push(("objects/dns-pod.yaml", down.clone()));
    assert_eq!(judge(&bundle(&files)).root_cause, None);
    files.pop();
    files.push(("objects/kube-system/pods.yaml", list(&[down])));
    assert_cause(&bundle(&files), "ClusterDNSNotReady");
}

#[test]
fn objects_in_another_version_and_without_a_name_are_told() {
    let mut lookalike = web_pod();
    lookalike["metadata"]["resourceVersion"] = "9".into();
    let mut nameless = web_pod();
    nameless["metadata"]["name"] = Value::Null;
    let mut homeless = web_pod();
    homeless["metadata"]["namespace"] = Value::Null;
    let mut files = healthy();
    files.push(("objects/z.yaml", list(&[lookalike, nameless, homeless])));
    let found = bundle(&files);
    let told: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("another version"), "{told:?}");
    assert!(told[1].contains("no name"), "{told:?}");
    assert_eq!((told.len(), found.without_namespace), (2, 1), "{told:?}");
    assert!(found.inventory.has_pod("default", "web-1"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_in_a_bundle_are_no_panic_and_no_verdict(text in "(apiVersion: v1\n|kind: (Pod|Service|List|PodList|EndpointSlice)\n|items:\n|- |metadata:\n|  name: web\n|  namespace: shop\n|---\n|\\PC)*") {
        let found = bundle(&[("objects/x.yaml", text.into())]);
        let _ = judge(&found);
    }
}
