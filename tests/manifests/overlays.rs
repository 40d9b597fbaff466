//! The overlays for platforms: each adds to config/default what its platform needs, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::DynamicObject;
use serde_json::{Value, json};
use svcdiag_sandbox::kubectl::Kubectl;

use super::{ROOT, find, kind, render, strings};

/// Objects by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

async fn rendered(directory: &str) -> Vec<DynamicObject> {
    render(&Kubectl::find().await.unwrap(), directory).await
}

fn by_name(objects: &[DynamicObject]) -> Objects {
    let named = |o: &DynamicObject| {
        let metadata = &o.metadata;
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        format!(
            "{} {}/{}",
            kind(o),
            namespace.unwrap_or_default(),
            name.unwrap_or_default()
        )
    };
    objects
        .iter()
        .map(|o| (named(o), serde_json::to_value(o).unwrap()))
        .collect()
}

/// The objects of an overlay that are not those of config/default.
async fn other_than_default(overlay: &Objects) -> BTreeSet<String> {
    let default = by_name(&rendered("config/default").await);
    for name in default.keys() {
        assert!(overlay.contains_key(name), "{name} is gone");
    }
    let differs = |(name, object): &(&String, &Value)| default.get(*name) != Some(*object);
    overlay
        .iter()
        .filter(differs)
        .map(|(name, _)| name.clone())
        .collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

const AGENTS: &str = "DaemonSet svcdiag-system/svcdiag-agent";
const CONTROLLER: &str = "Deployment svcdiag-controller/svcdiag-controller";

#[test]
fn the_documentation_names_every_overlay() {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/platforms.md")).unwrap();
    let overlays = std::fs::read_dir(format!("{ROOT}/config/overlays")).unwrap();
    let overlays: Vec<String> = overlays
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(overlays.len() >= 3, "{overlays:?}");
    for overlay in overlays {
        assert!(
            page.contains(&format!("`config/overlays/{overlay}`")),
            "{overlay}"
        );
    }
}

#[tokio::test]
async fn on_gke_a_quota_admits_the_priority_class_of_the_agents() {
    let objects = rendered("config/overlays/gke").await;
    let quota = find(&objects, "ResourceQuota");
    let agents = find(&objects, "DaemonSet");
    assert_eq!(quota.metadata.namespace, agents.metadata.namespace);
    let scope = &quota.data["spec"]["scopeSelector"]["matchExpressions"][0];
    assert_eq!(
        (&scope["scopeName"], &scope["operator"]),
        (&json!("PriorityClass"), &json!("In"))
    );
    let class = agents.data["spec"]["template"]["spec"]["priorityClassName"].clone();
    assert_eq!(scope["values"], json!([class]));
    let other = other_than_default(&by_name(&objects)).await;
    assert_eq!(other, names(["ResourceQuota svcdiag-system/svcdiag-agent"]));
}

#[tokio::test]
async fn for_selinux_the_agents_get_a_type_and_nothing_else_changes() {
    let objects = by_name(&rendered("config/overlays/selinux").await);
    assert_eq!(other_than_default(&objects).await, names([AGENTS]));
    let security = &objects[AGENTS]["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(security["seLinuxOptions"], json!({ "type": "spc_t" }));
}

/// Whether the constraints let in what the agents' Pods ask for, and no more.
#[tokio::test]
async fn openshift_grants_the_agents_what_they_ask_for_and_no_more() {
    let objects = rendered("config/overlays/openshift").await;
    let granted = &find(&objects, "SecurityContextConstraints").data;
    let template = &find(&objects, "DaemonSet").data["spec"]["template"];
    let pod = &template["spec"];
    let security = &pod["containers"][0]["securityContext"];
    for (allowed, asked) in [
        ("allowHostNetwork", &pod["hostNetwork"]),
        ("allowHostPID", &pod["hostPID"]),
        ("allowHostIPC", &pod["hostIPC"]),
        ("allowHostPorts", &pod["containers"][0]["ports"]),
        ("allowHostDirVolumePlugin", &Value::Null),
        ("allowPrivilegedContainer", &security["privileged"]),
        ("allowPrivilegeEscalation", &security["allowPrivilegeEscalation"]),
        ("readOnlyRootFilesystem", &security["readOnlyRootFilesystem"]),
    ] {
        assert_eq!(granted[allowed], asked == &json!(true), "{allowed}");
    }
    let capabilities = &security["capabilities"];
    assert_eq!(
        strings(&granted["allowedCapabilities"]),
        strings(&capabilities["add"])
    );
    assert_eq!(
        strings(&granted["requiredDropCapabilities"]),
        strings(&capabilities["drop"])
    );
    assert_eq!(
        granted["runAsUser"],
        json!({ "type": "MustRunAs", "uid": security["runAsUser"] })
    );
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(granted["seccompProfiles"], json!(["runtime/default"]));
    assert_eq!(granted["seLinuxContext"]["type"], "RunAsAny");
    assert_eq!(security["seLinuxOptions"]["type"], "spc_t");
    let of_volume = |volume: &Value| {
        let kinds = volume.as_object().unwrap().keys();
        kinds.filter(|key| *key != "name").cloned().collect::<Vec<_>>()
    };
    let mut volumes: BTreeSet<String> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(of_volume)
        .collect();
    // The kubelet's own, for the token.
    volumes.insert("projected".to_owned());
    assert_eq!(
        strings(&granted["volumes"]),
        volumes.iter().map(String::as_str).collect::<BTreeSet<_>>()
    );
}

/// Each Pod names the constraints that its account may use; the controller takes the UID that it is given.
#[tokio::test]
async fn on_openshift_both_accounts_may_use_the_constraints_that_their_pods_name() {
    let objects = by_name(&rendered("config/overlays/openshift").await);
    for (workload, scc) in [(AGENTS, "svcdiag-agent"), (CONTROLLER, "restricted-v2")] {
        let object = &objects[workload];
        let template = &object["spec"]["template"];
        assert_eq!(
            template["metadata"]["annotations"]["openshift.io/required-scc"],
            scc
        );
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let account = template["spec"]["serviceAccountName"].as_str().unwrap();
        let role = &objects[&format!("Role {namespace}/{account}-scc")];
        let rule = json!([{ "apiGroups": ["security.openshift.io"], "resources": ["securitycontextconstraints"],
            "resourceNames": [scc], "verbs": ["use"] }]);
        assert_eq!(role["rules"], rule);
        let binding = &objects[&format!("RoleBinding {namespace}/{account}-scc")];
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        let subject = json!([{ "kind": "ServiceAccount", "name": account, "namespace": namespace }]);
        assert_eq!(binding["subjects"], subject);
    }
    let security = &objects[CONTROLLER]["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert!(security["runAsUser"].is_null() && security["runAsGroup"].is_null());
    let expected = names([
        AGENTS,
        CONTROLLER,
        "Role svcdiag-controller/svcdiag-controller-scc",
        "Role svcdiag-system/svcdiag-agent-scc",
        "RoleBinding svcdiag-controller/svcdiag-controller-scc",
        "RoleBinding svcdiag-system/svcdiag-agent-scc",
        "SecurityContextConstraints /svcdiag-agent",
    ]);
    assert_eq!(other_than_default(&objects).await, expected);
}
