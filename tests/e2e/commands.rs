//! Commands for kubectl that svcdiag prints, typed as they are printed with an unmodified kubectl: each is taken,
//! leaves behind what the message promises, and changes no other object.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};
use svcdiag_sandbox::faults::Fixture;
use tokio::process::Command;

use crate::harness::{Harness, at_rest, eventually};

const TABLE: &str = include_str!("../../crates/engine/tests/engine/commands.md");

const NAMESPACE: &str = "typed-commands";

/// Rows that change nothing, with what stands in place of each `{}`; a word in capitals is one of the namespace's
/// own objects.
const READS: [(&str, &[&str]); 31] = [
    ("kubectl -n kube-system get configmap kube-proxy -o yaml", &[]),
    (
        "kubectl -n kube-system get pods -l component=kube-controller-manager",
        &[],
    ),
    (
        "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide --field-selector spec.nodeName={}",
        &["sandbox-1"],
    ),
    (
        "kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={}",
        &["sandbox-1"],
    ),
    ("kubectl -n {} describe pod {}", &["NAMESPACE", "POD"]),
    ("kubectl -n {} describe service {}", &["NAMESPACE", "SERVICE"]),
    (
        "kubectl -n {} describe {}",
        &["NAMESPACE", "deployment/hostnames"],
    ),
    (
        "kubectl -n {} get configmap {} -o yaml",
        &["kube-system", "coredns"],
    ),
    ("kubectl -n {} get configmaps", &["kube-system"]),
    (
        "kubectl -n {} get deployments,statefulsets,replicasets,pods --show-labels",
        &["NAMESPACE"],
    ),
    (
        "kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml",
        &["NAMESPACE", "SERVICE"],
    ),
    (
        "kubectl -n {} get endpointslices -l kubernetes.io/service-name={}",
        &["NAMESPACE", "SERVICE"],
    ),
    ("kubectl -n {} get pod {} -o json", &["NAMESPACE", "POD"]),
    (
        "kubectl -n {} get pod {} -o jsonpath='{.spec.dnsPolicy} {.spec.dnsConfig}'",
        &["NAMESPACE", "POD"],
    ),
    ("kubectl -n {} get pod {} -o yaml", &["NAMESPACE", "POD"]),
    ("kubectl -n {} get pods --show-labels", &["NAMESPACE"]),
    ("kubectl -n {} get pods -o json", &["NAMESPACE"]),
    (
        "kubectl -n {} get pods -l {} -L {}",
        &["NAMESPACE", "app=hostnames", "pod-template-hash"],
    ),
    (
        "kubectl -n {} get pods -l {}",
        &["NAMESPACE", "'app=hostnames,pod-template-hash notin (a)'"],
    ),
    ("kubectl -n {} get pods", &["NAMESPACE"]),
    (
        "kubectl -n {} get service {} -o yaml --show-managed-fields",
        &["NAMESPACE", "SERVICE"],
    ),
    ("kubectl -n {} get service {}", &["NAMESPACE", "SERVICE"]),
    (
        "kubectl -n {} get servicediagnoses,nodeprobes,services,endpointslices -o yaml > {}.yaml",
        &["NAMESPACE", "SERVICE"],
    ),
    ("kubectl describe node {}", &["sandbox-1"]),
    ("kubectl get --raw /api/v1/namespaces/{}/pods", &["NAMESPACE"]),
    ("kubectl get nodes -o json", &[]),
    ("kubectl get nodes -o wide", &[]),
    (
        "kubectl get pods --all-namespaces -l app.kubernetes.io/component=svcdiag-agent -o wide",
        &[],
    ),
    (
        "kubectl get pods --all-namespaces -l k8s-app=node-local-dns --field-selector spec.nodeName={} -o wide",
        &["sandbox-1"],
    ),
    (
        "kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={}",
        &["sandbox-1"],
    ),
    ("svcdiag check {} -n {}", &["SERVICE", "NAMESPACE"]),
];

/// Rows that change something: what is put in, what may be another one afterwards (by the beginning of its kind
/// and name), and where what the message promises can be read.
struct Change {
    row: &'static str,
    values: &'static [&'static str],
    changes: &'static [&'static str],
    /// Kind and name, and a path in the object with what is there then.
    promises: Option<(&'static str, &'static str, &'static str)>,
}

const CHANGES: [Change; 9] = [
    // An editor that leaves all as it is.
    Change {
        row: "kubectl -n {} edit endpointslice {}",
        values: &["NAMESPACE", "SLICE"],
        changes: &[],
        promises: None,
    },
    Change {
        row: "kubectl -n {} edit networkpolicy {}",
        values: &["NAMESPACE", "all"],
        changes: &[],
        promises: None,
    },
    Change {
        row: "kubectl -n {} edit service {}",
        values: &["NAMESPACE", "SERVICE"],
        changes: &[],
        promises: None,
    },
    Change {
        row: "kubectl -n {} expose deployment {} --port=PORT --target-port=TARGET",
        values: &["NAMESPACE", "client"],
        changes: &["Service/client", "EndpointSlice/client-"],
        promises: Some(("Service/client", "/spec/selector/app", "client")),
    },
    Change {
        row: r#"kubectl -n {} patch service {} --type=merge -p '{"spec":{"internalTrafficPolicy":"Cluster"}}'"#,
        values: &["NAMESPACE", "SERVICE"],
        changes: &["Service/hostnames"],
        promises: Some(("Service/hostnames", "/spec/internalTrafficPolicy", "Cluster")),
    },
    Change {
        row: r#"kubectl -n {} patch service {} --type=merge -p '{"spec":{"ipFamilyPolicy":"PreferDualStack"}}'"#,
        values: &["NAMESPACE", "SERVICE"],
        changes: &["Service/hostnames", "EndpointSlice/hostnames-"],
        promises: Some(("Service/hostnames", "/spec/ipFamilyPolicy", "PreferDualStack")),
    },
    Change {
        row: "kubectl annotate namespace {} {}={}",
        values: &["NAMESPACE", "svcdiag.dev/clients-for", "shop"],
        changes: &["Namespace/typed-commands"],
        promises: Some((
            "Namespace/typed-commands",
            "/metadata/annotations/svcdiag.dev~1clients-for",
            "shop",
        )),
    },
    Change {
        row: "kubectl -n {} delete pod {}",
        values: &["NAMESPACE", "POD"],
        changes: &["Pod/hostnames-", "EndpointSlice/hostnames-"],
        promises: None,
    },
    Change {
        row: "svcdiag crd | kubectl apply --server-side -f -",
        values: &[],
        changes: &[],
        promises: Some((
            "CustomResourceDefinition/nodeprobes.svcdiag.dev",
            "/spec/names/kind",
            "NodeProbe",
        )),
    },
];

/// The namespace's own objects, by the words that stand for them.
async fn own_objects(harness: &Harness) -> BTreeMap<&'static str, String> {
    let name = async |kind: &str, label: &str| {
        let arguments = ["-n", NAMESPACE, "get", kind, "-l", label, "-o", "name"];
        let names = harness.kubectl.run(&arguments).await.unwrap();
        names
            .lines()
            .next()
            .unwrap()
            .split_once('/')
            .unwrap()
            .1
            .to_owned()
    };
    BTreeMap::from([
        ("NAMESPACE", NAMESPACE.to_owned()),
        ("SERVICE", Fixture::NAME.to_owned()),
        ("POD", name("pods", "app=hostnames").await),
        (
            "SLICE",
            name("endpointslices", "kubernetes.io/service-name=hostnames").await,
        ),
    ])
}

fn filled(row: &str, values: &[&str], own: &BTreeMap<&str, String>) -> String {
    let mut values = values.iter();
    let mut parts = row.split("{}");
    let first = parts.next().unwrap().to_owned();
    let line = parts.fold(first, |line, part| {
        let value = values.next().unwrap();
        line + own.get(value).map_or(*value, String::as_str) + part
    });
    // What the user has to fill in.
    line.replace("PORT", "8080").replace("TARGET", "9376")
}

/// As a user would: in a shell of an empty directory, so that quotes count.
async fn types(harness: &Harness, line: &str) {
    let directory = tempfile::tempdir().unwrap();
    let programs = directory.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let own = [
        ("kubectl", harness.kubectl.program()),
        ("svcdiag", Path::new(env!("CARGO_BIN_EXE_svcdiag"))),
    ];
    // One that is found by its name is found so in the shell as well.
    for (name, program) in own.into_iter().filter(|(_, program)| program.is_absolute()) {
        std::os::unix::fs::symlink(program, programs.join(name)).unwrap();
    }
    let path = format!(
        "{}:{}",
        programs.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .current_dir(directory.path())
        .env("KUBECONFIG", harness.cluster.kubeconfig_path())
        .env("KUBE_EDITOR", "true")
        .env("PATH", path);
    let output = shell.output().await.unwrap();
    // Without agents `svcdiag check` says that nothing was probed, which has a code of its own.
    let is_taken =
        output.status.success() || line.starts_with("svcdiag check") && output.status.code() == Some(2);
    assert!(is_taken, "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What users and controllers wrote, without what changes at rest: status, versions, and who wrote what.
async fn objects(harness: &Harness) -> BTreeMap<String, Value> {
    const KINDS: &str = "namespaces,nodes,services,endpointslices,pods,configmaps,deployments,replicasets,statefulsets,networkpolicies,servicediagnoses,customresourcedefinitions";
    let text = harness
        .kubectl
        .run(&["get", KINDS, "-A", "-o", "json"])
        .await
        .unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let each = list["items"].as_array().unwrap().iter().map(|item| {
        let kind = item["kind"].as_str().unwrap();
        let mut item = item.clone();
        item["status"] = Value::Null;
        let metadata = item["metadata"].as_object_mut().unwrap();
        for volatile in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(volatile);
        }
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
        }
        let namespace = metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or(NAMESPACE);
        let prefix = if namespace == NAMESPACE {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let name = metadata["name"].as_str().unwrap();
        (format!("{prefix}{}/{name}", kind), item)
    });
    each.collect()
}

/// The objects that came, went or changed.
fn changed(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let all = before.keys().chain(after.keys());
    let is_other = |key: &&String| before.get(*key) != after.get(*key);
    all.filter(is_other).cloned().collect()
}

async fn prepare(harness: &Harness) {
    let others = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-proxy", "namespace": "kube-system" } },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "coredns", "namespace": "kube-system" } },
        { "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "all", "namespace": NAMESPACE },
          "spec": { "podSelector": {}, "ingress": [{}] } },
    ] });
    harness
        .kubectl
        .run_with_input(&["apply", "--validate=false", "-f", "-"], &others.to_string())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_taken_and_leaves_what_it_promises_and_nothing_else_changed() {
    let harness = Harness::start().await;
    let fixture = harness.fixture(NAMESPACE).await;
    prepare(&harness).await;
    let before = at_rest(async || objects(&harness).await).await;
    let own = own_objects(&harness).await;
    for (row, values) in READS {
        types(&harness, &filled(row, values, &own)).await;
    }
    let none = BTreeSet::new();
    assert_eq!(
        changed(&before, &objects(&harness).await),
        none,
        "by one that reads"
    );
    let local = r#"{"spec":{"internalTrafficPolicy":"Local"}}"#;
    let patch = [
        "-n",
        NAMESPACE,
        "patch",
        "service",
        Fixture::NAME,
        "--type=merge",
        "-p",
        local,
    ];
    harness.kubectl.run(&patch).await.unwrap();
    for change in &CHANGES {
        let before = at_rest(async || objects(&harness).await).await;
        let own = own_objects(&harness).await;
        let line = filled(change.row, change.values, &own);
        types(&harness, &line).await;
        if let Some((object, path, value)) = change.promises {
            eventually(&line, async || {
                let all = objects(&harness).await;
                all.get(object)?
                    .pointer(path)?
                    .as_str()
                    .filter(|v| *v == value)
                    .map(drop)
            })
            .await;
        }
        // What is deleted is made again.
        fixture.wait_for_endpoints(Fixture::ENDPOINTS).await.unwrap();
        let after = at_rest(async || objects(&harness).await).await;
        let changed = changed(&before, &after);
        let is_meant = |key: &&String| change.changes.iter().any(|start| key.starts_with(start));
        assert!(changed.iter().all(|key| is_meant(&key)), "{line}: {changed:?}");
    }
    harness.stop().await;
}

#[test]
fn the_table_says_which_are_typed_here() {
    let rows = TABLE.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let run = rest.trim_end_matches('|').rsplit('|').next()?.trim();
        run.split(", ").any(|run| run == "e2e").then_some(command)
    });
    let rows: BTreeSet<&str> = rows.collect();
    let changes = CHANGES.iter().map(|change| change.row);
    let typed: BTreeSet<&str> = READS.iter().map(|(row, _)| *row).chain(changes).collect();
    let missing: Vec<&&str> = typed.difference(&rows).collect();
    assert!(missing.is_empty(), "the table does not say so of {missing:?}");
    // Those of the remedies, whose faults are gone when they were typed.
    let elsewhere: Vec<&&str> = rows.difference(&typed).collect();
    assert_eq!(elsewhere.len(), 2, "{elsewhere:?}");
}
