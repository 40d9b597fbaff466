//! Values lead where they say, and others are refused.

use std::process::Command;

use serde_json::{Value, json};

use super::{CHART, container, rendered, root, template};

#[test]
fn values_lead_to_flags_that_controller_and_agent_know() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let chart = rendered(&json!({
        "image": { "repository": "mirror.test/svcdiag", "digest": digest, "pullPolicy": "Always",
            "pullSecrets": [{ "name": "mirror" }] },
        "log": "debug",
        "logFormat": "json",
        "controller": {
            "watchNamespace": "shop", "concurrency": 3, "nameOtherNamespaces": true, "dataPath": "Ignore",
            "limits": { "minInterval": 11, "minProbeInterval": 0, "maxNodes": 12,
                "maxDiagnosesPerNamespace": 1_000_000, "maxNodeProbesPerNamespace": 13, "maxProbeSeconds": 14 },
            "podLabels": { "team": "network" },
        },
        "metricsAuth": { "enabled": true },
        "openReports": { "enabled": true },
        "agent": { "maxDials": 15, "connectsPerSecond": 16, "nodeSelector": { "pool": "a" }, "tolerations": [] },
    }));
    let expected = [
        (
            "Deployment",
            &[
                "--metrics-auth",
                "--open-reports",
                "--namespace=shop",
                "--name-other-namespaces",
                "--concurrency=3",
                "--data-path=Ignore",
                "--min-interval=11",
                "--min-probe-interval=0",
                "--max-nodes=12",
                "--max-diagnoses-per-namespace=1000000",
                "--max-node-probes-per-namespace=13",
                "--max-probe-seconds=14",
            ][..],
        ),
        ("DaemonSet", &["--max-dials=15", "--connects-per-second=16"]),
    ];
    for (kind, flags) in expected {
        let container = container(&chart, kind);
        let arguments: Vec<&str> = container["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a.as_str().unwrap())
            .collect();
        for flag in flags {
            assert!(arguments.contains(flag), "{flag} in {arguments:?}");
        }
        let known = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
            .args(&arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(known.status.success(), "{arguments:?}");
        assert_eq!(container["image"], format!("mirror.test/svcdiag@{digest}"));
        assert_eq!(container["imagePullPolicy"], "Always");
        let log = json!({ "name": "SVCDIAG_LOG", "value": "debug" });
        let format = json!({ "name": "SVCDIAG_LOG_FORMAT", "value": "json" });
        for variable in [log, format] {
            assert!(
                container["env"].as_array().unwrap().contains(&variable),
                "{variable}"
            );
        }
    }
    let pod = |kind: &str| chart.iter().find(|(key, _)| key.0 == kind).unwrap().1["spec"]["template"].clone();
    assert_eq!(
        pod("Deployment")["spec"]["imagePullSecrets"],
        json!([{ "name": "mirror" }])
    );
    assert_eq!(pod("Deployment")["metadata"]["labels"]["team"], "network");
    // Helm adds to maps and replaces lists.
    assert_eq!(pod("DaemonSet")["spec"]["nodeSelector"]["pool"], "a");
    assert!(pod("DaemonSet")["spec"]["tolerations"].is_null());
}

#[test]
fn misspelt_and_impossible_values_are_refused() {
    for (values, told) in [
        (json!({ "agents": { "enabled": false } }), "'agents'"),
        (
            json!({ "controller": { "limits": { "maxNode": 3 } } }),
            "'maxNode'",
        ),
        (json!({ "agent": { "enabled": "no" } }), "/agent/enabled"),
        (json!({ "agent": { "maxDials": 0 } }), "/agent/maxDials"),
        (json!({ "image": { "digest": "latest" } }), "/image/digest"),
        (
            json!({ "controller": { "namespace": "svcdiag-system" } }),
            "would share the namespace",
        ),
    ] {
        let error = template("svcdiag", "svcdiag-system", CHART, &values).unwrap_err();
        assert!(error.contains(told), "{values}: {error}");
    }
}

/// Every value has a default and is described, in values.yaml and in the schema.
#[test]
fn every_value_has_a_default_and_a_description() {
    fn compare(schema: &Value, values: &Value, path: &str, count: &mut usize) {
        for (name, field) in schema["properties"].as_object().unwrap() {
            let path = format!("{path}.{name}");
            let described = field["description"].as_str().is_some_and(|text| text.len() > 5);
            assert!(described, "{path} has no description");
            // Helm's own.
            if path == ".global" {
                continue;
            }
            let value = values.get(name);
            let is_group = field["additionalProperties"] == false && name != "resources";
            assert!(value.is_some(), "{path} has no default");
            match is_group {
                true => compare(field, &values[name], &path, count),
                false => *count += 1,
            }
        }
    }
    let text = std::fs::read_to_string(root("charts/svcdiag/values.yaml")).unwrap();
    let schema = std::fs::read_to_string(root("charts/svcdiag/values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut count = 0;
    compare(&schema, &values, "", &mut count);
    let documented = text
        .lines()
        .filter(|line| line.trim_start().starts_with("# -- "))
        .count();
    assert_eq!(documented, count);
}
