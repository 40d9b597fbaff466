use super::*;

fn diagnosis(name: &str) -> ServiceDiagnosis {
    serde_json::from_value(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "namespace": "shop", "name": name, "uid": "u-1" }, "spec": { "serviceName": "cart" },
    }))
    .unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-05-01T12:00:00.25Z" })
}

/// A Service without endpoints, without an agent on its node.
fn broken() -> ServiceDiagnosisStatus {
    serde_json::from_value(json!({
        "observedGeneration": 1,
        "conditions": [
            condition("Ready", "False", "SelectorMatchesNoPods", "The selector matches no Pod."),
            // As the API server keeps them: in the order in which they first appeared.
            condition("HairpinOK", "Unknown", "NotApplicable", "No Pod is its own client."),
            condition("ServiceExists", "True", "ServiceFound", "The Service was found."),
            condition("DefinitionValid", "False", "PortNotListed", "Clients use port 81."),
            condition("EndpointsPopulated", "False", "SelectorMatchesNoPods", "The selector matches no Pod."),
            condition("EndpointsReachable", "Unknown", "Blocked", "Waiting for EndpointsPopulated."),
            condition("KubeProxyHealthy", "Unknown", "NoVantagePoint", "No agent runs on node n1."),
            condition("DNSResolves", "Unknown", "ProbeFailed", "The agent could not enter Pod shop/client."),
        ],
        "rootCause": {
            "condition": "EndpointsPopulated", "reason": "SelectorMatchesNoPods", "impact": "All",
            "message": "The selector matches no Pod.", "remediation": "Correct the selector.",
            "link": "https://example.test/SelectorMatchesNoPods.md",
        },
    }))
    .unwrap()
}

#[test]
fn a_report_says_what_the_status_says() {
    insta::assert_yaml_snapshot!(report(&diagnosis("cart"), DataPath::Required, &broken()));
}

fn outcomes(status: &ServiceDiagnosisStatus, data_path: DataPath) -> Vec<(String, String)> {
    let report = report(&diagnosis("cart"), data_path, status);
    let text = |result: &Value, field: &str| result[field].as_str().unwrap().to_owned();
    let results = report["results"].as_array().unwrap().iter();
    results.map(|r| (text(r, "rule"), text(r, "result"))).collect()
}

#[test]
fn agents_that_are_not_wanted_are_not_missed() {
    let of_proxy = |data_path| {
        let all = outcomes(&broken(), data_path);
        all.into_iter()
            .find(|(rule, _)| rule == "KubeProxyHealthy")
            .unwrap()
            .1
    };
    assert_eq!(of_proxy(DataPath::Required), "error");
    assert_eq!(of_proxy(DataPath::Ignore), "skip");
    assert_eq!(of_proxy(DataPath::IfAvailable), "skip");
}

#[test]
fn a_reason_of_a_newer_version_is_an_error_where_nothing_is_known() {
    let mut status = broken();
    for condition in &mut status.conditions {
        condition.reason = "OfTomorrow".to_owned();
    }
    let all = outcomes(&status, DataPath::Required);
    let of = |wanted: &str| all.iter().filter(|(_, result)| result == wanted).count();
    assert_eq!((of("pass"), of("fail"), of("error"), of("skip")), (1, 2, 4, 0));
}

#[test]
fn the_name_is_that_of_the_diagnosis_unless_it_is_too_long() {
    assert_eq!(name(&diagnosis("cart")), "svcdiag-cart");
    assert_eq!(name(&diagnosis(&"c".repeat(245))).len(), 253);
    assert_eq!(name(&diagnosis(&"c".repeat(246))), "svcdiag-u-1");
}

/// Two thirds of what etcd takes in one request would be a million bytes.
#[test]
fn the_largest_status_gives_a_report_of_its_size() {
    let mut status = broken();
    for condition in &mut status.conditions {
        condition.message = "m".repeat(4096);
    }
    let cause = status.root_cause.as_mut().unwrap();
    (cause.message, cause.remediation) = ("m".repeat(4096), "r".repeat(4096));
    let size = |value: &Value| value.to_string().len();
    let report = report(&diagnosis("cart"), DataPath::Required, &status);
    let of_status = size(&serde_json::to_value(&status).unwrap());
    assert!(size(&report) < of_status, "{} of {of_status}", size(&report));
}
