//! Pods that were made for one command: `kubectl run tmp --rm -it --image=busybox -- wget -qO- web`.
//!
//! They are gone when the rest of a paste is copied, so that no list has them. That one was there is shown by what it
//! printed; its labels stand in the command. Neither its address nor its node is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;

use super::Bundle;
use crate::{
    engine::{Facts, UNKNOWN_NODE},
    formats::text::table,
    objects::{Object, Pod, matches_labels},
};

/// Those of a bundle, by namespace and name.
pub(super) type OneOffs = BTreeMap<(String, String), Arc<Pod>>;

/// Notes a Pod that ran a command. Without labels of its own, `kubectl run` gives it one with its name.
pub(super) fn note(bundle: &mut Bundle, namespace: &str, name: &str, labels: Option<&str>) {
    let labels = match labels {
        Some(labels) => table::labels(labels).unwrap_or_default(),
        None => BTreeMap::from([("run".to_owned(), name.to_owned())]),
    };
    let node = bundle.tables.node_of_pod(namespace, name).unwrap_or(UNKNOWN_NODE);
    let pod = json!({
        "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "nodeName": node },
        "status": { "phase": "Running" },
    });
    if let Ok(pod) = serde_json::from_value(pod) {
        let key = (namespace.to_owned(), name.to_owned());
        bundle.one_offs.insert(key, Arc::new(pod));
    }
}

/// Adds them to the Pods of their namespaces, but for those that the Service itself selects: they would be taken for its
/// endpoints.
pub(super) fn add(bundle: &Bundle, facts: &mut Facts) {
    let service = facts.service.clone();
    let is_endpoint = |pod: &Pod| {
        let of_service =
            |s: &&Arc<crate::objects::Service>| s.namespace() == pod.namespace() && s.has_selector();
        let selecting = service.iter().find(of_service);
        selecting.is_some_and(|s| matches_labels(&s.spec.selector, pod.labels()))
    };
    let mut names = BTreeSet::new();
    for pod in bundle.one_offs.values().filter(|pod| !is_endpoint(pod)) {
        let home = match &mut facts.client_namespace {
            Some(clients) if clients.name == pod.namespace() => &mut clients.pods,
            _ if facts.namespace == pod.namespace() => &mut facts.pods,
            _ => continue,
        };
        names.insert(format!("{}/{}", pod.namespace(), pod.name()));
        if !home.iter().any(|known| known.name() == pod.name()) {
            home.push(pod.clone());
        }
    }
    facts.saved_objects.one_offs = names;
}
