//! What users apply: crds/ is what the types say, config/ renders, and every object in it is one
//! that its kind allows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "manifests/agent.rs"]
mod agent;
#[path = "manifests/alerts.rs"]
mod alerts;
#[path = "manifests/controller.rs"]
mod controller;
#[path = "manifests/dashboards.rs"]
mod dashboards;
#[path = "manifests/overlays.rs"]
mod overlays;
#[path = "manifests/rollout.rs"]
mod rollout;

use std::{collections::BTreeSet, path::Path};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams, PostParams},
    discovery::{ApiResource, Discovery, Scope},
};
use serde_json::Value;
use svcdiag::api::{AGENT_LABEL, AGENT_LEASE_PREFIX, APISERVER_CONFIG_MAP, NodeProbe, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    kubectl::Kubectl,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_crds_are_those_of_the_types() {
    for (name, manifest) in svcdiag::api::crd_manifests().unwrap() {
        let path = Path::new(ROOT).join("crds").join(&name);
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == manifest,
            "{} is out of date: run make generate and commit",
            path.display()
        );
    }
}

/// Cargo builds nothing where a member of the workspace, a test or a benchmark of Cargo.toml cannot be found.
#[test]
fn the_image_is_built_from_all_that_cargo_wants_to_see() {
    let read = |name: &str| std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
    let (manifest, image) = (read("Cargo.toml"), read("Containerfile"));
    let members = manifest
        .lines()
        .find(|line| line.starts_with("members = "))
        .unwrap();
    let mut wanted: BTreeSet<&str> = members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|member| member.split('/').next().unwrap())
        .filter(|member| *member != ".")
        .collect();
    // `svcdiag explain` has the pages.
    wanted.extend(["src", "build.rs", "docs/reasons"]);
    wanted.extend(manifest.contains("[[test]]").then_some("tests"));
    wanted.extend(manifest.contains("[[bench]]").then_some("benches"));
    assert!(wanted.len() > 4, "{wanted:?}");
    let copied: BTreeSet<&str> = image
        .lines()
        .filter_map(|line| line.strip_prefix("COPY ")?.split_whitespace().next())
        .collect();
    assert!(wanted.is_subset(&copied), "{wanted:?}, but copied are {copied:?}");
}

/// The objects that a kustomization yields.
async fn render(kubectl: &Kubectl, directory: &str) -> Vec<DynamicObject> {
    let path = Path::new(ROOT).join(directory);
    let text = kubectl.run(&["kustomize", path.to_str().unwrap()]).await.unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map(|t| t.kind.as_str()).unwrap_or_default()
}

fn find<'a>(objects: &'a [DynamicObject], wanted: &str) -> &'a DynamicObject {
    objects
        .iter()
        .find(|o| kind(o) == wanted)
        .unwrap_or_else(|| panic!("no {wanted}"))
}

fn gvk(object: &DynamicObject) -> kube::api::GroupVersionKind {
    let types = object.types.as_ref().unwrap();
    let (group, version) = types
        .api_version
        .split_once('/')
        .unwrap_or(("", &types.api_version));
    kube::api::GroupVersionKind::gvk(group, version, &types.kind)
}

fn is_served(discovery: &Discovery, object: &DynamicObject) -> bool {
    discovery.resolve_gvk(&gvk(object)).is_some()
}

/// Applies every object as a dry run; the server is the judge of each.
async fn accept(client: &Client, discovery: &Discovery, objects: &[DynamicObject]) {
    for object in objects {
        let gvk = gvk(object);
        let (resource, capabilities): (ApiResource, _) = discovery
            .resolve_gvk(&gvk)
            .unwrap_or_else(|| panic!("the server does not know {gvk:?}"));
        let api: Api<DynamicObject> = match (capabilities.scope, &object.metadata.namespace) {
            (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
            (Scope::Namespaced, None) => Api::namespaced_with(client.clone(), "default", &resource),
        };
        let name = object.metadata.name.as_deref().unwrap();
        let mut params = PatchParams::apply("test").force();
        params.field_validation = Some(kube::api::ValidationDirective::Strict);
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .unwrap_or_else(|error| panic!("{} {name}: {error}", gvk.kind));
    }
}

/// Has the server judge a Pod of a workload in the place of one of another.
async fn try_pod(client: &Client, of: &DynamicObject, place: &DynamicObject) -> kube::Result<Pod> {
    let mut spec = of.data["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = place.data["spec"]["template"]["spec"]["serviceAccountName"].clone();
    let pod = serde_json::json!({ "metadata": { "name": "tried" }, "spec": spec });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let namespace = place.metadata.namespace.as_deref().unwrap();
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Api::namespaced(client.clone(), namespace)
        .create(&params, &pod)
        .await
}

/// All kustomizations that need nothing but Kubernetes, applied for real.
#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_accepted_by_the_api_server() {
    let config = ClusterConfig {
        controllers: false,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let kubectl = Kubectl::find().await.unwrap();
    let client = cluster.client();
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let mut checked = 0;
    for directory in ["config/agentless", "config/default", "config/samples"] {
        let mut objects = render(&kubectl, directory).await;
        assert!(!objects.is_empty());
        // Namespaces first, as kubectl does it.
        objects.sort_by_key(|o| kind(o) != "Namespace");
        accept(&client, &discovery, &objects).await;
        checked += objects.len();
    }
    for directory in ["config/default", "config/hardened", "config/overlays/openshift"] {
        let objects = render(&kubectl, directory).await;
        let [controller, agent] = ["Deployment", "DaemonSet"].map(|kind| find(&objects, kind));
        try_pod(&client, controller, controller).await.unwrap();
        try_pod(&client, agent, agent).await.unwrap();
        if cluster.embedded().is_none() {
            let refused = try_pod(&client, agent, controller).await.unwrap_err().to_string();
            assert!(
                refused.contains("violates PodSecurity \"restricted:latest\""),
                "{refused}"
            );
        }
    }
    // Last: nobody here counts what a quota admits, and until then it admits nothing.
    for overlay in ["gke", "openshift", "selinux"] {
        let mut objects = render(&kubectl, &format!("config/overlays/{overlay}")).await;
        // What a platform has beyond Kubernetes is not served here.
        objects.retain(|o| is_served(&discovery, o));
        objects.sort_by_key(|o| kind(o) != "Namespace");
        accept(&client, &discovery, &objects).await;
        checked += objects.len();
    }
    println!("{checked} objects accepted by {}", cluster.describe());
    cluster.stop().await;
}

#[tokio::test]
async fn the_samples_have_one_diagnosis_for_each_kind_of_service() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/samples").await;
    let services: Vec<&DynamicObject> = objects.iter().filter(|o| kind(o) == "Service").collect();
    let names: BTreeSet<_> = services
        .iter()
        .map(|s| s.metadata.name.clone().unwrap())
        .collect();
    for object in objects.iter().filter(|o| kind(o) == "ServiceDiagnosis") {
        let diagnosis: ServiceDiagnosis =
            serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
        assert!(
            names.contains(&diagnosis.spec.service_name),
            "{:?}",
            diagnosis.metadata.name
        );
    }
    let types: BTreeSet<&str> = services
        .iter()
        .map(
            |s| match (&s.data["spec"]["clusterIP"], &s.data["spec"]["type"]) {
                (Value::String(ip), _) if ip == "None" => "Headless",
                (_, Value::String(t)) => t,
                _ => "ClusterIP",
            },
        )
        .collect();
    let expected = [
        "ClusterIP",
        "ExternalName",
        "Headless",
        "LoadBalancer",
        "NodePort",
    ];
    assert_eq!(types, BTreeSet::from(expected));
}

/// The level of Pod Security that the namespace of an object enforces.
fn pod_security<'a>(objects: &'a [DynamicObject], object: &DynamicObject) -> &'a str {
    let is_its = |o: &&DynamicObject| kind(o) == "Namespace" && o.metadata.name == object.metadata.namespace;
    let namespace = objects.iter().find(is_its).expect("its namespace");
    &namespace.metadata.labels.as_ref().unwrap()["pod-security.kubernetes.io/enforce"]
}

/// Each namespace that objects are in or speak of is one that there is.
#[tokio::test]
async fn accounts_and_objects_are_in_namespaces_that_there_are() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let named = |wanted: &str, namespace: Option<&str>, name: &str| {
        let is_it = |o: &DynamicObject| {
            kind(o) == wanted
                && o.metadata.namespace.as_deref() == namespace
                && o.metadata.name.as_deref() == Some(name)
        };
        assert!(objects.iter().any(is_it), "no {wanted} {namespace:?} {name}");
    };
    let opt_in = [
        "config/network-policy",
        "config/metrics-auth",
        "config/open-reports",
        "config/flow-control",
        "config/overlays/gke",
        "config/overlays/openshift",
    ];
    let mut all = objects.clone();
    for directory in opt_in {
        all.extend(render(&kubectl, directory).await);
    }
    let mut accounts = 0;
    for object in &all {
        if let Some(namespace) = object.metadata.namespace.as_deref() {
            named("Namespace", None, namespace);
        }
        let of_binding = object.data["subjects"].as_array().into_iter().flatten();
        let of_schema = object
            .data
            .pointer("/spec/rules/0/subjects")
            .and_then(Value::as_array);
        let of_schema = of_schema.into_iter().flatten().map(|s| &s["serviceAccount"]);
        for account in of_binding.chain(of_schema) {
            let text = |field: &str| account[field].as_str().unwrap();
            named("ServiceAccount", Some(text("namespace")), text("name"));
            accounts += 1;
        }
    }
    assert!(accounts >= 7, "{accounts}");
}

/// What config/hardened adds to what is in config/default: the profiles, which tests/security tries, and the type.
#[tokio::test]
async fn hardened_is_the_default_with_profiles_and_a_type() {
    let kubectl = Kubectl::find().await.unwrap();
    let mut objects = render(&kubectl, "config/hardened").await;
    for (kind_, at, program) in [
        (
            "DaemonSet",
            "/spec/template/spec/containers/0/securityContext",
            "agent",
        ),
        ("Deployment", "/spec/template/spec/securityContext", "controller"),
    ] {
        let object = objects.iter_mut().find(|o| kind(o) == kind_).unwrap();
        let security = object.data.pointer_mut(at).unwrap().as_object_mut().unwrap();
        let profile = format!("svcdiag/{program}.json");
        let expected = serde_json::json!({ "type": "Localhost", "localhostProfile": profile });
        assert_eq!(security["seccompProfile"], expected);
        let file = format!("config/seccomp/profiles/{program}.json");
        assert!(Path::new(ROOT).join(file).is_file());
        security["seccompProfile"] = serde_json::json!({ "type": "RuntimeDefault" });
        if kind_ == "DaemonSet" {
            assert_eq!(
                security.remove("seLinuxOptions"),
                Some(serde_json::json!({ "type": "spc_t" }))
            );
        }
    }
    let plain = render(&kubectl, "config/default").await;
    let json = |objects: &[DynamicObject]| serde_json::to_value(objects).unwrap();
    assert_eq!(json(&objects), json(&plain));
}

/// The values of a list of strings.
fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

/// What the expressions say is judged on a real API server (tests/e2e/rights.rs); here, that they are in
/// force and speak of the accounts, names and resources that there are.
#[tokio::test]
async fn the_admission_policies_are_bound_and_name_what_there_is() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let named = |wanted: &str, name: &str| {
        let found = objects
            .iter()
            .find(|o| kind(o) == wanted && o.metadata.name.as_deref() == Some(name));
        found.unwrap_or_else(|| panic!("no {wanted} {name}")).data.clone()
    };
    let controller = "system:serviceaccount:svcdiag-controller:svcdiag-controller";
    let agent = "system:serviceaccount:svcdiag-system:svcdiag-agent";
    for (name, resource, parts) in [
        (
            "svcdiag-nodeprobe-spec",
            "nodeprobes",
            [controller, "oldObject.spec"],
        ),
        (
            "svcdiag-nodeprobe-status",
            "nodeprobes/status",
            [agent, "object.spec.nodeName"],
        ),
        ("svcdiag-agent-lease", "leases", [agent, AGENT_LEASE_PREFIX]),
    ] {
        let policy = &named("ValidatingAdmissionPolicy", name)["spec"];
        assert_eq!(policy["failurePolicy"], "Fail", "{name}");
        let rule = &policy["matchConstraints"]["resourceRules"][0];
        assert_eq!(strings(&rule["resources"]), BTreeSet::from([resource]), "{name}");
        assert_eq!(
            strings(&rule["operations"]),
            BTreeSet::from(["CREATE", "UPDATE"]),
            "{name}"
        );
        let expression = policy["validations"][0]["expression"].as_str().unwrap();
        for part in parts {
            assert!(expression.contains(part), "{name}: {part} is not in {expression}");
        }
        if parts[0] == agent {
            let node = policy["variables"][0]["expression"].as_str().unwrap();
            assert!(
                node.contains("authentication.kubernetes.io/node-name"),
                "{name}: {node}"
            );
        }
        let binding = &named("ValidatingAdmissionPolicyBinding", name)["spec"];
        assert_eq!(binding["policyName"], name);
        assert_eq!(strings(&binding["validationActions"]), BTreeSet::from(["Deny"]));
    }
    for account in ["svcdiag-controller", "svcdiag-agent"] {
        named("ServiceAccount", account);
    }
}
