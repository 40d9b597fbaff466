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
    formats::text::{kubectl::Kubectl, paste::Section, table},
    objects::{Object, Pod, matches_labels},
};

/// Those of a bundle, by namespace and name.
pub(super) type OneOffs = BTreeMap<(String, String), Arc<Pod>>;

/// The namespace of those whose command names none: it is that of kubectl's context, which is the Service's where no other
/// command had to name that.
pub(super) fn namespace(bundle: &Bundle, sections: &[Section<'_>]) -> Option<String> {
    let services = bundle.inventory.service_names().map(|(namespace, _)| namespace);
    let namespaces: BTreeSet<String> = services.filter(|namespace| namespace != "kube-system").collect();
    let namespace = match namespaces.len() {
        0 => bundle.home(),
        1 => namespaces.first()?,
        _ => return None,
    };
    let mut commands = sections
        .iter()
        .filter_map(|section| Kubectl::parse(section.command?));
    let is_named = commands.any(|kubectl| kubectl.namespace == Some(namespace));
    (!is_named).then(|| namespace.to_owned())
}

/// Notes a Pod that ran a command. Without labels of its own, `kubectl run` gives it one with its name. Returns false where
/// another Pod of that name had other labels: policies tell the two apart, and nobody else could.
pub(super) fn note(bundle: &mut Bundle, namespace: &str, name: &str, labels: Option<&str>) -> bool {
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
    let Ok(pod) = serde_json::from_value::<Pod>(pod) else {
        return false;
    };
    let key = (namespace.to_owned(), name.to_owned());
    let labels = pod.labels().clone();
    let known = bundle.one_offs.entry(key).or_insert_with(|| Arc::new(pod));
    *known.labels() == labels
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
