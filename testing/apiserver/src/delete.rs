//! Deletion: preconditions, grace periods of Pods, finalizers, and Namespaces on their way out.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    cause::Cause,
    edit::seconds,
    garbage,
    request::{Query, Target},
    resources::Resource,
    status::Failure,
    store::{Key, State},
};

/// What became of an object that was to be deleted.
pub(crate) struct Deleted {
    pub object: Arc<Value>,
    /// Whether it has gone; it may only have been marked.
    pub gone: bool,
}

/// Deletes the named object, or marks it as being deleted.
pub(crate) fn delete(
    state: &mut State,
    target: &Target,
    query: &Query,
    options: &Value,
    now: Timestamp,
) -> Result<Deleted, Failure> {
    let resource = &target.resource;
    let key = target.key();
    let policy = policy(query, options)?;
    let Some(object) = state.get(resource, &key).cloned() else {
        return Err(Failure::not_found(&target.asked, &key.1));
    };
    check_preconditions(resource, &object, &options["preconditions"])?;
    let asked = options["gracePeriodSeconds"]
        .as_i64()
        .or_else(|| query.get("gracePeriodSeconds")?.parse().ok());
    let grace = grace_period(resource, &object, asked);
    let held = object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    let is_namespace = resource.plural == "namespaces";
    let foreground = policy == "Foreground" && !is_namespace;
    let gone = grace == 0 && !held && !foreground && !is_namespace;
    if query.is_dry_run() || options["dryRun"][0] == "All" {
        return Ok(Deleted { object, gone });
    }
    if policy == "Orphan" {
        garbage::orphan(state, &object);
    }
    if gone {
        let object = remove(state, resource, &key).unwrap_or(object);
        return Ok(Deleted { object, gone });
    }
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if object["metadata"]["deletionTimestamp"].is_string() && before.is_none_or(|before| before <= grace) {
        return Ok(Deleted { object, gone });
    }
    let marked = mark(&object, grace, now, foreground, is_namespace);
    let object = state.put(resource, key.clone(), marked, "apiserver");
    if is_namespace {
        empty(state, &key.1, now);
    } else if foreground {
        collect(state, object["metadata"]["uid"].as_str().unwrap_or_default());
        release(state, resource, &key);
    }
    Ok(Deleted { object, gone })
}

fn policy<'a>(query: &'a Query, options: &'a Value) -> Result<&'a str, Failure> {
    let policy = options["propagationPolicy"]
        .as_str()
        .or_else(|| query.get("propagationPolicy"));
    match policy.unwrap_or("Background") {
        known @ ("Foreground" | "Background" | "Orphan") => Ok(known),
        other => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            let cause = Cause::unsupported("propagationPolicy", &json!(other), &supported);
            Err(Failure::invalid_options("DeleteOptions", &[cause]))
        }
    }
}

fn check_preconditions(resource: &Resource, object: &Value, wanted: &Value) -> Result<(), Failure> {
    for (field, what, why) in [
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ] {
        let (Some(wanted), real) = (wanted[field].as_str(), &object["metadata"][field]) else {
            continue;
        };
        if real != wanted {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({}). \
                 The object might have been {why}",
                real.as_str().unwrap_or_default()
            );
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Failure::precondition(resource, name, &why));
        }
    }
    Ok(())
}

/// An object as one that is being deleted.
fn mark(object: &Value, grace: i64, now: Timestamp, foreground: bool, is_namespace: bool) -> Value {
    let mut object = object.clone();
    let meta = &mut object["metadata"];
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    if let (true, Some(generation)) = (meta["deletionTimestamp"].is_null(), meta["generation"].as_i64()) {
        meta["generation"] = json!(generation + 1);
    }
    meta["deletionTimestamp"] = json!(seconds(end));
    meta["deletionGracePeriodSeconds"] = json!(grace);
    if foreground {
        let mut finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.push(json!(garbage::FOREGROUND));
        meta["finalizers"] = Value::Array(finalizers);
    }
    if is_namespace {
        object["status"]["phase"] = json!("Terminating");
    }
    object
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

/// Whether an object that is being deleted is held up by nothing any more.
pub(crate) fn is_finished(object: &Value) -> bool {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let meta = &object["metadata"];
    meta["deletionTimestamp"].is_string()
        && none(&meta["finalizers"])
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (object["kind"] != "Namespace" || none(&object["spec"]["finalizers"]))
}

/// Removes an object for good, with what it owned or held.
pub(crate) fn remove(state: &mut State, resource: &Resource, key: &Key) -> Option<Arc<Value>> {
    let last = state.remove(resource, key)?;
    if resource.kind == "CustomResourceDefinition" {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (
            text(&last["spec"]["group"]),
            text(&last["spec"]["names"]["plural"]),
        );
        if let Some(kind) = state.registry.remove(&group, &plural) {
            let keys: Vec<Key> = state.table(&kind).objects.keys().cloned().collect();
            for key in keys {
                remove(state, &kind, &key);
            }
        }
    }
    if let Some(uid) = last["metadata"]["uid"].as_str() {
        collect(state, uid);
    }
    for (kind, owner) in garbage::owners_of(state, &last) {
        release(state, &kind, &owner);
    }
    release_namespace(state, &key.0);
    Some(last)
}

/// Deletes what has lost its last owner.
fn collect(state: &mut State, uid: &str) {
    for target in garbage::left_behind(state, uid) {
        // The dependent may have gone with an earlier one.
        let _ = delete(state, &target, &Query::default(), &Value::Null, Timestamp::now());
    }
}

/// Deletes a new object whose owners are all gone.
pub(crate) fn collect_if_ownerless(state: &mut State, resource: &Arc<Resource>, key: &Key, object: &Value) {
    if garbage::is_ownerless(state, key, object) {
        let target = Target::of(resource, key.clone());
        let _ = delete(state, &target, &Query::default(), &Value::Null, Timestamp::now());
    }
}

/// Lets an owner go that waits for its dependents, once none is left that blocks it.
fn release(state: &mut State, resource: &Resource, key: &Key) {
    let Some(owner) = garbage::released(state, resource, key) else {
        return;
    };
    if is_finished(&owner) {
        remove(state, resource, key);
    } else {
        state.put(resource, key.clone(), owner, "garbage-collector");
    }
}

/// Deletes everything in a Namespace, as its controller does in the background.
fn empty(state: &mut State, namespace: &str, now: Timestamp) {
    let kinds: Vec<Arc<Resource>> = state.registry.all().filter(|r| r.namespaced).cloned().collect();
    for kind in kinds {
        let keys: Vec<Key> = state
            .table(&kind)
            .list(Some(namespace))
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys {
            // It may have gone with another one.
            let _ = delete(
                state,
                &Target::of(&kind, key),
                &Query::default(),
                &Value::Null,
                now,
            );
        }
    }
    release_namespace(state, namespace);
}

/// Lets a Namespace go that was only waiting for its last object.
fn release_namespace(state: &mut State, name: &str) {
    let Some(namespaces) = state.registry.get("", "v1", "namespaces").cloned() else {
        return;
    };
    let key = (String::new(), name.to_owned());
    let Some(namespace) = state.get(&namespaces, &key).cloned() else {
        return;
    };
    let kinds: Vec<Arc<Resource>> = state.registry.all().filter(|r| r.namespaced).cloned().collect();
    let is_empty = |kind: &Arc<Resource>| state.table(kind).list(Some(name)).next().is_none();
    if namespace["metadata"]["deletionTimestamp"].is_null() || !kinds.iter().all(is_empty) {
        return;
    }
    let mut namespace = Value::clone(&namespace);
    namespace["spec"]["finalizers"] = Value::Null;
    if is_finished(&namespace) {
        state.remove(&namespaces, &key);
    } else {
        state.put(&namespaces, key, namespace, "apiserver");
    }
}
