//! Queries of Prometheus in the examples: of a metric that there is, by labels that it has.

use serde_json::Value;

use super::{documents, root, yaml};

fn query(kind: &str, path: &str) -> String {
    let documents = documents();
    let of_kind = documents.iter().filter(|(_, it)| it["kind"] == kind);
    let mut found = of_kind.filter_map(|(_, it)| it.pointer(path).and_then(Value::as_str));
    found.next().unwrap().to_owned()
}

/// What is Unknown is left out by the alert and by the analysis alike; tests/manifests checks that the metric and the
/// reasons of the alert exist.
#[test]
fn the_analysis_leaves_out_what_the_alert_leaves_out() {
    let groups = &yaml(&root("config/prometheus/prometheus_rule.yaml"))["spec"]["groups"];
    let alert = groups[0]["rules"][0]["expr"].as_str().unwrap();
    let reasons = |text: &str| {
        text.split("reason!~")
            .nth(1)
            .unwrap()
            .split('"')
            .nth(1)
            .map(str::to_owned)
    };
    let analysis = query("AnalysisTemplate", "/spec/metrics/0/provider/prometheus/query");
    assert_eq!(reasons(&analysis), reasons(alert));
}

#[test]
fn queries_select_by_the_labels_of_the_metric() {
    for text in [
        query("AnalysisTemplate", "/spec/metrics/0/provider/prometheus/query"),
        query("MetricTemplate", "/spec/query"),
    ] {
        for part in ["svcdiag_ready{namespace=\"{{", ", name=\"{{"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
