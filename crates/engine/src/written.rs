//! The verdict that a status holds: for those who may read it, and may not read what it was judged by.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{Diagnosis, Finding, Outcome};
use svcdiag_api::{ConditionStatus, ConditionType, Impact, ServiceDiagnosisStatus};

impl Diagnosis {
    /// The verdict of a status; none if it holds none yet, or one in the terms of another version.
    #[must_use]
    pub fn of_status(status: &ServiceDiagnosisStatus) -> Option<Self> {
        let condition = |type_| status.condition(type_);
        let summed_up = |type_| condition(type_).and_then(outcome);
        let stages = ConditionType::stages()
            .iter()
            .map(|stage| Some((*stage, finding(status, condition(*stage)?)?)));
        Some(Self {
            stages: stages.collect::<Option<_>>()?,
            ready: summed_up(ConditionType::Ready)?,
            reconciling: summed_up(ConditionType::Reconciling),
            stalled: summed_up(ConditionType::Stalled),
            root_cause: status.root_cause.clone(),
            summary: status.summary.clone()?,
            proxy_mode: status.proxy_mode.clone(),
            observations: status.observations.clone(),
            recheck_at: None,
            silent_at: None,
            losses: Vec::new(),
            settled_at: None,
            answered_at: None,
        })
    }
}

fn outcome(condition: &Condition) -> Option<Outcome> {
    Some(Outcome {
        status: condition.status.parse().ok()?,
        reason: condition.reason.parse().ok()?,
        message: condition.message.clone(),
    })
}

/// The answer of a stage. How a fault is fixed is written of the root cause alone.
fn finding(status: &ServiceDiagnosisStatus, condition: &Condition) -> Option<Finding> {
    let Outcome {
        status: answer,
        reason,
        message,
    } = outcome(condition)?;
    let cause = status
        .root_cause
        .as_ref()
        .filter(|cause| cause.condition == condition.type_);
    let mut finding = match answer {
        ConditionStatus::True => Finding::yes(reason, message),
        ConditionStatus::Unknown => Finding::unknown(reason, message),
        ConditionStatus::False => Finding::fault(
            cause.map_or(Impact::Some, |cause| cause.impact),
            reason,
            message,
            cause.map(|cause| cause.remediation.clone()).unwrap_or_default(),
        ),
    };
    let of_stage = status.observations.iter();
    finding.observations = of_stage
        .filter(|o| o.condition == condition.type_)
        .cloned()
        .collect();
    Some(finding)
}
