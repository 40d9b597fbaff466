//! Owners and what they own: what the garbage collector of kube-controller-manager does.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    delete::{delete, is_finished, remove},
    request::{Query, Target},
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
        for (key, object) in &state.table(&kind).objects {
            if owners(object).any(|o| o["uid"] == uid) {
                found.push((kind.clone(), key.clone(), object.clone()));
            }
        }
    }
    found
}

/// Deletes what has lost its last owner.
pub(crate) fn collect(state: &mut State, uid: &str) {
    for (kind, key, object) in dependents(state, uid) {
        if owners(&object).count() > 1 {
            disown(state, &kind, &key, &object, uid);
        } else {
            let target = Target::of(&kind, key);
            // The dependent may have gone with an earlier one.
            let _ = delete(state, &target, &Query::default(), &Value::Null, Timestamp::now());
        }
    }
}

/// Deletes a new object that says of itself that it has owners, of which there is none: somebody
/// made it who had not heard yet.
pub(crate) fn collect_if_ownerless(state: &mut State, resource: &Arc<Resource>, key: &Key, object: &Value) {
    let mut references = owners(object).peekable();
    if references.peek().is_some() && references.all(|r| matches!(find(state, r, &key.0), Owner::Absent)) {
        let target = Target::of(resource, key.clone());
        let _ = delete(state, &target, &Query::default(), &Value::Null, Timestamp::now());
    }
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

/// Lets an owner go that waits for its dependents, once none is left that blocks it.
pub(crate) fn release(state: &mut State, resource: &Resource, key: &Key) {
    let Some(owner) = state.get(resource, key).cloned() else {
        return;
    };
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let waits = |f: &Value| f == FOREGROUND;
    let finalizers = owner["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let blocks = |object: &Value| owners(object).any(|o| o["uid"] == *uid && o["blockOwnerDeletion"] == true);
    if !finalizers.iter().any(waits) || dependents(state, &uid).iter().any(|(_, _, o)| blocks(o)) {
        return;
    }
    let mut owner = Value::clone(&owner);
    owner["metadata"]["finalizers"] = finalizers.into_iter().filter(|f| !waits(f)).collect();
    if is_finished(&owner) {
        remove(state, resource, key);
    } else {
        state.put(resource, key.clone(), owner, "garbage-collector");
    }
}

/// The same for the owners of an object that has gone.
pub(crate) fn release_owners(state: &mut State, object: &Value) {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    for reference in owners(object) {
        if let Owner::Found(kind, key) = find(state, reference, namespace) {
            release(state, &kind, &key);
        }
    }
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
