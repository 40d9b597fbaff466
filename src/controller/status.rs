//! Writes a status: one server-side apply, and only if something is new.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Context;
use crate::{
    api::{FIELD_MANAGER, ServiceDiagnosis, ServiceDiagnosisStatus},
    client::is_going,
    engine::{Diagnosis, Pace, is_same, pace},
    objects::Object,
};

/// Timeout of writing a status.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The API server rejected it or was unreachable.
    #[error("could not write the status of ServiceDiagnosis {key}: {source}")]
    Api {
        /// Namespace and name.
        key: String,
        /// The error of the client.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer.
    #[error("could not write the status of ServiceDiagnosis {key}: no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout {
        /// Namespace and name.
        key: String,
    },
}

/// What was last written for each diagnosis, by UID, and when. Until the watch delivers our own write a moment later, the
/// cached object has an older status.
#[derive(Debug, Default)]
pub(super) struct Statuses(Mutex<HashMap<String, Write>>);

#[derive(Debug)]
struct Write {
    /// resourceVersion of the cached object at the time of the write.
    seen: Option<String>,
    /// resourceVersion after the write.
    version: Option<String>,
    /// Until the watch has delivered it.
    status: Option<ServiceDiagnosisStatus>,
    at: Timestamp,
}

impl Write {
    /// Whether the watch has not delivered this yet.
    fn is_ahead_of(&self, diagnosis: &ServiceDiagnosis) -> bool {
        self.status.is_some() && self.seen == diagnosis.metadata.resource_version
    }
}

impl Statuses {
    /// The latest status of a diagnosis: what was written on top of this object, or else its own.
    pub(super) fn latest(&self, diagnosis: &ServiceDiagnosis) -> Option<ServiceDiagnosisStatus> {
        let mut written = self.0.lock();
        let write = written.get_mut(diagnosis.metadata.uid.as_deref().unwrap_or_default());
        match write {
            Some(write) if write.is_ahead_of(diagnosis) => write.status.clone(),
            write => {
                // Only its time still matters.
                if let Some(write) = write {
                    write.status = None;
                }
                diagnosis.status.clone()
            }
        }
    }

    /// The latest known version of a diagnosis.
    fn version(&self, diagnosis: &ServiceDiagnosis) -> Option<String> {
        let written = self.0.lock();
        match written.get(diagnosis.metadata.uid.as_deref().unwrap_or_default()) {
            Some(write) if write.is_ahead_of(diagnosis) => write.version.clone(),
            _ => diagnosis.metadata.resource_version.clone(),
        }
    }

    /// When a status was last written; an upper bound if an earlier controller wrote it.
    fn at(&self, diagnosis: &ServiceDiagnosis) -> Option<Timestamp> {
        let written = self.0.lock();
        let write = written.get(diagnosis.metadata.uid.as_deref().unwrap_or_default());
        write.map(|w| w.at).or_else(|| diagnosis.changed_at())
    }

    fn note(&self, diagnosis: &ServiceDiagnosis, status: ServiceDiagnosisStatus, version: Option<String>) {
        let uid = diagnosis.metadata.uid.clone().unwrap_or_default();
        let write = Write {
            seen: diagnosis.metadata.resource_version.clone(),
            version,
            status: Some(status),
            at: crate::clock::now(),
        };
        self.0.lock().insert(uid, write);
    }

    /// Keeps only these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Removes a deleted diagnosis.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Outcome of a write.
pub(super) enum Written {
    /// It was written.
    Yes,
    /// Not written, because nothing is new or the object has been replaced.
    No,
    /// To be written at that time.
    Later(Timestamp),
}

/// Writes the status if that is due.
pub(super) async fn write_if_due(
    context: &Context,
    diagnosis: &ServiceDiagnosis,
    previous: Option<&ServiceDiagnosisStatus>,
    status: &ServiceDiagnosisStatus,
    verdict: &Diagnosis,
) -> Result<Written, WriteError> {
    let written_at = context.written.at(diagnosis);
    match pace(previous, written_at, status, verdict, crate::clock::now()) {
        Pace::Never => return Ok(Written::No),
        Pace::At(time) => return Ok(Written::Later(time)),
        Pace::Now => {}
    }
    let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
    let key = || format!("{namespace}/{name}");
    let patch = manifest(diagnosis, context.written.version(diagnosis), status);
    let api: Api<ServiceDiagnosis> = Api::namespaced(context.client.clone(), namespace);
    match tokio::time::timeout(TIMEOUT, write(&api, name, &patch, status)).await {
        Ok(Ok(version)) => {
            context.written.note(diagnosis, status.clone(), version);
            context.metrics.status_written();
            Ok(Written::Yes)
        }
        // It was changed, deleted or replaced meanwhile. The watch delivers that, which leads to another reconciliation; a retry here
        // could only write an outdated result.
        Ok(Err(kube::Error::Api(refusal))) if refusal.is_conflict() || is_going(&refusal) => Ok(Written::No),
        Ok(Err(source)) => Err(WriteError::Api {
            key: key(),
            source: Box::new(source),
        }),
        Err(_) => Err(WriteError::Timeout { key: key() }),
    }
}

/// The patch that applies a status. The resourceVersion keeps the result for a deleted object from being written to its
/// successor: a UID in the patch of a status is ignored.
fn manifest(diagnosis: &ServiceDiagnosis, version: Option<String>, status: &ServiceDiagnosisStatus) -> Value {
    json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": diagnosis.name(), "namespace": diagnosis.namespace(), "resourceVersion": version },
        "status": status,
    })
}

/// Applies the status and returns the new version of the object. By the rules of server-side apply, fields that others wrote
/// and we do not set would remain; they are wrong, so they are removed. Only the removal is patched, so that none of our
/// fields gets two owners.
async fn write(
    api: &Api<ServiceDiagnosis>,
    name: &str,
    patch: &Value,
    status: &ServiceDiagnosisStatus,
) -> kube::Result<Option<String>> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(name, &params, &Patch::Apply(patch)).await?;
    if written
        .status
        .as_ref()
        .is_some_and(|written| is_same(written, status))
    {
        return Ok(written.metadata.resource_version);
    }
    let left = difference(&json!(written.status), &json!(status));
    if left == json!({}) {
        return Ok(written.metadata.resource_version);
    }
    let removal =
        json!({ "metadata": { "resourceVersion": written.metadata.resource_version }, "status": left });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let removed = api.patch_status(name, &params, &Patch::Merge(removal)).await?;
    Ok(removed.metadata.resource_version)
}

/// The merge patch (RFC 7386) from one value to another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    let changed = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    gone.map(|key| (key.clone(), Value::Null))
        .chain(changed.map(|(key, value)| {
            let before = from.get(key).unwrap_or(&Value::Null);
            (key.clone(), difference(before, value))
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use kube::api::{DeleteParams, PostParams};
    use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};

    use super::*;
    use crate::api::ServiceDiagnosisSpec;

    /// An API server and nothing else.
    async fn cluster() -> Cluster {
        let config = ClusterConfig {
            controllers: false,
            assets: None,
            ..ClusterConfig::default()
        };
        Cluster::start(config).await.unwrap()
    }

    /// The diagnosis `cart`, as the API server has made it.
    async fn create(api: &Api<ServiceDiagnosis>) -> ServiceDiagnosis {
        let mut diagnosis = ServiceDiagnosis::new("cart", ServiceDiagnosisSpec::for_service("cart"));
        diagnosis.metadata.namespace = Some("default".to_owned());
        api.create(&PostParams::default(), &diagnosis).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_verdict_never_falls_to_a_successor() {
        let cluster = cluster().await;
        let api: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "default");
        let first = create(&api).await;
        let status: ServiceDiagnosisStatus =
            serde_json::from_value(json!({ "observedGeneration": 1, "proxyMode": "nftables" })).unwrap();
        let of_first = |version| manifest(&first, version, &status);
        let mut version = first.metadata.resource_version.clone();
        for _ in 0..2 {
            // The second write happens before the watch has delivered the first one.
            version = write(&api, "cart", &of_first(version), &status).await.unwrap();
        }
        api.delete("cart", &DeleteParams::default()).await.unwrap();
        create(&api).await;
        for version in [version, first.metadata.resource_version.clone()] {
            let refusal = write(&api, "cart", &of_first(version), &status)
                .await
                .unwrap_err();
            assert!(matches!(refusal, kube::Error::Api(status) if status.is_conflict()));
        }
        let untouched = first.status.unwrap();
        assert_eq!(untouched.observed_generation, Some(-1));
        assert_eq!(api.get("cart").await.unwrap().status, Some(untouched));
        cluster.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_verdict_takes_one_request() {
        let cluster = cluster().await;
        let api: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "default");
        let created = create(&api).await;
        let verdict = crate::controller::limits::beyond(1);
        // Of its parts of a second nothing is left in the API.
        let status = verdict.status(None, Some(1), "2026-05-01T12:00:00.123456789Z".parse().unwrap());
        let patch = manifest(&created, created.metadata.resource_version.clone(), &status);
        write(&api, "cart", &patch, &status).await.unwrap();
        let requests = cluster.embedded().unwrap().store().requests();
        let sent = requests
            .iter()
            .filter(|((_, right), _)| right.contains("servicediagnoses"));
        let sent = sent.filter(|((_, right), _)| right.starts_with("patch"));
        assert_eq!(sent.map(|(_, n)| n).sum::<u64>(), 1);
        assert_eq!(api.get("cart").await.unwrap().status, Some(status));
        cluster.stop().await;
    }

    #[test]
    fn when_a_status_was_written_is_known_of_an_object_as_watches_keep_it() {
        let mut diagnosis: ServiceDiagnosis = serde_json::from_value(
            json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "name": "cart", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [
                    { "manager": "kubectl", "time": "2026-01-01T00:00:00Z" },
                    { "manager": FIELD_MANAGER, "subresource": "status", "time": "2026-01-01T01:00:00Z" } ] },
            "spec": { "serviceName": "cart" } }),
        )
        .unwrap();
        crate::objects::trim_metadata(&mut diagnosis.metadata);
        let statuses = Statuses::default();
        assert_eq!(
            statuses.at(&diagnosis),
            Some("2026-01-01T01:00:00Z".parse().unwrap())
        );
        let status: ServiceDiagnosisStatus =
            serde_json::from_value(json!({ "observedGeneration": 1 })).unwrap();
        statuses.note(&diagnosis, status, Some("2".to_owned()));
        // The object before the write, and as the watch delivers it afterwards: its managed fields need not have changed.
        assert_eq!(statuses.version(&diagnosis).as_deref(), Some("2"));
        assert!(statuses.latest(&diagnosis).is_some());
        let written_at = statuses.at(&diagnosis);
        assert!(written_at > Some("2026-01-01T01:00:00Z".parse().unwrap()));
        diagnosis.metadata.resource_version = Some("2".to_owned());
        assert!(statuses.latest(&diagnosis).is_none(), "its own");
        assert_eq!(statuses.at(&diagnosis), written_at);
    }

    #[test]
    fn the_difference_removes_what_is_not_said() {
        let from = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": [1, 2] });
        let to = json!({ "a": 1, "b": { "c": 3 }, "e": [2] });
        assert_eq!(
            difference(&from, &to),
            json!({ "b": { "c": 3, "d": null }, "e": [2] })
        );
        assert_eq!(difference(&to, &to), json!({}));
    }
}
