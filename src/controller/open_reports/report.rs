//! A diagnosis and its status as a `Report` of openreports.io/v1alpha1. Pure: the same status gives the same Report.
//!
//! A Report has a result for each stage. What the schema calls `skip` was not asked, or has no answer yet; `error` is what
//! svcdiag tried to find out and could not. The status is bounded, and so is what is made of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{ConditionType, DataPath, Impact, Reason, ServiceDiagnosis, ServiceDiagnosisStatus},
    controller::probes::owner,
    inventory::MANAGED_BY,
    objects::Object,
};

/// The version of the API that this is written for.
pub(super) const API_VERSION: &str = "openreports.io/v1alpha1";

/// The kind.
pub(super) const KIND: &str = "Report";

/// Begins the name, so that the Report of another tool is never overwritten.
const PREFIX: &str = "svcdiag-";

/// Longest name of an object.
const NAME_MAX: usize = 253;

/// What all results are about.
const POLICY: &str = "service-works";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Pass,
    Fail,
    Error,
    Skip,
}

/// Name of the Report of a diagnosis. A UID stands in for a name that would be too long with the prefix.
pub(super) fn name(diagnosis: &ServiceDiagnosis) -> String {
    let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
    let name = diagnosis.name();
    match PREFIX.len() + name.len() <= NAME_MAX {
        true => format!("{PREFIX}{name}"),
        false => format!("{PREFIX}{uid}"),
    }
}

/// The Report that says what the status says. `data_path` is what Ready needs of agents.
pub(super) fn report(
    diagnosis: &ServiceDiagnosis,
    data_path: DataPath,
    status: &ServiceDiagnosisStatus,
) -> Value {
    let stages = ConditionType::stages().iter().copied();
    let found = stages.filter_map(|stage| Some((stage, status.condition(stage)?)));
    let judged: Vec<(Outcome, Value)> = found
        .map(|(stage, condition)| {
            let outcome = outcome(condition, data_path);
            (outcome, result(stage, condition, outcome, status))
        })
        .collect();
    let count = |wanted: Outcome| judged.iter().filter(|(outcome, _)| *outcome == wanted).count();
    json!({
        "apiVersion": API_VERSION, "kind": KIND,
        "metadata": {
            "name": name(diagnosis), "namespace": diagnosis.namespace(),
            "labels": { MANAGED_BY.0: MANAGED_BY.1 }, "ownerReferences": [owner(diagnosis)],
        },
        "source": "svcdiag",
        "scope": {
            "apiVersion": "v1", "kind": "Service",
            "namespace": diagnosis.namespace(), "name": diagnosis.spec.service_name,
        },
        "summary": {
            "pass": count(Outcome::Pass), "fail": count(Outcome::Fail), "warn": 0,
            "error": count(Outcome::Error), "skip": count(Outcome::Skip),
        },
        "results": judged.into_iter().map(|(_, result)| result).collect::<Vec<_>>(),
    })
}

fn outcome(condition: &Condition, data_path: DataPath) -> Outcome {
    let reason = condition.reason.parse().ok();
    match condition.status.as_str() {
        "True" => Outcome::Pass,
        "False" => Outcome::Fail,
        _ if reason.is_some_and(|reason| is_skipped(reason, data_path)) => Outcome::Skip,
        _ => Outcome::Error,
    }
}

/// Whether a stage that is Unknown was not asked, or is only not decided yet.
fn is_skipped(reason: Reason, data_path: DataPath) -> bool {
    let is_to_come = matches!(
        reason,
        Reason::Blocked | Reason::Pending | Reason::PodsStarting | Reason::Suspended
    );
    let is_not_wanted = reason == Reason::NoVantagePoint && data_path != DataPath::Required;
    reason.is_satisfied() || is_to_come || is_not_wanted
}

fn result(
    stage: ConditionType,
    condition: &Condition,
    outcome: Outcome,
    status: &ServiceDiagnosisStatus,
) -> Value {
    let cause = status.root_cause.as_ref();
    let cause = cause.filter(|cause| cause.condition == condition.type_ && outcome == Outcome::Fail);
    let mut properties = BTreeMap::from([("reason", condition.reason.as_str())]);
    if let Some(cause) = cause {
        properties.insert("fix", &cause.remediation);
        properties.insert("impact", cause.impact.as_str());
        properties.extend(cause.link.as_deref().map(|link| ("link", link)));
    }
    let category = match ConditionType::api_stages().contains(&stage) {
        true => "API objects",
        false => "Data path",
    };
    let since = condition.last_transition_time.0;
    let mut result = json!({
        "policy": POLICY, "rule": stage.as_str(), "category": category,
        "result": outcome, "message": condition.message, "properties": properties,
        "timestamp": { "seconds": since.as_second(), "nanos": since.subsec_nanosecond() },
    });
    if outcome == Outcome::Fail {
        result["severity"] = json!(severity(cause.map(|cause| cause.impact)));
    }
    result
}

/// What else fails beside the root cause often fails because of it.
fn severity(root_cause: Option<Impact>) -> &'static str {
    match root_cause {
        Some(Impact::All) => "critical",
        Some(Impact::Some) => "high",
        None => "medium",
    }
}

#[cfg(test)]
mod tests;
