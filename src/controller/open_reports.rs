//! The verdict of each diagnosis as a Report of OpenReports (`--open-reports`), for dashboards that gather Reports.
//!
//! A Report repeats what the status says, after the status was written: it is applied only if it says something else than the
//! last one, and a failure delays no diagnosis. Without the flag nothing is asked of that API.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind, Status},
};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Context;
use crate::{
    api::{DataPath, FIELD_MANAGER, ServiceDiagnosis},
    client::{is_absent, is_going, is_outage},
    objects::Object,
};

mod report;

/// Timeout of a write: a Report is not worth a long wait.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause of all writes while nothing answers or the kind is not served, and of those of a namespace after a refusal there.
const UNTIL_SERVED: Duration = Duration::from_secs(60);
const AFTER_REFUSAL: Duration = Duration::from_secs(600);

/// How long a Report is taken for granted: one that somebody has deleted comes back after that.
const LASTS: Duration = Duration::from_secs(3600);

/// What was written, and where writing is pointless at the moment.
#[derive(Default)]
pub(super) struct Reports(Mutex<State>);

#[derive(Default)]
struct State {
    /// Digest of the last Report and when it was applied, by UID of the diagnosis.
    applied: HashMap<String, ([u8; 32], Instant)>,
    /// Until when nothing is written.
    pause: Option<Instant>,
    /// Until when nothing is written in these namespaces.
    refused: HashMap<String, Instant>,
    /// Whether the log says that the kind is not served.
    is_missing: bool,
}

/// Why a Report could not be written.
enum Failure {
    /// The kind is not served.
    Missing,
    /// No answer, or none for now.
    Outage(String),
    /// No for this namespace: a missing permission, a quota, an admission policy.
    Refusal(String),
}

impl Reports {
    /// Whether this Report is to be written now.
    fn is_due(&self, namespace: &str, uid: &str, digest: &[u8; 32]) -> bool {
        let mut state = self.0.lock();
        let now = Instant::now();
        state.refused.retain(|_, until| *until > now);
        let is_paused = state.pause.is_some_and(|until| until > now) || state.refused.contains_key(namespace);
        let applied = state.applied.get(uid);
        let is_there = applied.is_some_and(|(last, at)| last == digest && at.elapsed() < LASTS);
        !is_paused && !is_there
    }

    fn applied(&self, uid: &str, digest: [u8; 32]) {
        let mut state = self.0.lock();
        state.applied.insert(uid.to_owned(), (digest, Instant::now()));
        state.pause = None;
        if std::mem::take(&mut state.is_missing) {
            tracing::info!(
                "The API server serves the kind Report of {} now.",
                report::API_VERSION
            );
        }
    }

    /// Pauses, and says why: of several failures at once only the first.
    fn failed(&self, namespace: &str, failure: &Failure) {
        let mut state = self.0.lock();
        let now = Instant::now();
        let is_paused = state.pause.is_some_and(|until| until > now);
        match failure {
            Failure::Missing => {
                state.pause = Some(now + UNTIL_SERVED);
                if !std::mem::replace(&mut state.is_missing, true) {
                    tracing::warn!(
                        "The API server does not serve the kind Report of {}, so --open-reports writes nothing. Install the CRDs of OpenReports; the controller notices within {} seconds.",
                        report::API_VERSION,
                        UNTIL_SERVED.as_secs()
                    );
                }
            }
            Failure::Outage(why) => {
                state.pause = Some(now + UNTIL_SERVED);
                if !is_paused {
                    tracing::warn!("Could not write a Report, will retry: {why}.");
                }
            }
            Failure::Refusal(why) => {
                let before = state.refused.insert(namespace.to_owned(), now + AFTER_REFUSAL);
                if before.is_none_or(|until| until <= now) {
                    tracing::warn!(
                        namespace,
                        "Could not write a Report. No other is tried in this namespace for {} minutes: {why}.",
                        AFTER_REFUSAL.as_secs() / 60
                    );
                }
            }
        }
    }

    /// Keeps only these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.0.lock().applied.retain(|uid, _| uids.contains(uid));
    }

    /// Removes a deleted diagnosis.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().applied.remove(uid);
    }
}

/// Applies the Report of a diagnosis if the flag is set and it says something new.
pub(super) async fn apply_if_changed(context: &Context, diagnosis: &ServiceDiagnosis, data_path: DataPath) {
    if !context.options.open_reports || diagnosis.is_terminating() {
        return;
    }
    let status = context.written.latest(diagnosis);
    let Some(status) = status.filter(|status| !status.conditions.is_empty()) else {
        return;
    };
    let namespace = diagnosis.namespace();
    let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
    let report = report::report(diagnosis, data_path, &status);
    let digest: [u8; 32] = Sha256::digest(report.to_string()).into();
    if !context.reports.is_due(namespace, uid, &digest) {
        return;
    }
    match apply(context, namespace, &report::name(diagnosis), &report).await {
        Ok(()) => context.reports.applied(uid, digest),
        Err(failure) => context.reports.failed(namespace, &failure),
    }
}

async fn apply(context: &Context, namespace: &str, name: &str, report: &Value) -> Result<(), Failure> {
    let (group, version) = report::API_VERSION.split_once('/').unwrap_or_default();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, report::KIND));
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &kind);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let write = async { api.patch(name, &params, &Patch::Apply(report)).await };
    match tokio::time::timeout(TIMEOUT, write).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(refusal))) if is_of_missing_kind(&refusal) => Err(Failure::Missing),
        // The namespace is gone, or on its way.
        Ok(Err(kube::Error::Api(refusal))) if is_going(&refusal) => Ok(()),
        Ok(Err(error @ kube::Error::Api(_))) if !is_outage(&error) => {
            Err(Failure::Refusal(error.to_string()))
        }
        Ok(Err(error)) => Err(Failure::Outage(error.to_string())),
        Err(_) => Err(Failure::Outage(format!(
            "no answer within {} seconds",
            TIMEOUT.as_secs()
        ))),
    }
}

/// Of an object, or a namespace, that does not exist the API server says so with a reason; of a kind it says nothing but 404.
fn is_of_missing_kind(refusal: &Status) -> bool {
    is_absent(refusal) && !refusal.is_not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    #[test]
    fn the_same_report_is_written_once() {
        let reports = Reports::default();
        assert!(reports.is_due("shop", "u", &NEW));
        reports.applied("u", NEW);
        assert!(!reports.is_due("shop", "u", &NEW));
        assert!(reports.is_due("shop", "u", &OTHER) && reports.is_due("shop", "successor", &NEW));
        reports.forget("u");
        assert!(reports.is_due("shop", "u", &NEW));
    }

    #[test]
    fn what_one_namespace_is_refused_is_written_in_others() {
        let reports = Reports::default();
        reports.failed("shop", &Failure::Refusal("exceeded quota".to_owned()));
        assert!(!reports.is_due("shop", "u", &NEW) && reports.is_due("other", "v", &NEW));
    }

    #[test]
    fn a_kind_that_is_not_served_stops_all_writes_until_one_succeeds() {
        let reports = Reports::default();
        reports.failed("shop", &Failure::Missing);
        assert!(!reports.is_due("other", "u", &NEW));
        assert!(reports.0.lock().is_missing);
        reports.applied("u", NEW);
        assert!(reports.is_due("other", "v", &NEW) && !reports.0.lock().is_missing);
    }

    #[test]
    fn a_missing_namespace_is_no_missing_kind() {
        let refusal = |reason: &str| *Status::failure("", reason).with_code(404).boxed();
        assert!(is_of_missing_kind(&refusal("Failed to parse error data")));
        assert!(!is_of_missing_kind(&refusal("NotFound")));
    }
}
