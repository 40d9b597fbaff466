//! What a list in a file tells of what does not exist.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    identity::{Place, text},
    manifests::is_manifest,
};
use crate::{
    bundle::moments::{Kind, Moment, Moments},
    inventory::Listed,
    objects::EndpointSlice,
};

/// Kinds whose absence means something: kind, plural, and what people call their files.
const KINDS: [(&str, &str, &[&str]); 9] = [
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
    ("Event", "events", &["event", "ev"]),
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
    /// The labels that all items have, by kind.
    shared: BTreeMap<String, BTreeMap<String, String>>,
    /// Namespaces and Services of the EndpointSlices.
    services: BTreeSet<(String, String)>,
    /// Whether an item is what a cluster answered, and not only what somebody wrote.
    is_of_cluster: bool,
    has_nodes: bool,
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
            shared: BTreeMap::new(),
            services: BTreeSet::new(),
            is_of_cluster: false,
            has_nodes: false,
        }
    }

    /// Whether it has items, and all of them are manifests.
    pub(super) fn is_of_manifests(&self) -> bool {
        !self.namespaces.is_empty() && !self.is_of_cluster
    }

    /// Whether there are Nodes in it.
    pub(super) fn has_nodes(&self) -> bool {
        self.has_nodes
    }

    pub(super) fn add(&mut self, item: &Value) {
        let (kind, namespace) = (text(item, "/kind"), text(item, "/metadata/namespace"));
        self.has_nodes |= kind == "Node";
        if namespace.is_empty() {
            return;
        }
        self.is_of_cluster |= !is_manifest(item);
        let namespaces = self.namespaces.entry(kind.to_owned()).or_default();
        namespaces.insert(namespace.to_owned());
        let labels = labels(item);
        let shared = self
            .shared
            .entry(kind.to_owned())
            .or_insert_with(|| labels.clone());
        shared.retain(|label, value| labels.get(label) == Some(value));
        if kind == "EndpointSlice" {
            let labels = &item["metadata"]["labels"];
            let service = labels[EndpointSlice::SERVICE_LABEL].as_str().unwrap_or_default();
            self.services.insert((namespace.to_owned(), service.to_owned()));
        }
    }

    /// Notes when Pods and EndpointSlices were listed.
    pub(super) fn note_moments(&self, moments: &mut Moments, moment: &Moment) {
        let kinds = [
            ("Pod", Kind::Pods),
            ("EndpointSlice", Kind::Slices),
            ("Endpoints", Kind::Slices),
        ];
        for (name, kind) in kinds {
            for namespace in self.namespaces.get(name).into_iter().flatten() {
                moments.note(kind, namespace, moment);
            }
            // An empty list does not say of which namespace it is.
            if self.namespaces.is_empty() && self.kind == name {
                moments.note(kind, "", moment);
            }
        }
    }

    /// Notes what was listed as a whole.
    ///
    /// What the API wrote is as it was asked for, and nobody asks it for a part by hand. A list of `kubectl
    /// get` may have been one of labels or of names: it counts if its objects have no label in common, and
    /// its file is named after the kind, or it spans what names cannot: several namespaces or kinds.
    /// EndpointSlices are often asked for by their Service, so that a list of those of one Service tells
    /// nothing of the others.
    pub(super) fn note(&self, listed: &mut Listed) {
        for (kind, resource, names) in KINDS {
            let is_named = self.stem == resource || names.contains(&self.stem.as_str());
            let Some(namespaces) = self.namespaces.get(kind) else {
                // Empty: kubectl does not say of what, but the name of the file may. That there is no Service
                // or no Pod is too much to take from a name.
                let is_empty = self.namespaces.is_empty();
                let is_believed = is_named && !matches!(kind, "Service" | "Pod");
                if is_empty && (self.kind == kind || self.kind.is_empty() && is_believed) {
                    listed.note(resource, &self.directory);
                }
                continue;
            };
            if kind == "EndpointSlice" {
                self.note_slices(listed);
                continue;
            }
            // Only a list of all namespaces has objects of several. Services are looked for by name in all
            // of them, too, so that of these it tells nothing.
            let is_of_all = namespaces.len() > 1;
            let everywhere = (is_of_all && kind != "Service").then_some(Listed::EVERYWHERE);
            let is_mixed = self.namespaces.len() > 1 && kind != "Service";
            for namespace in namespaces.iter().map(String::as_str).chain(everywhere) {
                if !self.kind.is_empty() {
                    listed.note(resource, namespace);
                } else if is_named || is_of_all || is_mixed {
                    let none = BTreeMap::new();
                    listed.note_likely(resource, namespace, self.shared.get(kind).unwrap_or(&none));
                }
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
            // One without the label shows that nobody asked by it.
            let is_of_nobody = service.is_empty() && !self.kind.is_empty();
            if others.count() > 0 || is_of_nobody {
                listed.note("endpointslices", namespace);
            }
        }
    }
}

fn labels(item: &Value) -> BTreeMap<String, String> {
    let labels = item.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(label, value)| Some((label.clone(), value.as_str()?.to_owned())))
        .collect()
}
