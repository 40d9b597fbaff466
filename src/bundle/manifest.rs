//! What whoever made a bundle says of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bundle, Problem};
use crate::{api::ServiceDiagnosisSpec, engine::Unreadable, inventory::Listing};

/// Name of its file.
pub const MANIFEST: &str = "manifest.yaml";

/// The manifest; in a bundle that was made by hand any of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// Version of the svcdiag that collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was made; what is judged, is judged as of this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Namespace of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Version of the Kubernetes API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// What was asked: ports, clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<ServiceDiagnosisSpec>,
    /// What was listed as a whole. Where it is absent, the lists in the files tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<Vec<Listing>>,
    /// Kinds of policies beyond NetworkPolicy that the cluster serves.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub other_policy_kinds: BTreeSet<String>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
}

impl Manifest {
    /// What was asked about a Service, if the bundle was made for it.
    #[must_use]
    pub fn spec_for(&self, namespace: &str, service: &str) -> Option<ServiceDiagnosisSpec> {
        let spec = self.spec.as_ref().filter(|s| s.service_name == service)?;
        (self.namespace.as_deref() == Some(namespace)).then(|| spec.clone())
    }
}

/// Reads the manifest of a bundle.
pub(super) fn take(bundle: &mut Bundle) {
    let Some(file) = bundle.files.get(MANIFEST) else {
        return;
    };
    match serde_saphyr::from_str::<Manifest>(&file.text) {
        Ok(manifest) => {
            bundle.listed = manifest.listed.clone().into_iter().flatten().collect();
            bundle.manifest = manifest;
        }
        Err(error) => bundle.problems.push(Problem {
            path: MANIFEST.to_owned(),
            what: format!("not used: it could not be parsed: {error}"),
        }),
    }
}
