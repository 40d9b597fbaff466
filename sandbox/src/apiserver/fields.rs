//! managedFields: which manager owns which field, and the merge of server-side apply.
//!
//! A set of fields is a set of paths to leaves. A leaf is a scalar, an empty map or an atomic list;
//! in a list that is merged by key the item itself is an entry, too, so that it can be owned.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::resources::Resource;

/// How a list is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// As a whole.
    Atomic,
    /// As a set of values.
    Set,
    /// Item by item, told apart by these fields.
    Map(Vec<String>),
}

/// One step of a path, ordered so that it can be a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// An item of a list by its key fields, as JSON text.
    Key(String),
    /// An item of a set, as JSON text.
    Item(String),
}

type Path = Vec<Step>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeSet<Path>);

/// How lists of built-in kinds are merged, by the name of the list: the patchMergeKeys and
/// listMapKeys of the API's types, as far as our kinds have them.
fn built_in(resource: &Resource, path: &[&str]) -> ListKind {
    let keys = |keys: &[&str]| ListKind::Map(keys.iter().map(|k| (*k).to_owned()).collect());
    match (path.last().copied().unwrap_or_default(), resource.kind.as_str()) {
        ("finalizers", _) => ListKind::Set,
        ("ownerReferences", _) => keys(&["uid"]),
        ("conditions", _) => keys(&["type"]),
        ("ports", "Service") => keys(&["port", "protocol"]),
        ("ports", "EndpointSlice" | "NetworkPolicy" | "Endpoints") => ListKind::Atomic,
        ("ports", _) => keys(&["containerPort", "protocol"]),
        (
            "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets",
            _,
        ) => keys(&["name"]),
        ("volumeMounts", _) => keys(&["mountPath"]),
        ("addresses", "Node") => keys(&["type"]),
        ("podIPs", _) => keys(&["ip"]),
        _ => ListKind::Atomic,
    }
}

/// How the list at a path is merged.
pub(crate) fn list_kind(resource: &Resource, path: &[&str]) -> ListKind {
    match &resource.custom {
        Some(custom) if path.first() != Some(&"metadata") => custom.list_kind(path),
        _ => built_in(resource, path),
    }
}

/// The key of an item of a keyed list; protocol counts as TCP when absent, as its default is.
pub(crate) fn key_of(keys: &[String], item: &Value) -> Value {
    let value = |k: &String| match &item[k] {
        Value::Null if k == "protocol" => json!("TCP"),
        found => found.clone(),
    };
    Value::Object(keys.iter().map(|k| (k.clone(), value(k))).collect())
}

/// Metadata that the server alone writes.
const SYSTEM_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "deletionTimestamp",
    "selfLink",
];

fn is_system(path: &[&str]) -> bool {
    match path {
        ["apiVersion" | "kind"] => true,
        ["metadata", name] => {
            SYSTEM_METADATA.contains(name) || *name == "generateName" || *name == "deletionGracePeriodSeconds"
        }
        _ => false,
    }
}

impl Fields {
    /// All fields of an object.
    pub(crate) fn of(resource: &Resource, object: &Value) -> Self {
        let mut set = BTreeSet::new();
        collect(resource, object, &mut Vec::new(), &mut Vec::new(), &mut set);
        Self(set)
    }

    /// The fields of `new` whose value is not that of `old`.
    pub(crate) fn changed(resource: &Resource, old: &Value, new: &Value) -> Self {
        let before = leaves(resource, old);
        let after = leaves(resource, new);
        Self(
            after
                .into_iter()
                .filter(|(path, value)| before.get(path) != Some(value))
                .map(|(path, _)| path)
                .collect(),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn retain_in(&mut self, other: &Self) {
        self.0.retain(|path| other.0.contains(path));
    }

    pub(crate) fn remove(&mut self, other: &Self) {
        self.0.retain(|path| !other.0.contains(path));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// The form that fieldsV1 has.
    pub(crate) fn to_v1(&self) -> Value {
        let mut root = Map::new();
        for path in &self.0 {
            let mut node = &mut root;
            for (i, step) in path.iter().enumerate() {
                let name = match step {
                    Step::Field(name) => format!("f:{name}"),
                    Step::Key(key) => format!("k:{key}"),
                    Step::Item(value) => format!("v:{value}"),
                };
                let last = i + 1 == path.len();
                let child = node.entry(name).or_insert_with(|| json!({}));
                let Value::Object(child) = child else { break };
                if last && matches!(step, Step::Key(_)) {
                    child.insert(".".to_owned(), json!({}));
                }
                node = child;
            }
        }
        Value::Object(root)
    }

    /// Reads fieldsV1.
    pub(crate) fn from_v1(value: &Value) -> Self {
        let mut set = BTreeSet::new();
        read_v1(value, &mut Vec::new(), &mut set);
        Self(set)
    }

    /// The fields as the server names them in conflicts.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(name).collect()
    }
}

fn name(path: &Path) -> String {
    path.iter()
        .map(|step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Key(key) => {
                let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let pairs: Vec<String> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", pairs.join(","))
            }
            Step::Item(value) => format!("[={value}]"),
        })
        .collect()
}

fn read_v1(value: &Value, path: &mut Path, set: &mut BTreeSet<Path>) {
    let Some(children) = value.as_object() else { return };
    if children.is_empty() && !path.is_empty() {
        set.insert(path.clone());
    }
    for (name, child) in children {
        let step = match name.split_once(':') {
            Some(("f", name)) => Step::Field(name.to_owned()),
            Some(("k", key)) => Step::Key(key.to_owned()),
            Some(("v", value)) => Step::Item(value.to_owned()),
            _ => {
                set.insert(path.clone());
                continue;
            }
        };
        path.push(step);
        read_v1(child, path, set);
        path.pop();
    }
}

/// The paths of an object's leaves, with their values.
fn leaves(resource: &Resource, object: &Value) -> BTreeMap<Path, Value> {
    let mut set = BTreeSet::new();
    collect(resource, object, &mut Vec::new(), &mut Vec::new(), &mut set);
    set.into_iter()
        .map(|path| {
            (
                path.clone(),
                value_at(object, &path).cloned().unwrap_or(Value::Null),
            )
        })
        .map(stub_items)
        .collect()
}

/// The item of a keyed list is there or not; its fields are leaves of their own.
fn stub_items((path, value): (Path, Value)) -> (Path, Value) {
    match path.last() {
        Some(Step::Key(_)) => (path, Value::Null),
        _ => (path, value),
    }
}

fn collect<'a>(
    resource: &Resource,
    value: &'a Value,
    names: &mut Vec<&'a str>,
    path: &mut Path,
    set: &mut BTreeSet<Path>,
) {
    if is_system(names) {
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, child) in fields {
                names.push(name);
                path.push(Step::Field(name.clone()));
                collect(resource, child, names, path, set);
                path.pop();
                names.pop();
            }
        }
        Value::Array(items) if !path.is_empty() => match list_kind(resource, names) {
            ListKind::Atomic => {
                set.insert(path.clone());
            }
            ListKind::Set => {
                for item in items {
                    path.push(Step::Item(item.to_string()));
                    set.insert(path.clone());
                    path.pop();
                }
            }
            ListKind::Map(keys) => {
                for item in items {
                    path.push(Step::Key(key_of(&keys, item).to_string()));
                    set.insert(path.clone());
                    for (name, child) in item.as_object().into_iter().flatten() {
                        names.push(name);
                        path.push(Step::Field(name.clone()));
                        collect(resource, child, names, path, set);
                        path.pop();
                        names.pop();
                    }
                    path.pop();
                }
            }
        },
        _ if path.is_empty() => {}
        _ => {
            set.insert(path.clone());
        }
    }
}

fn matches_key(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(key)) = serde_json::from_str::<Value>(key) else {
        return false;
    };
    let keys: Vec<String> = key.keys().cloned().collect();
    key_of(&keys, item) == Value::Object(key)
}

fn is_item(item: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value == *item)
}

fn value_at<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Key(key) => value.as_array()?.iter().find(|item| matches_key(item, key)),
        Step::Item(text) => value.as_array()?.iter().find(|item| is_item(item, text)),
    })
}

/// Removes a field, and the maps that become empty by it.
fn remove_at(object: &mut Value, path: &[Step]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (first, object) {
        (Step::Field(name), Value::Object(fields)) => {
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(child) = fields.get_mut(name) {
                remove_at(child, rest);
                if child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty)
                {
                    fields.remove(name);
                }
            }
        }
        (Step::Key(key), Value::Array(items)) => {
            if rest.is_empty() {
                items.retain(|item| !matches_key(item, key));
            } else if let Some(item) = items.iter_mut().find(|item| matches_key(item, key)) {
                remove_at(item, rest);
            }
        }
        (Step::Item(text), Value::Array(items)) => items.retain(|item| !is_item(item, text)),
        _ => {}
    }
}

/// Lays an applied configuration over the live object.
pub(crate) fn merge(resource: &Resource, live: &mut Value, applied: &Value) {
    merge_at(resource, live, applied, &mut Vec::new());
}

fn merge_at<'a>(resource: &Resource, live: &mut Value, applied: &'a Value, names: &mut Vec<&'a str>) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                names.push(name);
                merge_at(resource, live.entry(name).or_insert(Value::Null), value, names);
                names.pop();
            }
        }
        (Value::Array(live), Value::Array(applied)) => match list_kind(resource, names) {
            ListKind::Atomic => live.clone_from(applied),
            ListKind::Set => live.extend(
                applied
                    .iter()
                    .filter(|item| !live.contains(item))
                    .cloned()
                    .collect::<Vec<_>>(),
            ),
            ListKind::Map(keys) => {
                for item in applied {
                    let key = key_of(&keys, item);
                    match live.iter_mut().find(|l| key_of(&keys, l) == key) {
                        Some(existing) => merge_at(resource, existing, item, names),
                        None => live.push(item.clone()),
                    }
                }
            }
        },
        (live, applied) => *live = applied.clone(),
    }
}

/// Removes the fields of `gone` from an object. An item of a keyed list goes with its own entry,
/// unless somebody else still owns a part of it.
pub(crate) fn remove_fields(object: &mut Value, gone: &Fields, kept_by_others: &Fields) {
    let needed = |path: &Path| kept_by_others.0.iter().any(|other| other.starts_with(path));
    // In the set's order an item comes before its own fields, while its key can still be read.
    for path in &gone.0 {
        if !needed(path) && !is_key_field(path) {
            remove_at(object, path);
        }
    }
}

/// Whether a path leads to a field by which an item of a keyed list is told apart: such a field
/// stays as long as the item does.
fn is_key_field(path: &Path) -> bool {
    let [.., Step::Key(key), Step::Field(name)] = path.as_slice() else {
        return false;
    };
    serde_json::from_str::<Map<String, Value>>(key).is_ok_and(|key| key.contains_key(name))
}

/// The fields of `mine` that `theirs` owns with another value.
pub(crate) fn conflicts(mine: &Fields, theirs: &Fields, live: &Value, applied: &Value) -> Fields {
    let differs = |path: &&Path| {
        !matches!(path.last(), Some(Step::Key(_) | Step::Item(_)))
            && value_at(live, path) != value_at(applied, path)
    };
    Fields(
        mine.0
            .iter()
            .filter(|p| theirs.0.contains(*p))
            .filter(differs)
            .cloned()
            .collect(),
    )
}
