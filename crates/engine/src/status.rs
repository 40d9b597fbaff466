//! From a Diagnosis to the status that is written: only here do times enter.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{Diagnosis, Outcome, time::later};
use svcdiag_api::{ConditionStatus, ConditionType, Reason, ServiceDiagnosisStatus};

/// Longest message that the API takes from us, in characters.
const MESSAGE_MAX: usize = 4096;

/// Most bytes of a status, as JSON.
const STATUS_MAX: usize = 64 * 1024;

impl Diagnosis {
    /// The status to be written for generation `generation`, given the one that is there.
    ///
    /// A lastTransitionTime moves only when its condition's status flips, lastChangeTime only
    /// when a status or reason changes: the same Diagnosis gives the same status at any later time.
    #[must_use]
    pub fn status(
        &self,
        previous: Option<&ServiceDiagnosisStatus>,
        generation: Option<i64>,
        now: Timestamp,
    ) -> ServiceDiagnosisStatus {
        // As the API has times: what is read back is what was written.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let old = previous.map(|p| p.conditions.as_slice()).unwrap_or_default();
        let condition = |type_: ConditionType, status: ConditionStatus, reason: Reason, message: &str| {
            let same = old
                .iter()
                .find(|c| c.type_ == type_.as_str() && c.status == status.as_str());
            Condition {
                type_: type_.as_str().to_owned(),
                status: status.as_str().to_owned(),
                reason: reason.as_str().to_owned(),
                message: cut(message, MESSAGE_MAX),
                last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
                observed_generation: generation,
            }
        };
        let outcome = |type_, o: &Outcome| condition(type_, o.status, o.reason, &o.message);
        let conditions: Vec<Condition> = self
            .stages
            .iter()
            .map(|(type_, f)| condition(*type_, f.status(), f.reason, &f.message))
            .chain([outcome(ConditionType::Ready, &self.ready)])
            .chain(
                self.reconciling
                    .iter()
                    .map(|o| outcome(ConditionType::Reconciling, o)),
            )
            .chain(self.stalled.iter().map(|o| outcome(ConditionType::Stalled, o)))
            .collect();
        let verdicts = |conditions: &[Condition]| -> BTreeSet<(String, String, String)> {
            conditions
                .iter()
                .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone()))
                .collect()
        };
        let last_change = previous
            .and_then(|p| p.last_change_time.clone())
            .filter(|_| verdicts(old) == verdicts(&conditions))
            .unwrap_or(Time(now));
        let root_cause = self.root_cause.clone().map(|mut cause| {
            cause.message = cut(&cause.message, MESSAGE_MAX);
            cause.remediation = cut(&cause.remediation, MESSAGE_MAX);
            cause
        });
        within_bounds(ServiceDiagnosisStatus {
            observed_generation: generation,
            conditions,
            root_cause,
            summary: Some(self.summary.clone()),
            proxy_mode: self.proxy_mode.clone(),
            observations: self.observations.clone(),
            last_change_time: Some(last_change),
        })
    }
}

/// The status with fewer observations, and if that does not do with shorter messages, so that it fits.
fn within_bounds(mut status: ServiceDiagnosisStatus) -> ServiceDiagnosisStatus {
    let is_too_large = |status: &ServiceDiagnosisStatus| {
        serde_json::to_vec(status).is_ok_and(|text| text.len() > STATUS_MAX)
    };
    let mut longest = MESSAGE_MAX;
    while is_too_large(&status) {
        if status.observations.pop().is_some() {
            continue;
        }
        longest /= 2;
        let cause = status.root_cause.iter_mut();
        let of_cause = cause.flat_map(|c| [&mut c.message, &mut c.remediation]);
        let messages = status
            .conditions
            .iter_mut()
            .map(|c| &mut c.message)
            .chain(of_cause);
        messages.for_each(|text| *text = cut(text, longest));
    }
    status
}

/// Whether two statuses say the same. The order of the conditions says nothing: the API server
/// keeps the one in which they first appeared.
#[must_use]
pub fn is_same(a: &ServiceDiagnosisStatus, b: &ServiceDiagnosisStatus) -> bool {
    let sorted = |status: &ServiceDiagnosisStatus| {
        let mut status = status.clone();
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    sorted(a) == sorted(b)
}

/// Longest wait of what is only told in other words.
const DETAILS_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// Whether a status is written, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It says what is there already.
    Never,
    /// At once.
    Now,
    /// At that time, unless there is more to say before.
    At(Timestamp),
}

/// When a status is to be written over the one that was written at `written_at`. While endpoints come and go each
/// step changes numbers and names; as long as no verdict changes with them that waits until they have come to rest, and until
/// the agents have answered that are asked about it.
#[must_use]
pub fn pace(
    written: Option<&ServiceDiagnosisStatus>,
    written_at: Option<Timestamp>,
    status: &ServiceDiagnosisStatus,
    verdict: &Diagnosis,
    now: Timestamp,
) -> Pace {
    let Some(written) = written else {
        return Pace::Now;
    };
    if is_same(written, status) {
        return Pace::Never;
    }
    let settled = verdict
        .settled_at
        .zip(written_at)
        .map(|(settled_at, written_at)| {
            // The API server's clock may be ahead of ours.
            let at_last = later(written_at.min(now), DETAILS_WAIT);
            settled_at.min(at_last)
        });
    match settled.max(verdict.answered_at) {
        Some(due) if due > now && same_verdicts(written, status) => Pace::At(due),
        _ => Pace::Now,
    }
}

/// Whether two statuses differ in details alone. Of a stage that Ready is content with all is detail: it may be True in
/// other words, or not be applicable for a moment.
fn same_verdicts(a: &ServiceDiagnosisStatus, b: &ServiceDiagnosisStatus) -> bool {
    let verdicts = |status: &ServiceDiagnosisStatus| -> BTreeSet<(String, Option<(String, String)>)> {
        let is_stage = |c: &Condition| ConditionType::stages().iter().any(|s| s.as_str() == c.type_);
        let is_content = |c: &Condition| {
            c.status == ConditionStatus::True.as_str()
                || c.reason.parse::<Reason>().is_ok_and(Reason::is_satisfied)
        };
        let verdict = |c: &Condition| {
            let is_detail = is_stage(c) && is_content(c);
            let said = (!is_detail).then(|| (c.status.clone(), c.reason.clone()));
            (c.type_.clone(), said)
        };
        status.conditions.iter().map(verdict).collect()
    };
    let cause = |status: &ServiceDiagnosisStatus| {
        let cause = status.root_cause.as_ref();
        cause.map(|c| (c.condition.clone(), c.reason.clone(), c.impact))
    };
    a.observed_generation == b.observed_generation && verdicts(a) == verdicts(b) && cause(a) == cause(b)
}

/// At most `max` characters, with an ellipsis where something was left out.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finding;
    use svcdiag_api::{Impact, Observation, RootCause};

    #[test]
    fn the_largest_verdict_is_a_status_of_64_kib() {
        // Four bytes each, and none that JSON escapes in fewer.
        let long = "\u{1f980}".repeat(5000);
        let finding = Finding::nothing_works(Reason::TimedOut, long.clone(), long.clone());
        let stages = ConditionType::stages().iter().map(|c| (*c, finding.clone()));
        let mut verdict = Diagnosis::unjudged(stages.collect(), Reason::TimedOut, long.clone());
        verdict.stalled = Some(verdict.ready.clone());
        verdict.root_cause = Some(RootCause {
            condition: "Ready".to_owned(),
            reason: "TimedOut".to_owned(),
            impact: Impact::All,
            message: long.clone(),
            remediation: long,
            link: None,
        });
        let seen = Observation {
            condition: "Ready".to_owned(),
            node: Some("n".repeat(253)),
            pod: Some("p".repeat(317)),
            target: Some("t".repeat(253)),
            result: "timed out".to_owned(),
            detail: Some("\"".repeat(1024)),
            latency_milliseconds: None,
        };
        verdict.observations = vec![seen; 32];
        let status = verdict.status(None, Some(1), Timestamp::UNIX_EPOCH);
        let size = serde_json::to_vec(&status).unwrap().len();
        assert!(size <= STATUS_MAX && size > STATUS_MAX / 2, "{size}");
        assert_eq!(status.conditions.len(), ConditionType::stages().len() + 2);
        assert!(status.conditions[0].message.ends_with('…'));
    }
}
