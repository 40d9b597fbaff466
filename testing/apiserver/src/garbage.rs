//! Owners and what they own: what the garbage collector of kube-controller-manager knows. `delete` acts on it.

use std::sync::Arc;

use serde_json::Value;

use super::{
    request::Target,
    resources::Resource,
    store::{Key, State},
};

/// Finalizer of an owner that waits for what it owns to go first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
}

/// Objects that an owner has, with their kinds.
fn dependents(state: &mut State, uid: &str) -> Vec<(Arc<Resource>, Key, Arc<Value>)> {
    let kinds: Vec<Arc<Resource>> = state.registry.all().cloned().collect();
    let mut found = Vec::new();
    for kind in kinds {
        let owned = state.table(&kind).owned_by(uid);
        found.extend(owned.map(|(key, object)| (kind.clone(), key.clone(), object.clone())));
    }
    found
}

/// What loses its last owner with this one, and is to be deleted. What has others just loses this one.
pub(crate) fn left_behind(state: &mut State, uid: &str) -> Vec<Target> {
    let mut lost = Vec::new();
    for (kind, key, object) in dependents(state, uid) {
        if owners(&object).count() > 1 {
            disown(state, &kind, &key, &object, uid);
        } else {
            lost.push(Target::of(&kind, key));
        }
    }
    lost
}

/// Whether a new object says of itself that it has owners, of which there is none: somebody created it who had not
/// heard yet.
pub(crate) fn is_ownerless(state: &State, key: &Key, object: &Value) -> bool {
    let mut references = owners(object).peekable();
    references.peek().is_some() && references.all(|r| matches!(find(state, r, &key.0), Owner::Absent))
}

enum Owner {
    Found(Arc<Resource>, Key),
    Absent,
    /// Of a kind that is not served; the collector leaves such dependents alone.
    Unknown,
}

/// The owner that a reference in a Namespace leads to.
fn find(state: &State, reference: &Value, namespace: &str) -> Owner {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let Some(kind) = state
        .registry
        .all()
        .find(|r| r.group == group && r.kind == text("kind"))
    else {
        return Owner::Unknown;
    };
    let namespace = if kind.namespaced { namespace } else { "" };
    let key = (namespace.to_owned(), text("name").to_owned());
    match state.get(kind, &key) {
        Some(owner) if owner["metadata"]["uid"] == reference["uid"] => Owner::Found(kind.clone(), key),
        _ => Owner::Absent,
    }
}

/// An owner that waits for its dependents, without its finalizer; None while one of them blocks it, or if it does not
/// wait.
pub(crate) fn released(state: &mut State, resource: &Resource, key: &Key) -> Option<Value> {
    let owner = state.get(resource, key).cloned()?;
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let waits = |f: &Value| f == FOREGROUND;
    let finalizers = owner["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let blocks = |object: &Value| owners(object).any(|o| o["uid"] == *uid && o["blockOwnerDeletion"] == true);
    if !finalizers.iter().any(waits) || dependents(state, &uid).iter().any(|(_, _, o)| blocks(o)) {
        return None;
    }
    let mut owner = Value::clone(&owner);
    owner["metadata"]["finalizers"] = finalizers.into_iter().filter(|f| !waits(f)).collect();
    Some(owner)
}

/// The owners of an object that there are.
pub(crate) fn owners_of(state: &State, object: &Value) -> Vec<(Arc<Resource>, Key)> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let found = owners(object).filter_map(|reference| match find(state, reference, namespace) {
        Owner::Found(kind, key) => Some((kind, key)),
        Owner::Absent | Owner::Unknown => None,
    });
    found.collect()
}

/// Makes an owner let go of everything that it has.
pub(crate) fn orphan(state: &mut State, owner: &Value) {
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
    for (kind, key, object) in dependents(state, uid) {
        disown(state, &kind, &key, &object, uid);
    }
}

fn disown(state: &mut State, kind: &Resource, key: &Key, object: &Value, uid: &str) {
    let mut object = object.clone();
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|o| o["uid"] != uid);
    }
    state.put(kind, key.clone(), object, "garbage-collector");
}
