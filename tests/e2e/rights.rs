//! The rights in config/ suffice for all that controller and agents do, and admission refuses what is not
//! theirs to write. The embedded server grants everybody everything, and notes what is made use of: no right is
//! missing, and none is there for nothing. The real one is the judge of the rest.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use svcdiag::api::{FIELD_MANAGER_AGENT, NodeProbe};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, NODES},
    faults::{Fault, Fixture, Verdict, catalogue},
    kubectl::Kubectl,
    svcdiag::Controller,
};

use crate::{
    agents::{Agent, NAMESPACE},
    harness::eventually,
};

/// A kubeconfig with the token of a service account.
pub(crate) async fn kubeconfig_of(
    cluster: &Cluster,
    admin: &Kubectl,
    namespace: &str,
    account: &str,
) -> PathBuf {
    kubeconfig_with(cluster, admin, namespace, account, &[]).await
}

/// The same with a token that is bound to something.
async fn kubeconfig_with(
    cluster: &Cluster,
    admin: &Kubectl,
    namespace: &str,
    account: &str,
    bound: &[&str],
) -> PathBuf {
    let whose = [&[account], bound].concat().join("-").replace(['=', '/'], "-");
    let path = cluster.state_dir().join(format!("{whose}.kubeconfig"));
    std::fs::copy(cluster.kubeconfig_path(), &path).unwrap();
    let token = match cluster.embedded() {
        // It believes whoever shows anything, and tells clients apart by it.
        Some(_) => account.to_owned(),
        None => {
            let create = ["create", "token", account, "-n", namespace];
            admin.run(&[&create, bound].concat()).await.unwrap()
        }
    };
    let owner = admin.clone().with_kubeconfig(&path);
    let token = format!("--token={}", token.trim());
    let user = ["config", "set-credentials", account, &token];
    owner.run(&user).await.unwrap();
    let user = format!("--user={account}");
    // As a Pod finds it.
    let namespace = format!("--namespace={namespace}");
    let context = ["config", "set-context", "--current", &user, &namespace];
    owner.run(&context).await.unwrap();
    path
}

/// The kubeconfig of the agent of a node: its Pod's token names the node.
async fn kubeconfig_of_agent(cluster: &Cluster, admin: &Kubectl, node: &str) -> PathBuf {
    let name = format!("--bound-object-name={node}");
    let bound = ["--bound-object-kind=Node", &name];
    kubeconfig_with(cluster, admin, NAMESPACE, "svcdiag-agent", &bound).await
}

fn lease(node: &str) -> String {
    format!(
        "apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: svcdiag-agent-{node}
  namespace: {NAMESPACE}
  labels: {{app.kubernetes.io/component: svcdiag-agent}}
spec: {{leaseDurationSeconds: 3600, renewTime: '2026-01-01T00:00:00.000000Z'}}
"
    )
}

/// What no run makes use of at will, and the test that does.
const ELSEWHERE: [(&str, &str, &str); 1] = [(
    // A report that meets another version of its NodeProbe than the watch has brought.
    "svcdiag-agent",
    "get nodeprobes.svcdiag.dev",
    "agent::cluster::tests::facts_never_fall_to_a_successor_nor_to_another_question",
)];

/// The rights that config/default gives to an account, in all its roles, one by one.
async fn granted(kubectl: &Kubectl, account: &str) -> BTreeSet<String> {
    let names = match account {
        "svcdiag-controller" => &[account, "svcdiag-election"][..],
        _ => &[account],
    };
    granted_by(kubectl, "config/default", names).await
}

/// The rights of the roles of these names in a kustomization.
pub(crate) async fn granted_by(kubectl: &Kubectl, directory: &str, names: &[&str]) -> BTreeSet<String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let text = kubectl
        .run(&["kustomize", config.to_str().unwrap()])
        .await
        .unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let is_its = |o: &&Value| {
        let name = o["metadata"]["name"].as_str();
        matches!(o["kind"].as_str(), Some("ClusterRole" | "Role")) && name.is_some_and(|n| names.contains(&n))
    };
    let all =
        |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut rights = BTreeSet::new();
    let roles = objects.iter().filter(is_its);
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in all(rule, "apiGroups") {
            for resource in all(rule, "resources") {
                let (plural, sub) = resource.split_once('/').unwrap_or((&resource, ""));
                let of_group = [plural, &group].join(".");
                let named = [of_group.trim_end_matches('.'), sub].join("/");
                let named = named.trim_end_matches('/');
                rights.extend(all(rule, "verbs").iter().map(|verb| format!("{verb} {named}")));
            }
        }
    }
    rights
}

/// Each right has a use, and each use a right.
async fn nothing_is_granted_for_nothing(cluster: &Cluster, kubectl: &Kubectl) {
    let Some(server) = cluster.embedded() else {
        println!("which rights are made use of is for the embedded server to say");
        return;
    };
    for account in ["svcdiag-controller", "svcdiag-agent"] {
        let mut used = server.store().rights_used(account);
        let elsewhere = ELSEWHERE.iter().filter(|(of, ..)| *of == account);
        used.extend(elsewhere.map(|(_, right, _)| (*right).to_owned()));
        let granted = granted(kubectl, account).await;
        let missing: Vec<_> = used.difference(&granted).collect();
        let unused: Vec<_> = granted.difference(&used).collect();
        assert!(
            missing.is_empty() && unused.is_empty(),
            "{account} lacks {missing:?} and makes no use of {unused:?}"
        );
    }
}

/// Answers a NodeProbe as the agent does it.
async fn answer(kubeconfig: &Path, name: &str) -> kube::Result<NodeProbe> {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let context = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &context).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let status = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "status": { "agentVersion": "other" },
    });
    let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
    let api: Api<NodeProbe> = Api::namespaced(client, "role");
    api.patch_status(name, &params, &Patch::Apply(status)).await
}

/// The agent does its work with its rights, and neither it nor an administrator can do that of another.
async fn agents_write_for_their_own_node_only(cluster: &Cluster, admin: &Kubectl) {
    let [here, there, _] = NODES;
    let own = kubeconfig_of_agent(cluster, admin, here).await;
    let agent = Agent::start(here, &own, cluster.state_dir(), &[]).await;
    let probe = async |node: &str, field: &str| {
        let column = format!("jsonpath={{.items[?(@.spec.nodeName=='{node}')]{field}}}");
        let found = admin
            .run(&["-n", "role", "get", "nodeprobes", "-o", &column])
            .await
            .ok()?;
        Some(found.split(' ').next()?.to_owned()).filter(|name| !name.is_empty())
    };
    eventually("the agent's answer", async || {
        probe(here, ".status.observedTime").await
    })
    .await;
    let map = ["-n", NAMESPACE, "get", "configmap", "svcdiag-apiserver"];
    eventually("the addresses of the API server", async || {
        admin.run(&map).await.ok()
    })
    .await;

    let apply = [
        "apply",
        "--server-side",
        "--field-manager=svcdiag-agent",
        "-f",
        "-",
    ];
    let there_too = kubeconfig_of_agent(cluster, admin, there).await;
    let elsewhere = admin.clone().with_kubeconfig(&there_too);
    elsewhere.run_with_input(&apply, &lease(there)).await.unwrap();
    let name = eventually("a NodeProbe", async || probe(there, ".metadata.name").await).await;
    if cluster.embedded().is_none() {
        let unbound = kubeconfig_of(cluster, admin, NAMESPACE, "svcdiag-agent").await;
        let administrator = cluster.kubeconfig_path().to_owned();
        let nodeless = "the token names no node";
        for (other, of_status, of_lease) in [
            (
                &own,
                "by the svcdiag agent of its node only",
                "by the agent of its node only",
            ),
            (&unbound, nodeless, nodeless),
            (
                &administrator,
                "by the svcdiag agent of its node only",
                "by the agent of its node only",
            ),
        ] {
            let refused = answer(other, &name).await.unwrap_err().to_string();
            assert!(refused.contains(of_status), "{refused}");
            let other = admin.clone().with_kubeconfig(other);
            let refused = other
                .run_with_input(&apply, &lease("sandbox-3"))
                .await
                .unwrap_err();
            let refused = refused.to_string();
            assert!(refused.contains(of_lease), "{refused}");
        }
        answer(&there_too, &name).await.unwrap();
        let foreign = lease(there).replace("svcdiag-agent-", "leader-election-");
        let refused = elsewhere
            .run_with_input(&apply, &foreign)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("by the agent of its node only"), "{refused}");
        admin.run_with_input(&apply, &foreign).await.unwrap();

        let patch = ["-n", "role", "patch", "nodeprobe", &name, "--type=merge"];
        let question = [
            &patch[..],
            &[r#"--patch={"spec":{"fromNode":true,"revision":"mine"}}"#],
        ]
        .concat();
        let refused = admin.run(&question).await.unwrap_err().to_string();
        assert!(refused.contains("by the svcdiag controller only"), "{refused}");
        let label = ["-n", "role", "label", "nodeprobe", &name, "mine=yes"];
        admin.run(&label).await.unwrap();
        let own = "apiVersion: svcdiag.dev/v1alpha1
kind: NodeProbe
metadata: {name: mine, namespace: role}
spec: {nodeName: sandbox-1, diagnosis: {name: x, uid: x}, serviceName: x, intervalSeconds: 60}
";
        let refused = admin
            .run_with_input(&["apply", "-f", "-"], own)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("by the svcdiag controller only"), "{refused}");
    }
    let suspend = r#"--patch={"spec":{"suspend":true}}"#;
    let suspend = [
        "-n",
        "role",
        "patch",
        "svcdiag",
        Fixture::NAME,
        "--type=merge",
        suspend,
    ];
    admin.run(&suspend).await.unwrap();
    eventually("nobody is asked", async || {
        let left = admin
            .run(&["-n", "role", "get", "nodeprobes", "-o", "name"])
            .await
            .ok()?;
        left.trim().is_empty().then_some(())
    })
    .await;
    assert!(!agent.log().contains("orbidden"), "{}", agent.log());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_and_agents_do_their_work_with_the_rights_of_their_roles() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let kubectl = Kubectl::find().await.unwrap();
    let kubectl = kubectl.with_kubeconfig(cluster.kubeconfig_path());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default");
    let apply = ["apply", "--server-side", "-k", config.to_str().unwrap()];
    kubectl.run(&apply).await.unwrap();
    // No kubelet here runs the image; the binary stands in for the Pods.
    for (namespace, workload) in [
        ("svcdiag-controller", "deployment/svcdiag-controller"),
        (NAMESPACE, "daemonset/svcdiag-agent"),
    ] {
        let delete = ["-n", namespace, "delete", workload];
        kubectl.run(&delete).await.unwrap();
    }
    let own = kubeconfig_of(&cluster, &kubectl, "svcdiag-controller", "svcdiag-controller").await;
    let program = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(program, &own, cluster.state_dir(), &["--leader-elect"]).unwrap();

    let fixture = Fixture::new(cluster.client(), "role");
    fixture.set_up().await.unwrap();
    let verdict = async |test: &dyn Fn(&Verdict) -> bool| {
        eventually("the verdict", async || {
            fixture.verdict().await.ok().filter(|v| test(v))
        })
        .await
    };
    verdict(&Verdict::is_healthy).await;
    let faults = catalogue().unwrap();
    let fault: &Fault = faults.iter().find(|f| f.id == "A08").unwrap();
    // The second time the Event of the first is counted up.
    for _ in 0..2 {
        fault.inject(&fixture).await.unwrap();
        verdict(&|v| fault.expected.is_met_by(v)).await;
        eventually("an Event", async || {
            let events = kubectl.run(&["-n", "role", "get", "events"]).await.ok()?;
            let on = |kind: &str| {
                let row = format!("{kind}/{}", Fixture::NAME);
                let is_told = |line: &str| line.contains("SelectorMatchesNoPods") && line.contains(&row);
                events.lines().any(is_told)
            };
            (on("servicediagnosis") && on("service")).then_some(())
        })
        .await;
        fault.undo(&fixture).await.unwrap();
        verdict(&Verdict::is_healthy).await;
    }
    let label = ["label", "namespace", "role", "svcdiag.dev/auto=true"];
    kubectl.run(&label).await.unwrap();
    let service = "
apiVersion: v1
kind: Service
metadata: {name: more, namespace: role}
spec: {ports: [{port: 80}]}
";
    kubectl
        .run_with_input(&["apply", "-f", "-"], service)
        .await
        .unwrap();
    let automatic = ["-n", "role", "get", "svcdiag", "more"];
    eventually("an automatic diagnosis", async || {
        kubectl.run(&automatic).await.ok()
    })
    .await;
    kubectl
        .run(&["label", "namespace", "role", "svcdiag.dev/auto-"])
        .await
        .unwrap();
    eventually("its end", async || kubectl.run(&automatic).await.err()).await;
    agents_write_for_their_own_node_only(&cluster, &kubectl).await;
    let log = std::fs::read_to_string(controller.log()).unwrap();
    assert!(!log.contains("orbidden"), "{log}");
    nothing_is_granted_for_nothing(&cluster, &kubectl).await;
    controller.stop().await;
    cluster.stop().await;
}
