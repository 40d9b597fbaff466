//! Queries of Prometheus in the examples: of a metric that there is, by labels that it has.

use serde_json::Value;
use svcdiag::api::Reason;

use super::documents;

fn query(kind: &str, path: &str) -> String {
    let documents = documents();
    let of_kind = documents.iter().filter(|(_, it)| it["kind"] == kind);
    let mut found = of_kind.filter_map(|(_, it)| it.pointer(path).and_then(Value::as_str));
    found.next().unwrap().to_owned()
}

/// What is Unknown is left out by its reasons.
#[test]
fn the_analysis_leaves_out_reasons_that_there_are() {
    let analysis = query("AnalysisTemplate", "/spec/metrics/0/provider/prometheus/query");
    let named = analysis.split("reason!~\"").nth(1).unwrap();
    let reasons: Vec<&str> = named.split('"').next().unwrap().split('|').collect();
    assert!(reasons.len() > 3, "{analysis}");
    for reason in reasons {
        reason.parse::<Reason>().unwrap();
    }
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
