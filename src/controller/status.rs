//! Writes a status: one server-side apply, and only if it says something new.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    api::{FIELD_MANAGER, ServiceDiagnosis, ServiceDiagnosisStatus},
    diagnosis::is_same,
    objects::Object,
};

/// Longest wait for the API server to take a status.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The API server refused it or could not be reached.
    #[error("could not write the status of ServiceDiagnosis {key}: {source}")]
    Api {
        /// Namespace and name.
        key: String,
        /// What the client says.
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

/// What was last written for each diagnosis, by UID, until the watch brings our own write back a
/// moment later: so long the object at hand has an older status than we know of.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<HashMap<String, Write>>);

#[derive(Debug)]
struct Write {
    /// resourceVersion of the object that was at hand when this was written.
    seen: Option<String>,
    status: ServiceDiagnosisStatus,
}

impl Written {
    /// The latest status of a diagnosis: what was written on top of this very object, else its own.
    pub(super) fn latest(&self, diagnosis: &ServiceDiagnosis) -> Option<ServiceDiagnosisStatus> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
        match written.get(uid) {
            Some(write) if write.seen == diagnosis.metadata.resource_version => Some(write.status.clone()),
            _ => {
                written.remove(uid);
                diagnosis.status.clone()
            }
        }
    }

    fn note(&self, diagnosis: &ServiceDiagnosis, status: ServiceDiagnosisStatus) {
        let uid = diagnosis.metadata.uid.clone().unwrap_or_default();
        let write = Write {
            seen: diagnosis.metadata.resource_version.clone(),
            status,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid, write);
    }

    /// Forgets all but these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|uid, _| uids.contains(uid));
    }

    /// Forgets a diagnosis that has gone.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Writes the status unless it says the same as before; whether it was written.
pub(super) async fn write_if_changed(
    context: &Context,
    diagnosis: &ServiceDiagnosis,
    previous: Option<&ServiceDiagnosisStatus>,
    status: &ServiceDiagnosisStatus,
) -> Result<bool, WriteError> {
    if previous.is_some_and(|previous| is_same(previous, status)) {
        return Ok(false);
    }
    let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
    let key = || format!("{namespace}/{name}");
    // The UID keeps the status of an object that was deleted from falling to its successor.
    let patch = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": name, "namespace": namespace, "uid": diagnosis.metadata.uid },
        "status": status,
    });
    let api: Api<ServiceDiagnosis> = Api::namespaced(context.client.clone(), namespace);
    match tokio::time::timeout(TIMEOUT, write(&api, name, &patch, status)).await {
        Ok(Ok(())) => {
            context.written.note(diagnosis, status.clone());
            context.metrics.status_written();
            Ok(true)
        }
        // It has been deleted meanwhile, or replaced by one of the same name.
        Ok(Err(kube::Error::Api(refusal))) if refusal.is_not_found() || refusal.is_conflict() => Ok(false),
        Ok(Err(source)) => Err(WriteError::Api {
            key: key(),
            source: Box::new(source),
        }),
        Err(_) => Err(WriteError::Timeout { key: key() }),
    }
}

/// Applies the status. What others wrote into it and we do not say stays behind by the rules of
/// server-side apply; it is a lie, so it is removed. Only the removal is patched, so that no field
/// of ours comes to be owned twice.
async fn write(
    api: &Api<ServiceDiagnosis>,
    name: &str,
    patch: &Value,
    status: &ServiceDiagnosisStatus,
) -> kube::Result<()> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(name, &params, &Patch::Apply(patch)).await?;
    if written
        .status
        .as_ref()
        .is_some_and(|written| is_same(written, status))
    {
        return Ok(());
    }
    let mut removal = json!({
        "metadata": { "uid": written.metadata.uid, "resourceVersion": written.metadata.resource_version },
    });
    removal["status"] = difference(&json!(written.status), &json!(status));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &params, &Patch::Merge(removal))
        .await
        .map(drop)
}

/// The merge patch (RFC 7386) that leads from one value to another.
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
    use super::*;

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
