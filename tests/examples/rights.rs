//! The account of `examples/rbac`: it may read what `check` and `collect` read, and no more.

use std::{collections::BTreeSet, path::Path, process::Output};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use svcdiag::api::{AGENT_LABEL, NodeProbe, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::Fixture,
};

use super::{documents, yaml};

const ACCOUNT: &str = "svcdiag-check";
const AGENTS: &str = "svcdiag-system";

/// What it does without: each read leads to a gap in the answer, not to an error.
const LEFT_OUT: [&str; 2] = [
    // The Service of cluster DNS, in kube-system.
    "get services",
    "list nodes",
];

fn rules() -> Vec<Value> {
    let documents = documents().into_iter();
    let roles = documents.filter(|(_, it)| it["kind"] == "Role" && it["metadata"]["name"] == ACCOUNT);
    roles
        .flat_map(|(_, role)| role["rules"].as_array().unwrap().clone())
        .collect()
}

fn granted() -> BTreeSet<String> {
    let strings = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let mut rights = BTreeSet::new();
    for rule in rules() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let named = format!("{resource}.{group}");
                let named = named.trim_end_matches('.');
                rights.extend(
                    strings(&rule["verbs"])
                        .iter()
                        .map(|verb| format!("{verb} {named}")),
                );
            }
        }
    }
    rights
}

#[test]
fn the_account_is_bound_to_its_roles() {
    let documents = documents();
    let of_kind = |kind: &str| -> Vec<&Value> {
        let objects = documents.iter().map(|(_, it)| it);
        objects.filter(|it| it["kind"] == kind).collect()
    };
    let namespace = |it: &Value| it["metadata"]["namespace"].as_str().map(str::to_owned);
    let bound: Vec<_> = of_kind("RoleBinding").into_iter().map(namespace).collect();
    let roles: Vec<_> = of_kind("Role").into_iter().map(namespace).collect();
    assert_eq!(bound, roles);
    let account = of_kind("ServiceAccount")[0];
    for binding in of_kind("RoleBinding") {
        assert_eq!(binding["roleRef"]["name"], ACCOUNT);
        let subject = &binding["subjects"][0];
        for field in ["name", "namespace"] {
            assert_eq!(subject[field], account["metadata"][field]);
        }
    }
    let workloads = documents.iter();
    let names: Vec<_> = workloads
        .filter_map(|(_, it)| {
            it.pointer("/spec/metrics/0/provider/job/spec/template/spec/serviceAccountName")
        })
        .collect();
    assert_eq!(names, [ACCOUNT]);
}

async fn svcdiag(arguments: &[&str], kubeconfig: &Path) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_svcdiag"));
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    command.output().await.unwrap()
}

/// The report of an agent, without which `check` does not ask who is alive.
async fn report(cluster: &Cluster, namespace: &str) {
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), namespace);
    let uid = diagnoses.get(Fixture::NAME).await.unwrap().metadata.uid;
    let probe: NodeProbe = serde_json::from_value(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe", "metadata": { "name": "report" },
        "spec": { "nodeName": "sandbox-1", "diagnosis": { "name": Fixture::NAME, "uid": uid },
            "serviceName": Fixture::NAME, "intervalSeconds": 60 } }))
    .unwrap();
    let params = PostParams::default();
    let probes: Api<NodeProbe> = Api::namespaced(cluster.client(), namespace);
    probes.create(&params, &probe).await.unwrap();
    let (label, value) = AGENT_LABEL;
    let lease: Lease = serde_json::from_value(json!({ "metadata": { "name": "svcdiag-agent-sandbox-1",
        "labels": { label: value } }, "spec": { "leaseDurationSeconds": 40 } }))
    .unwrap();
    let leases: Api<Lease> = Api::namespaced(cluster.client(), AGENTS);
    leases.create(&params, &lease).await.unwrap();
}

/// The embedded server grants everybody everything, and notes what is made use of.
#[tokio::test(flavor = "multi_thread")]
async fn the_account_may_read_what_check_and_collect_read_and_no_more() {
    let config = ClusterConfig {
        assets: None,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "shop");
    fixture.set_up().await.unwrap();
    report(&cluster, "shop").await;
    let mut kubeconfig = yaml(cluster.kubeconfig_path());
    kubeconfig["users"] = json!([{ "name": ACCOUNT, "user": { "token": ACCOUNT } }]);
    kubeconfig["contexts"][0]["context"]["user"] = ACCOUNT.into();
    let path = cluster.state_dir().join("account.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();

    let bundle = cluster.state_dir().join("bundle.tar.gz");
    let bundle = bundle.to_str().unwrap();
    let query = [Fixture::NAME, "-n", "shop"];
    let checked = svcdiag(&[&["check"][..], &query].concat(), &path).await;
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    let server = cluster.embedded().unwrap();
    let used = server.store().rights_used(ACCOUNT);
    let mut expected = granted();
    expected.extend(LEFT_OUT.map(str::to_owned));
    assert_eq!(used, expected);

    server.store().deny(&["nodes"]);
    let checked = svcdiag(&[&["check", "--api-only"][..], &query].concat(), &path).await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let collected = svcdiag(&[&["collect", "-o", bundle][..], &query].concat(), &path).await;
    assert_eq!(collected.status.code(), Some(0), "{collected:?}");
    cluster.stop().await;
}
