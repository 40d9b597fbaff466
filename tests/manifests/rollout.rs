//! What an upgrade depends on: probes, pace and labels.

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
async fn the_only_controller_is_replaced_and_never_kept_from_being_evicted() {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/default").await;
    let spec = &find(&objects, "Deployment").data["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["strategy"]["type"]),
        (&json!(1), &json!("Recreate"))
    );
    assert!(spec["minReadySeconds"].as_i64().unwrap() > 0);
    assert!(objects.iter().all(|o| kind(o) != "PodDisruptionBudget"));
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
