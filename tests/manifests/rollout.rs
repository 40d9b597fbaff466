//! What an upgrade depends on: probes, pace and labels.

use kube::api::DynamicObject;
use serde_json::{Value, json};
use svcdiag_sandbox::kubectl::Kubectl;

use super::{find, kind, render};

/// Longer than that, and `svcdiag health` calls an agent that makes no progress sick.
const SICK_AFTER: i64 = 60;

#[tokio::test]
async fn a_sick_version_of_the_agents_stops_the_rollout() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let spec = &find(&objects, "DaemonSet").data["spec"];
    let update = &spec["updateStrategy"];
    assert_eq!(update["type"], "RollingUpdate");
    assert_eq!(update["rollingUpdate"]["maxUnavailable"], "10%");
    let container = &spec["template"]["spec"]["containers"][0];
    let (live, ready) = (&container["livenessProbe"], &container["readinessProbe"]);
    assert_eq!(ready["exec"], live["exec"]);
    let seconds = |value: &Value| value.as_i64().unwrap();
    let found_out = seconds(&ready["periodSeconds"]) * seconds(&ready["failureThreshold"]);
    let at_latest = SICK_AFTER + found_out + seconds(&ready["timeoutSeconds"]);
    assert!(
        seconds(&spec["minReadySeconds"]) >= at_latest,
        "it is available before it is known to be sick"
    );
}

#[tokio::test]
async fn two_controllers_elect_one_and_may_be_evicted_one_at_a_time() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let spec = &find(&objects, "Deployment").data["spec"];
    assert_eq!(spec["replicas"], 2);
    assert!(spec["minReadySeconds"].as_i64().unwrap() > 0);
    let pod = &spec["template"]["spec"];
    let arguments = pod["containers"][0]["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--leader-elect")));
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
    let budget = &find(&objects, "PodDisruptionBudget").data["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    for selector in [&spec["selector"], &spread["labelSelector"], &budget["selector"]] {
        assert_eq!(*selector, spec["selector"]);
    }
    // The Lease is in the namespace of the Pods, where they may write that one.
    let is_of_election =
        |o: &&DynamicObject| kind(o) == "Role" && o.metadata.name.as_deref() == Some("svcdiag-election");
    let role = objects.iter().find(is_of_election).unwrap();
    let deployment = find(&objects, "Deployment");
    assert_eq!(role.metadata.namespace, deployment.metadata.namespace);
    assert_eq!(
        role.data["rules"][1]["resourceNames"],
        json!(["svcdiag-controller"])
    );
}

/// They tolerate every taint, so nothing but this keeps them from Nodes that run no DaemonSets.
#[tokio::test]
async fn agents_stay_off_nodes_that_run_no_daemonsets() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let pod = &find(&objects, "DaemonSet").data["spec"]["template"]["spec"];
    let wanted = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let expected = json!([{ "matchExpressions": [
        { "key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"] },
        { "key": "type", "operator": "NotIn", "values": ["virtual-kubelet"] },
    ] }]);
    assert_eq!(wanted["nodeSelectorTerms"], expected);
}

#[tokio::test]
async fn everything_has_the_version_and_no_selector_has_it() {
    const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
    let kubectl = Kubectl::find().await.unwrap();
    for object in render(&kubectl, "config/default").await {
        let labels = object.metadata.labels.as_ref().unwrap();
        for (label, value) in [
            ("name", "svcdiag"),
            ("instance", "svcdiag"),
            ("part-of", "svcdiag"),
            ("managed-by", "kustomize"),
            ("version", VERSION),
        ] {
            assert_eq!(
                labels[&format!("app.kubernetes.io/{label}")],
                value,
                "{} {:?}",
                kind(&object),
                object.metadata.name
            );
        }
        if !matches!(kind(&object), "DaemonSet" | "Deployment") {
            continue;
        }
        let spec = &object.data["spec"];
        let template = &spec["template"];
        assert_eq!(
            template["metadata"]["labels"]["app.kubernetes.io/version"],
            VERSION
        );
        let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.ends_with(&format!(":{VERSION}")), "{image}");
        let selector = spec["selector"]["matchLabels"].as_object().unwrap();
        let keys: Vec<&str> = selector.keys().map(String::as_str).collect();
        assert_eq!(keys, ["app.kubernetes.io/component", "app.kubernetes.io/name"]);
    }
}
