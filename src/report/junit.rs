//! Verdicts as JUnit XML, which CI systems show as tests: a suite for each Service, a test for each stage.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{
    api::{ConditionType, ServiceDiagnosis},
    objects::Object,
};

/// The verdicts. A stage that is Unknown is a skipped test, which no CI system counts as a failure.
pub(crate) fn junit<'a>(
    diagnoses: impl IntoIterator<Item = &'a ServiceDiagnosis>,
) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("svcdiag");
    report.add_test_suites(diagnoses.into_iter().map(suite));
    report.to_string()
}

fn suite(diagnosis: &ServiceDiagnosis) -> TestSuite {
    let name = format!("{}/{}", diagnosis.namespace(), diagnosis.spec.service_name);
    let mut suite = TestSuite::new(name.clone());
    let Some(status) = &diagnosis.status else {
        return suite;
    };
    let is_stage = |type_: &str| {
        ConditionType::stages()
            .iter()
            .any(|stage| stage.as_str() == type_)
    };
    for stage in status.conditions.iter().filter(|c| is_stage(&c.type_)) {
        let cause = status.root_cause.as_ref().filter(|c| c.condition == stage.type_);
        let result = match stage.status.as_str() {
            "True" => TestCaseStatus::success(),
            "False" => {
                let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let fix = cause.map_or_else(String::new, |c| format!("\n\nFix: {}", c.remediation));
                failure
                    .set_type(stage.reason.clone())
                    .set_message(stage.message.clone())
                    .set_description(format!("{}{fix}", stage.message));
                failure
            }
            _ => {
                let mut skipped = TestCaseStatus::skipped();
                skipped.set_message(format!("{}: {}", stage.reason, stage.message));
                skipped
            }
        };
        let mut case = TestCase::new(stage.type_.clone(), result);
        case.set_classname(name.clone());
        suite.add_test_case(case);
    }
    suite
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stage_is_a_test_with_what_is_to_be_done() {
        let stage = |type_: &str, status: &str, reason: &str, message: &str| {
            json!({ "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-05-01T12:00:00Z" })
        };
        let diagnosis: ServiceDiagnosis = serde_json::from_value(json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "serviceName": "cart" },
            "status": {
                "conditions": [
                    stage("ServiceExists", "True", "ServiceFound", "It exists."),
                    stage("PodsHealthy", "False", "CrashLooping", "No Pod of app=\"cart\" is ready: \u{1b}[31m<exit 1>."),
                    stage("HairpinOK", "Unknown", "Blocked", "Waiting for PodsHealthy."),
                    stage("Ready", "False", "CrashLooping", "No Pod."),
                ],
                "rootCause": { "condition": "PodsHealthy", "reason": "CrashLooping", "impact": "All",
                    "message": "No Pod.", "remediation": "Read the log." },
            },
        }))
        .unwrap();
        let xml = junit([&diagnosis]).unwrap();
        assert!(xml.contains("<testsuite name=\"shop/cart\" tests=\"3\""), "{xml}");
        assert!(xml.contains("failures=\"1\""), "{xml}");
        assert!(xml.contains("type=\"CrashLooping\""), "{xml}");
        assert!(xml.contains("&lt;exit 1&gt;") && !xml.contains('\u{1b}'), "{xml}");
        assert!(xml.contains("Fix: Read the log."), "{xml}");
        assert!(
            xml.contains("<skipped message=\"Blocked: Waiting for PodsHealthy.\""),
            "{xml}"
        );
    }
}
