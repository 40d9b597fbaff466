//! managedFields: which manager owns which field.
//!
//! A set of fields is a set of paths to leaves. A leaf is a scalar, an empty map or an atomic map or
//! list; in a list that is merged by key the item itself is an entry, too, so that it can be owned.
//! Who creates a map or list by an update owns it as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use serde_json::{Map, Value, json};

use super::{resources::Resource, schema::ListKind};

/// One step of a path, ordered so that it can be a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    /// An item of a list by its key fields, as JSON text.
    Key(String),
    /// An item of a set, as JSON text.
    Item(String),
}

pub(super) type Path = Vec<Step>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(super) BTreeSet<Path>);

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

/// Whether the map at a path is merged as a whole.
pub(super) fn is_atomic_map(resource: &Resource, path: &[&str]) -> bool {
    match &resource.custom {
        Some(custom) if path.first() != Some(&"metadata") => custom.is_atomic_map(path),
        _ => matches!(
            path.last(),
            Some(&("selector" | "podSelector" | "namespaceSelector" | "nodeSelector"))
        ),
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
    /// The fields that an object gives a value.
    pub(crate) fn of(resource: &Resource, object: &Value) -> Self {
        Self(Walk::over(resource, object, false).into_keys().collect())
    }

    /// All that can be owned of an object, its maps and lists included.
    pub(crate) fn all(resource: &Resource, object: &Value) -> Self {
        Self(Walk::over(resource, object, true).into_keys().collect())
    }

    /// What of `new` is not in `old`, or has another value there.
    pub(crate) fn changed(resource: &Resource, old: &Value, new: &Value) -> Self {
        let before = Walk::over(resource, old, true);
        let after = Walk::over(resource, new, true).into_iter();
        Self(
            after
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
                if last && (matches!(step, Step::Key(_)) || self.has_below(path)) {
                    child.insert(".".to_owned(), json!({}));
                }
                node = child;
            }
        }
        Value::Object(root)
    }

    /// Whether something inside of a path is in the set, too.
    fn has_below(&self, path: &Path) -> bool {
        let mut after = self.0.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
        after.next().is_some_and(|next| next.starts_with(path))
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

/// A walk over an object, to the paths in it that can be owned; a leaf comes with its value.
struct Walk<'a> {
    resource: &'a Resource,
    /// Whether maps and lists count, too.
    inner: bool,
    names: Vec<&'a str>,
    path: Path,
    found: BTreeMap<Path, Value>,
}

impl<'a> Walk<'a> {
    fn over(resource: &'a Resource, object: &'a Value, inner: bool) -> BTreeMap<Path, Value> {
        let (names, path, found) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut walk = Self {
            resource,
            inner,
            names,
            path,
            found,
        };
        walk.value(object);
        walk.found
    }

    fn leaf(&mut self, value: &Value) {
        self.found.insert(self.path.clone(), value.clone());
    }

    fn container(&mut self) {
        // spec and status of built-in kinds are always there.
        let top = if self.resource.custom.is_some() { 1 } else { 2 };
        if self.inner && self.path.len() >= top && self.names != ["metadata"] {
            self.leaf(&Value::Null);
        }
    }

    fn fields(&mut self, fields: &'a Map<String, Value>) {
        for (name, child) in fields {
            self.names.push(name);
            self.path.push(Step::Field(name.clone()));
            self.value(child);
            self.path.pop();
            self.names.pop();
        }
    }

    fn value(&mut self, value: &'a Value) {
        if is_system(&self.names) {
            return;
        }
        match value {
            Value::Object(fields) if !fields.is_empty() && !is_atomic_map(self.resource, &self.names) => {
                self.container();
                self.fields(fields);
            }
            Value::Array(items) if !self.path.is_empty() => self.list(value, items),
            _ if self.path.is_empty() => {}
            _ => self.leaf(value),
        }
    }

    fn list(&mut self, value: &'a Value, items: &'a [Value]) {
        let kind = list_kind(self.resource, &self.names);
        if kind == ListKind::Atomic {
            return self.leaf(value);
        }
        self.container();
        for item in items {
            match &kind {
                ListKind::Map(keys) => self.path.push(Step::Key(key_of(keys, item).to_string())),
                ListKind::Set | ListKind::Atomic => self.path.push(Step::Item(item.to_string())),
            }
            self.leaf(&Value::Null);
            if let (ListKind::Map(_), Value::Object(fields)) = (&kind, item) {
                self.fields(fields);
            }
            self.path.pop();
        }
    }
}
