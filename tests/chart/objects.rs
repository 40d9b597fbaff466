//! The objects are those of config/, one by one.

use serde_json::{Value, json};
use svcdiag::api::{AGENT_LABEL, AGENT_LEASE_PREFIX, APISERVER_CONFIG_MAP};

use super::{CHART, Objects, container, kustomize, parse, rendered, template};

/// Labels that every object of the chart has, whether or not config/ has them as well.
const LABELS: [&str; 7] = [
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];
const KEEP: &str = "helm.sh/resource-policy";

/// Say what made an object, Helm or kustomize, and how it writes its version.
const MADE_BY: [&str; 2] = ["app.kubernetes.io/managed-by", "app.kubernetes.io/version"];

/// Removes what Helm's objects have more: the labels of charts, and what keeps an object when a release is removed.
fn without_what_charts_add(object: &mut Value, plain: &Value) {
    for place in ["/metadata", "/spec/template/metadata"] {
        let Some(metadata) = object.pointer_mut(place).and_then(Value::as_object_mut) else {
            continue;
        };
        for (field, added) in [("labels", &LABELS[..]), ("annotations", &[KEEP])] {
            let wanted = &plain.pointer(place).unwrap()[field];
            let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else {
                continue;
            };
            map.retain(|key, _| !(added.contains(&key.as_str()) && wanted[key].is_null()));
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
}

fn without_maker(object: &mut Value) {
    for place in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(labels) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            labels.retain(|key, _| !MADE_BY.contains(&key.as_str()));
        }
    }
}

fn are_the_same(chart: &Objects, config: &Objects) {
    let keys = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(chart), keys(config));
    for (key, plain) in config {
        let (mut object, mut plain) = (chart[key].clone(), plain.clone());
        without_maker(&mut plain);
        without_what_charts_add(&mut object, &plain);
        assert!(
            object == plain,
            "{key:?} of the chart is\n{object:#}\nand of config/\n{plain:#}"
        );
    }
}

#[tokio::test]
async fn by_default_it_is_config_default() {
    let chart = rendered(&json!({}));
    are_the_same(&chart, &kustomize(&["config/default"]).await);
    for object in chart.values() {
        let labels = &object["metadata"]["labels"];
        for label in LABELS.iter().filter(|l| !l.ends_with("component")) {
            assert!(labels[label].is_string(), "{label}: {object:#}");
        }
        assert_eq!(labels["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"));
    }
    let image = format!("ghcr.io/svcdiag/svcdiag:v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(&chart, "Deployment")["image"], image);
    // Diagnoses outlive the release, and so does the namespace that has to be there before it.
    let is_kept = |object: &Value| object["metadata"]["annotations"][KEEP] == "keep";
    let kept: Vec<&str> = chart
        .iter()
        .filter(|(_, o)| is_kept(o))
        .map(|(k, _)| &*k.2)
        .collect();
    assert_eq!(
        kept,
        [
            "nodeprobes.svcdiag.dev",
            "servicediagnoses.svcdiag.dev",
            "svcdiag-system"
        ]
    );
}

#[tokio::test]
async fn without_agents_it_is_config_agentless() {
    let chart = rendered(&json!({ "agent": { "enabled": false } }));
    are_the_same(&chart, &kustomize(&["config/agentless"]).await);
}

#[tokio::test]
async fn with_everything_on_it_is_all_of_config() {
    let mut chart = rendered(&json!({
        "networkPolicy": { "enabled": true },
        "metricsAuth": { "enabled": true },
        "openReports": { "enabled": true },
        "prometheus": { "serviceMonitor": true, "rule": true },
        "grafana": { "dashboards": true },
        "flowControl": { "enabled": true },
        "hardening": { "seccomp": true, "seLinux": true },
    }));
    let all = [
        "config/hardened",
        "config/network-policy",
        "config/metrics-auth",
        "config/open-reports",
        "config/prometheus",
        "config/grafana",
        "config/flow-control",
    ];
    // The flags that config/metrics-auth and config/open-reports leave to the user.
    let deployment = chart.iter_mut().find(|(key, _)| key.0 == "Deployment").unwrap().1;
    let arguments = &mut deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array_mut().unwrap();
    for flag in ["--metrics-auth", "--open-reports"] {
        let place = arguments.iter().position(|a| a == flag).unwrap();
        arguments.remove(place);
    }
    are_the_same(&chart, &kustomize(&all).await);
}

#[test]
fn with_nothing_but_the_workloads_it_has_no_objects_that_others_manage() {
    let chart = rendered(&json!({
        "namespaces": { "create": false },
        "crds": { "enabled": false },
        "userRoles": { "create": false },
    }));
    let kinds: Vec<&str> = chart.keys().map(|key| &*key.0).collect();
    for kind in ["Namespace", "CustomResourceDefinition"] {
        assert!(!kinds.contains(&kind), "{kind}");
    }
    assert!(chart.keys().all(|key| key.2 != "svcdiag-view"));
    let dropped = rendered(&json!({ "crds": { "keep": false } }));
    let crd = dropped
        .iter()
        .find(|(key, _)| key.0 == "CustomResourceDefinition");
    assert!(crd.unwrap().1["metadata"]["annotations"].is_null());
}

/// Names follow the release; what svcdiag itself looks for does not.
#[test]
fn another_release_in_other_namespaces_names_its_own_accounts_everywhere() {
    let values = json!({
        "controller": { "namespace": "judges" },
        "networkPolicy": { "enabled": true },
        "metricsAuth": { "enabled": true, "readers": [
            { "kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring" }] },
        "openReports": { "enabled": true },
        "prometheus": { "serviceMonitor": true, "rule": true },
        "flowControl": { "enabled": true },
    });
    let text = template("prod", "probes", CHART, &values).unwrap();
    for name in ["svcdiag-system", "judges-", "svcdiag-controller:"] {
        assert!(!text.contains(name), "{name}");
    }
    let chart = parse(&text);
    for (account, namespace) in [
        ("prod-svcdiag-controller", "judges"),
        ("prod-svcdiag-agent", "probes"),
    ] {
        let key = ("ServiceAccount".into(), namespace.into(), account.into());
        assert!(chart.contains_key(&key), "{key:?}");
    }
    let mut accounts = 0;
    for (key, object) in &chart {
        let own = key.1.is_empty() || ["judges", "probes"].contains(&&*key.1);
        assert!(own, "{key:?}");
        for subject in object["subjects"].as_array().into_iter().flatten() {
            let text = |field: &str| subject[field].as_str().unwrap().to_owned();
            let account = ("ServiceAccount".to_owned(), text("namespace"), text("name"));
            let is_known = chart.contains_key(&account) || account.2 == "prometheus";
            assert!(is_known, "{key:?} names {account:?}");
            accounts += 1;
        }
        if key.0 == "ValidatingAdmissionPolicyBinding" {
            let policy = object["spec"]["policyName"].as_str().unwrap();
            let policy = (
                "ValidatingAdmissionPolicy".to_owned(),
                String::new(),
                policy.to_owned(),
            );
            assert!(chart.contains_key(&policy), "{key:?} binds {policy:?}");
        }
    }
    assert!(accounts >= 6, "{accounts}");
    let policy = |name: &str| {
        let key = (
            "ValidatingAdmissionPolicy".into(),
            String::new(),
            format!("prod-svcdiag-{name}"),
        );
        chart[&key]["spec"].to_string()
    };
    assert!(policy("nodeprobe-spec").contains("system:serviceaccount:judges:prod-svcdiag-controller"));
    for name in ["nodeprobe-status", "agent-lease"] {
        assert!(
            policy(name).contains("system:serviceaccount:probes:prod-svcdiag-agent"),
            "{name}"
        );
    }
    assert!(policy("agent-lease").contains(AGENT_LEASE_PREFIX));
    assert!(text.contains(&format!("resourceNames: [{APISERVER_CONFIG_MAP}]")));
    let agents = chart.iter().find(|(key, _)| key.0 == "DaemonSet").unwrap().1;
    for place in [
        "/metadata",
        "/spec/template/metadata",
        "/spec/selector/matchLabels",
    ] {
        let labels = agents.pointer(place).unwrap();
        let labels = labels.get("labels").unwrap_or(labels);
        assert_eq!(labels[AGENT_LABEL.0], AGENT_LABEL.1, "{place}");
    }
}

/// A long name of a release leads to names that are short enough.
#[test]
fn the_longest_name_of_a_release_leads_to_names_of_63_characters() {
    let release = "r".repeat(53);
    let chart = parse(&template(&release, "probes", CHART, &json!({})).unwrap());
    let longest = chart
        .keys()
        .filter(|key| !key.1.is_empty())
        .map(|key| key.2.len())
        .max();
    assert_eq!(longest, Some(63));
}
