//! What the controller runs with: its arguments and rights, with agents and without.

use super::*;

/// What config/agentless leaves out is what config/agent adds, the kind NodeProbe, and the permission to write it; it adds
/// one argument.
#[tokio::test]
async fn agentless_is_the_default_without_what_only_agents_need() {
    let kubectl = Kubectl::find().await.unwrap();
    let agentless = render(&kubectl, "config/agentless").await;
    let of_agents = render(&kubectl, "config/agent").await;
    let identity = |o: &DynamicObject| {
        (
            kind(o).to_owned(),
            o.metadata.namespace.clone(),
            o.metadata.name.clone(),
        )
    };
    let mut expected = render(&kubectl, "config/default").await;
    expected.retain(|o| {
        let is_of_agents = of_agents.iter().any(|other| identity(other) == identity(o));
        !is_of_agents && o.metadata.name.as_deref() != Some("nodeprobes.svcdiag.dev")
    });
    let of_controller = |o: &&mut DynamicObject| {
        identity(o) == ("ClusterRole".into(), None, Some("svcdiag-controller".into()))
    };
    let role = expected.iter_mut().find(of_controller).unwrap();
    let rules = role.data["rules"].as_array_mut().unwrap();
    let all = rules.len();
    rules.retain(|rule| {
        strings(&rule["resources"]) != BTreeSet::from(["nodeprobes"])
            || strings(&rule["verbs"]).contains("list")
    });
    assert_eq!(rules.len(), all - 1);
    // Without agents the objects are all that Ready can be about.
    let deployment = expected.iter_mut().find(|o| kind(o) == "Deployment").unwrap();
    let arguments = &mut deployment.data["spec"]["template"]["spec"]["containers"][0]["args"];
    arguments
        .as_array_mut()
        .unwrap()
        .push("--data-path=Ignore".into());
    let json = |objects: &[DynamicObject]| serde_json::to_value(objects).unwrap();
    assert_eq!(json(&agentless), json(&expected));
}

#[tokio::test]
async fn the_controller_runs_with_no_more_than_it_needs() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let deployment = find(&objects, "Deployment");
    let pod = &deployment.data["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert!(container[probe]["httpGet"]["path"].is_string(), "{probe}");
    }
    assert!(container["resources"]["requests"]["memory"].is_string());
    // What the level `restricted` of Pod Security asks for beyond that, and that its namespace asks for it.
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[field].is_null(), "{field}");
    }
    assert!(security["capabilities"]["add"].is_null() && security["privileged"].is_null());
    let ports = container["ports"].as_array().unwrap();
    assert!(ports.iter().all(|port| port["hostPort"].is_null()));
    assert_eq!(pod_security(&objects, deployment), "restricted");
    let agents = find(&objects, "DaemonSet");
    assert_eq!(pod_security(&objects, agents), "privileged");
    let told = format!(
        "--agent-namespace={}",
        agents.metadata.namespace.as_deref().unwrap()
    );
    assert!(strings(&container["args"]).contains(told.as_str()), "{told}");

    let roles = objects.iter().filter(|o| kind(o) == "ClusterRole");
    let controller = roles
        .clone()
        .find(|o| o.metadata.name.as_deref() == Some("svcdiag-controller"))
        .expect("the controller's role");
    for rule in controller.data["rules"].as_array().unwrap() {
        let has = |key: &str, wanted: &str| rule[key].as_array().unwrap().iter().any(|v| v == wanted);
        assert!(
            !has("resources", "secrets") && !has("resources", "configmaps"),
            "{rule}"
        );
        assert!(
            !has("verbs", "*") && !has("resources", "*") && !has("apiGroups", "*"),
            "{rule}"
        );
        let ours = has("apiGroups", "svcdiag.dev") || has("apiGroups", "events.k8s.io");
        let writes = ["create", "update", "patch", "delete"]
            .iter()
            .any(|verb| has("verbs", verb));
        assert!(ours || !writes, "it writes what is not its own: {rule}");
    }
    for role in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let found = roles.clone().any(|o| {
            let labels = o.metadata.labels.iter().flatten();
            labels.into_iter().any(|(k, v)| *k == label && v == "true")
        });
        assert!(found, "nothing is aggregated to {role}");
    }
}

/// The flags in the manifests are flags that the binary has.
#[tokio::test]
async fn the_arguments_of_controller_and_agent_are_understood() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    for kind in ["Deployment", "DaemonSet"] {
        let arguments = &find(&objects, kind).data["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments: Vec<&str> = arguments
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a.as_str().unwrap())
            .collect();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_svcdiag"))
            .args(arguments)
            .arg("--help")
            .output()
            .await
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
