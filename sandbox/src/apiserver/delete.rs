//! Deletion: grace periods of Pods, finalizers, dependents and Namespaces.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    request::{Query, Target},
    resources::Resource,
    status::Failure,
    store::{Key, State},
    write::seconds,
};

/// Deletes the named object, or marks it as being deleted; returns its last state.
pub(crate) fn delete(
    state: &mut State,
    target: &Target,
    query: &Query,
    options: &Value,
    now: Timestamp,
) -> Result<Arc<Value>, Failure> {
    let resource = &target.resource;
    let key = target.key();
    let Some(object) = state.get(resource, &key).cloned() else {
        return Err(Failure::not_found(resource, &key.1));
    };
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let wanted = &options["preconditions"][field];
        if wanted.is_string() && *wanted != object["metadata"][field] {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {}",
                object["metadata"][field]
            );
            return Err(Failure::conflict(resource, &key.1, &why));
        }
    }
    if query.is_dry_run() || options["dryRun"][0] == "All" {
        return Ok(object);
    }
    if options["propagationPolicy"] == "Orphan" || query.get("propagationPolicy") == Some("Orphan") {
        orphan(state, &object);
    }
    let asked = options["gracePeriodSeconds"]
        .as_i64()
        .or_else(|| query.get("gracePeriodSeconds")?.parse().ok());
    let grace = grace_period(resource, &object, asked);
    let finalizers = object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    if grace == 0 && !finalizers {
        let last = remove(state, resource, &key).unwrap_or(object);
        return Ok(last);
    }
    let marked = object["metadata"]["deletionTimestamp"].is_string();
    let shorter = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .is_none_or(|g| grace < g);
    if marked && !shorter {
        return Ok(object);
    }
    let mut object = Value::clone(&object);
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    object["metadata"]["deletionTimestamp"] = json!(seconds(end));
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    Ok(state.put(resource, key, object, "apiserver"))
}

/// A Pod that a kubelet runs is given time to end; the kubelet then deletes it with no grace.
fn grace_period(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if resource.plural != "pods" || !object["spec"]["nodeName"].is_string() || ended {
        return 0;
    }
    asked
        .or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}

/// Removes an object for good, with what it owned or held.
pub(crate) fn remove(state: &mut State, resource: &Resource, key: &Key) -> Option<Arc<Value>> {
    let last = state.remove(resource, key)?;
    if resource.plural == "namespaces" {
        empty(state, &key.1);
    }
    if resource.kind == "CustomResourceDefinition" {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (
            text(&last["spec"]["group"]),
            text(&last["spec"]["names"]["plural"]),
        );
        if let Some(kind) = state.registry.remove(&group, &plural) {
            for (key, _) in all(state, &kind) {
                remove(state, &kind, &key);
            }
        }
    }
    if let Some(uid) = last["metadata"]["uid"].as_str() {
        collect_garbage(state, uid);
    }
    Some(last)
}

fn all(state: &mut State, resource: &Resource) -> Vec<(Key, Arc<Value>)> {
    state
        .table(resource)
        .objects
        .iter()
        .map(|(k, o)| (k.clone(), o.clone()))
        .collect()
}

/// Removes everything in a Namespace.
fn empty(state: &mut State, namespace: &str) {
    let kinds: Vec<Arc<Resource>> = state.registry.all().filter(|r| r.namespaced).cloned().collect();
    for kind in kinds {
        let keys: Vec<Key> = state
            .table(&kind)
            .list(Some(namespace))
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys {
            remove(state, &kind, &key);
        }
    }
}

/// Objects that an owner has, with their kinds.
fn dependents(state: &mut State, uid: &str) -> Vec<(Arc<Resource>, Key, Arc<Value>)> {
    let kinds: Vec<Arc<Resource>> = state.registry.all().cloned().collect();
    let mut found = Vec::new();
    for kind in kinds {
        for (key, object) in &state.table(&kind).objects {
            let owners = object["metadata"]["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten();
            if owners.into_iter().any(|o| o["uid"] == uid) {
                found.push((kind.clone(), key.clone(), object.clone()));
            }
        }
    }
    found
}

/// Deletes what has lost its last owner, as the garbage collector does in the background.
fn collect_garbage(state: &mut State, uid: &str) {
    for (kind, key, object) in dependents(state, uid) {
        let owners = object["metadata"]["ownerReferences"]
            .as_array()
            .map_or(0, Vec::len);
        let target = Target {
            resource: kind.clone(),
            namespace: Some(key.0.clone()).filter(|n| !n.is_empty()),
            name: Some(key.1.clone()),
            subresource: None,
        };
        if owners > 1 {
            disown(state, &kind, &key, &object, uid);
        } else {
            // The dependent may have gone with an earlier one.
            let _ = delete(state, &target, &Query::default(), &Value::Null, Timestamp::now());
        }
    }
}

/// Deletes a new object all of whose owners have gone: somebody made it who had not heard yet.
pub(crate) fn collect_if_ownerless(state: &mut State, resource: &Resource, key: &Key, object: &Value) {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let mut uids = owners.into_iter().flatten().filter_map(|o| o["uid"].as_str());
    if owners.is_some_and(|o| !o.is_empty()) && uids.all(|uid| state.has_gone(uid)) {
        remove(state, resource, key);
    }
}

fn orphan(state: &mut State, owner: &Value) {
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    for (kind, key, object) in dependents(state, &uid) {
        disown(state, &kind, &key, &object, &uid);
    }
}

fn disown(state: &mut State, kind: &Resource, key: &Key, object: &Value, uid: &str) {
    let mut object = object.clone();
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|o| o["uid"] != uid);
    }
    state.put(kind, key.clone(), object, "garbage-collector");
}
