//! The objects, and the history of their changes that watches read.
//!
//! One lock guards everything: every request is a short computation. A watch holds no queue of its
//! own; it remembers the last version it has seen, waits for a later one and reads the history. A
//! watcher whose version has left the history is told that it has expired.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    resources::{Registry, Resource},
    selector::Selection,
};

/// Events that are kept for each kind.
const HISTORY: usize = 20_000;

/// Namespace and name; the namespace is empty for objects without one.
pub(crate) type Key = (String, String);

/// Group and plural of a kind.
pub(crate) type TableKey = (String, String);

/// A change of an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub version: u64,
    pub before: Option<Arc<Value>>,
    /// The object; its last state when it is gone.
    pub object: Arc<Value>,
    pub gone: bool,
}

#[derive(Default)]
pub(crate) struct Table {
    pub objects: BTreeMap<Key, Arc<Value>>,
    /// The objects that an owner has, by its UID.
    owned: BTreeMap<String, BTreeSet<Key>>,
    history: VecDeque<Change>,
    /// Version up to which changes have been forgotten.
    forgotten: u64,
}

impl Table {
    /// Objects of one namespace, or of all.
    pub(crate) fn list<'a>(
        &'a self,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        in_namespace(&self.objects, namespace)
    }

    /// Objects that an owner has.
    pub(crate) fn owned_by(&self, uid: &str) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let keys = self.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.objects.get_key_value(key))
    }

    fn insert(&mut self, key: Key, object: Arc<Value>) -> Option<Arc<Value>> {
        let before = self.objects.insert(key.clone(), object.clone());
        self.disown(&key, before.as_deref());
        for uid in owner_uids(&object) {
            self.owned.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        before
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key);
        self.disown(key, before.as_deref());
        before
    }

    fn disown(&mut self, key: &Key, object: Option<&Value>) {
        for uid in object.into_iter().flat_map(owner_uids) {
            if let Some(keys) = self.owned.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(uid);
                }
            }
        }
    }

    /// Objects as they were at a version; `None` if changes since then have been forgotten.
    pub(crate) fn at(&self, version: u64) -> Option<BTreeMap<Key, Arc<Value>>> {
        let changes: Vec<&Change> = self.since(version)?.collect();
        let mut objects = self.objects.clone();
        for change in changes.into_iter().rev() {
            let text = |field: &str| {
                change.object["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let key = (text("namespace"), text("name"));
            match &change.before {
                Some(before) => objects.insert(key, before.clone()),
                None => objects.remove(&key),
            };
        }
        Some(objects)
    }

    /// The version up to which changes have been forgotten.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Changes after a version; `None` if some of them have been forgotten.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let start = self.history.partition_point(|c| c.version <= version);
        (version >= self.forgotten).then(|| self.history.range(start..))
    }
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .filter_map(|owner| owner["uid"].as_str())
}

/// Objects of one namespace, or of all.
pub(crate) fn in_namespace<'a>(
    objects: &'a BTreeMap<Key, Arc<Value>>,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
    let from = (namespace.unwrap_or_default().to_owned(), String::new());
    objects
        .range(from..)
        .take_while(move |((ns, _), _)| namespace.is_none_or(|n| n == ns))
}

/// What is behind the lock.
pub(crate) struct State {
    pub registry: Registry,
    pub tables: BTreeMap<TableKey, Table>,
    pub version: u64,
    writes: BTreeMap<(String, String), u64>,
    /// How often each right was used, by client and right.
    requests: BTreeMap<(String, String), u64>,
    /// Plurals of the kinds that nobody may read or write.
    denied: BTreeSet<String>,
    /// What clients that show a token have done, by token.
    used: BTreeMap<String, BTreeSet<String>>,
}

impl State {
    /// Whether requests about a kind are refused.
    pub(crate) fn is_denied(&self, resource: &Resource) -> bool {
        self.denied.contains(&resource.plural)
    }

    /// Counts a request of a client, by the right that it takes.
    pub(crate) fn count_request(&mut self, client: &str, right: String) {
        *self.requests.entry((client.to_owned(), right)).or_default() += 1;
    }

    /// Notes that somebody has made use of a right.
    pub(crate) fn note_use(&mut self, token: &str, right: String) {
        self.used.entry(token.to_owned()).or_default().insert(right);
    }

    pub(crate) fn table(&mut self, resource: &Resource) -> &mut Table {
        self.tables
            .entry((resource.group.clone(), resource.plural.clone()))
            .or_default()
    }

    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> Option<&Arc<Value>> {
        self.tables
            .get(&(resource.group.clone(), resource.plural.clone()))?
            .objects
            .get(key)
    }

    /// Stores an object with the next version.
    pub(crate) fn put(
        &mut self,
        resource: &Resource,
        key: Key,
        mut object: Value,
        manager: &str,
    ) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        object["metadata"]["resourceVersion"] = Value::String(version.to_string());
        let object = Arc::new(object);
        *self
            .writes
            .entry((resource.plural.clone(), manager.to_owned()))
            .or_default() += 1;
        let table = self.table(resource);
        let before = table.insert(key, object.clone());
        table.record(Change {
            version,
            before,
            object: object.clone(),
            gone: false,
        });
        object
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, resource: &Resource, key: &Key) -> Option<Arc<Value>> {
        let version = self.version + 1;
        let table = self.table(resource);
        let before = table.remove(key)?;
        let mut last = Value::clone(&before);
        last["metadata"]["resourceVersion"] = Value::String(version.to_string());
        let last = Arc::new(last);
        table.record(Change {
            version,
            before: Some(before),
            object: last.clone(),
            gone: true,
        });
        self.version = version;
        Some(last)
    }
}

impl Table {
    fn record(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > HISTORY {
            self.forgotten = self.history.pop_front().map_or(self.forgotten, |c| c.version);
        }
    }
}

/// The objects of a cluster. They outlive the server: another one can be started with the same store.
pub struct Store {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        let state = State {
            registry: Registry::built_in(),
            tables: BTreeMap::new(),
            version: 1,
            writes: BTreeMap::new(),
            requests: BTreeMap::new(),
            denied: BTreeSet::new(),
            used: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
            version: watch::Sender::new(1),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Runs a request; watches are told when it has changed something.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.version;
        let result = work(&mut state);
        if state.version != before {
            self.version.send_replace(state.version);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a request leaves nothing half done that later ones could not live with.
        self.state.lock()
    }

    /// Tells of new versions.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How often a field manager has changed objects of a kind (by its plural), status included.
    /// Writes that change nothing do not count.
    #[must_use]
    pub fn writes(&self, plural: &str, manager: &str) -> u64 {
        self.lock()
            .writes
            .get(&(plural.to_owned(), manager.to_owned()))
            .copied()
            .unwrap_or(0)
    }

    /// How often each client (the first word of its User-Agent, empty without one) has sent each kind of request
    /// about objects, as `VERB PLURAL.GROUP/SUBRESOURCE`. A watch counts once, when it is opened.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<(String, String), u64> {
        self.lock().requests.clone()
    }

    /// Stores an object of a built-in kind without any check, as a server of another version might
    /// hold it. Nothing happens if the group and plural are not served.
    pub fn put_unchecked(&self, group: &str, plural: &str, object: Value) {
        self.with(|state| {
            let Some(resource) = state.registry.get(group, "v1", plural).cloned() else {
                return;
            };
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let key = (text("namespace"), text("name"));
            state.put(&resource, key, object, "unchecked");
        });
    }

    /// Refuses all requests about these kinds, by their plurals, as without the right; and no others.
    pub fn deny(&self, plurals: &[&str]) {
        self.lock().denied = plurals.iter().map(|p| (*p).to_owned()).collect();
    }

    /// The rights that whoever shows a token has made use of, as `VERB PLURAL.GROUP/SUBRESOURCE`. Nothing is asked
    /// of a token but to tell clients apart.
    #[must_use]
    pub fn rights_used(&self, token: &str) -> BTreeSet<String> {
        self.lock().used.get(token).cloned().unwrap_or_default()
    }

    /// Forgets the history: every watch that asks for an older version has expired.
    pub fn compact(&self) {
        self.with(|state| {
            state.version += 1;
            let version = state.version;
            for table in state.tables.values_mut() {
                table.history.clear();
                table.forgotten = version;
            }
        });
    }
}

/// The type of the event by which a watcher with a selection sees a change, and the object as it is
/// shown: one that leaves the selection is shown for the last time as it was.
pub(crate) fn seen_as(
    change: &Change,
    namespace: Option<&str>,
    selection: &Selection,
) -> Option<(&'static str, Arc<Value>)> {
    if namespace.is_some_and(|n| change.object["metadata"]["namespace"] != n) {
        return None;
    }
    let before = change.before.as_ref().filter(|b| selection.matches(b));
    let after = !change.gone && selection.matches(&change.object);
    match (before, after) {
        (None, true) => Some(("ADDED", change.object.clone())),
        (Some(_), true) => Some(("MODIFIED", change.object.clone())),
        (Some(before), false) => {
            let mut last = Value::clone(before);
            last["metadata"]["resourceVersion"] = Value::String(change.version.to_string());
            Some(("DELETED", Arc::new(last)))
        }
        (None, false) => None,
    }
}
