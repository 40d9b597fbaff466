//! What the agents run with, and what they may read and write.

use super::*;

#[tokio::test]
async fn the_agent_runs_everywhere_with_no_more_than_it_needs() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let pod = &find(&objects, "DaemonSet").data["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["hostNetwork"], &pod["hostPID"]),
        (&true.into(), &true.into())
    );
    assert_eq!(pod["dnsPolicy"], "Default");
    assert_eq!(pod["tolerations"], serde_json::json!([{ "operator": "Exists" }]));
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert!(security["privileged"].is_null());
    assert_eq!(
        strings(&security["capabilities"]["drop"]),
        BTreeSet::from(["ALL"])
    );
    assert_eq!(
        strings(&security["capabilities"]["add"]),
        BTreeSet::from(["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_PTRACE"])
    );
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    // The kubelet asks at a socket of the container's own: nobody else can take it, as they could a port of the node.
    let probe = container["livenessProbe"]["exec"]["command"].as_array().unwrap();
    assert_eq!(probe[..3], ["/svcdiag", "health", "--socket"]);
    let socket = probe[3].as_str().unwrap();
    assert!(strings(&container["args"]).contains(format!("--health-socket={socket}").as_str()));
    let own = &container["volumeMounts"][1];
    assert!(socket.starts_with(own["mountPath"].as_str().unwrap()) && own["readOnly"].is_null());
    assert_eq!(pod["volumes"][1]["name"], own["name"]);
    assert_eq!(pod["volumes"][1]["emptyDir"]["medium"], "Memory");
    let map = &pod["volumes"][0]["configMap"];
    assert_eq!(
        (&map["name"], &map["optional"]),
        (&APISERVER_CONFIG_MAP.into(), &true.into())
    );
    let file = format!(
        "--apiserver-addresses={}/{}",
        container["volumeMounts"][0]["mountPath"].as_str().unwrap(),
        svcdiag::api::APISERVER_KEY
    );
    assert!(strings(&container["args"]).contains(file.as_str()), "{file}");
    assert_eq!(
        find(&objects, "DaemonSet").metadata.labels.as_ref().unwrap()[AGENT_LABEL.0],
        AGENT_LABEL.1
    );
}

#[tokio::test]
async fn the_agent_reads_no_pods_and_writes_only_answers_and_leases() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let of = |account: &str, kind_: &str| {
        let role = objects
            .iter()
            .find(|o| kind(o) == kind_ && o.metadata.name.as_deref() == Some(account));
        role.unwrap().data["rules"].as_array().unwrap().clone()
    };
    let mut writes = BTreeSet::new();
    for rule in of("svcdiag-agent", "ClusterRole")
        .iter()
        .chain(&of("svcdiag-agent", "Role"))
    {
        let (resources, verbs) = (strings(&rule["resources"]), strings(&rule["verbs"]));
        for forbidden in ["pods", "secrets", "configmaps", "*"] {
            assert!(!resources.contains(forbidden), "{rule}");
        }
        assert!(
            !verbs.contains("*") && !verbs.contains("update") && !verbs.contains("delete"),
            "{rule}"
        );
        if verbs.contains("patch") {
            writes.extend(resources.into_iter().map(str::to_owned));
        }
    }
    let expected = ["leases", "nodeprobes/status"].map(str::to_owned);
    assert_eq!(writes, BTreeSet::from(expected));
    let own = of("svcdiag-controller", "Role");
    let maps = own
        .iter()
        .find(|r| strings(&r["resources"]).contains("configmaps"))
        .unwrap();
    assert_eq!(
        strings(&maps["resourceNames"]),
        BTreeSet::from([APISERVER_CONFIG_MAP])
    );
}

#[test]
fn a_node_probe_is_not_for_users() {
    let roles = std::fs::read_to_string(Path::new(ROOT).join("config/rbac/user_roles.yaml")).unwrap();
    let plural = <NodeProbe as kube::Resource>::plural(&());
    let rules = roles.lines().filter(|l| !l.trim_start().starts_with('#'));
    assert!(rules.into_iter().all(|l| !l.contains(plural.as_ref())));
}
