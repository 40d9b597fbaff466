//! What a list in a file tells of what does not exist.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Place, text};
use crate::{bundle::Listed, objects::EndpointSlice};

/// Kinds whose absence means something: kind, plural, and what people call their files.
const KINDS: [(&str, &str, &[&str]); 8] = [
    ("Service", "services", &["service", "svc"]),
    ("EndpointSlice", "endpointslices", &["endpointslice"]),
    ("Endpoints", "endpoints", &["ep"]),
    ("Pod", "pods", &["pod", "po"]),
    ("Deployment", "deployments", &["deployment", "deploy"]),
    ("ReplicaSet", "replicasets", &["replicaset", "rs"]),
    ("StatefulSet", "statefulsets", &["statefulset", "sts"]),
    (
        "NetworkPolicy",
        "networkpolicies",
        &["networkpolicy", "netpol", "netpols"],
    ),
];

/// A list in a file.
pub(super) struct List {
    /// Kind of the items; empty for the lists of kubectl, which may hold any.
    kind: String,
    /// Name of the file without directory and ending.
    stem: String,
    /// Namespace that the directory is named after, if so.
    directory: String,
    /// Namespaces of the items, by kind.
    namespaces: BTreeMap<String, BTreeSet<String>>,
    /// Namespaces and Services of the EndpointSlices.
    services: BTreeSet<(String, String)>,
}

impl List {
    pub(super) fn new(kind: &str, place: &Place<'_>) -> Self {
        let file = place.path.rsplit('/').next().unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default();
        Self {
            kind: kind.to_owned(),
            stem: stem.to_ascii_lowercase().replace(['-', '_'], ""),
            directory: place.namespace().to_owned(),
            namespaces: BTreeMap::new(),
            services: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, item: &Value) {
        let (kind, namespace) = (text(item, "/kind"), text(item, "/metadata/namespace"));
        if namespace.is_empty() {
            return;
        }
        let namespaces = self.namespaces.entry(kind.to_owned()).or_default();
        namespaces.insert(namespace.to_owned());
        if kind == "EndpointSlice" {
            let labels = &item["metadata"]["labels"];
            let service = labels[EndpointSlice::SERVICE_LABEL].as_str().unwrap_or_default();
            self.services.insert((namespace.to_owned(), service.to_owned()));
        }
    }

    /// Notes what was listed as a whole.
    ///
    /// A list does not say whether it was filtered; what it holds is taken for what there is in the
    /// namespaces of its items. EndpointSlices are often asked for by their Service, so that a list
    /// of those of one Service tells nothing of the others.
    pub(super) fn note(&self, listed: &mut Listed) {
        for (kind, resource, names) in KINDS {
            let Some(namespaces) = self.namespaces.get(kind) else {
                let is_named = self.stem == resource || names.contains(&self.stem.as_str());
                // Empty: kubectl does not say of what, but the name of the file may. That no Service
                // exists is too much to take from a name.
                let is_empty = self.namespaces.is_empty();
                if is_empty && (self.kind == kind || self.kind.is_empty() && is_named && kind != "Service") {
                    listed.note(resource, &self.directory);
                }
                continue;
            };
            if kind == "EndpointSlice" {
                self.note_slices(listed);
                continue;
            }
            for namespace in namespaces {
                listed.note(resource, namespace);
            }
            // Only a list of all namespaces has objects of several. Services are looked for by name
            // in all of them, too, so that of these it tells nothing.
            if namespaces.len() > 1 && kind != "Service" {
                listed.note(resource, Listed::EVERYWHERE);
            }
        }
    }

    fn note_slices(&self, listed: &mut Listed) {
        for (namespace, service) in &self.services {
            listed.note_slices_of(namespace, service);
            let others = self
                .services
                .iter()
                .filter(|(n, s)| n == namespace && s != service);
            if others.count() > 0 {
                listed.note("endpointslices", namespace);
            }
        }
    }
}
