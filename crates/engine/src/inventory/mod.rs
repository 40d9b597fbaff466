//! What is known of the cluster, indexed by what the engine asks: objects in, [`Facts`](crate::Facts) out.
//!
//! Pure and without IO. The controller keeps an Inventory up to date from its watches; each change
//! answers with the diagnoses whose verdict may depend on it (`concerns`). [`Inventory::facts`]
//! then puts together what the engine needs for one of them.

mod agents;
mod concerns;
mod contents;
mod events;
mod facts;
mod heard;
mod listed;
mod packed;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

pub use contents::written;
pub use events::PodEvents;
pub use facts::CLUSTER_DNS;
pub use listed::{Listed, Listing};
use packed::PackedProbe;

use svcdiag_api::ServiceDiagnosis;
use svcdiag_objects::{
    Deployment, EndpointSlice, Lease, Namespace, NetworkPolicy, Node, Object, Pod, ReplicaSet, Service,
    StatefulSet,
};

/// Namespace and name of a ServiceDiagnosis.
pub type DiagnosisKey = (String, String);

/// Objects of one kind, by namespace (empty for kinds without one) and name.
#[derive(Debug)]
pub struct Table<K>(BTreeMap<String, BTreeMap<String, Arc<K>>>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K> Table<K> {
    /// Objects of a namespace.
    fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.0.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.0.get(namespace)?.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, namespace: &str, name: &str, object: Arc<K>) -> Option<Arc<K>> {
        self.0
            .entry(namespace.to_owned())
            .or_default()
            .insert(name.to_owned(), object)
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self.0.get_mut(namespace)?;
        let gone = objects.remove(name);
        if objects.is_empty() {
            self.0.remove(namespace);
        }
        gone
    }
}

/// What the Inventory has to know of a ServiceDiagnosis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Name of its Service.
    pub service: String,
    /// Namespace of its clients, where that is another one.
    pub client_namespace: Option<String>,
    /// Whether it names its clients.
    pub names_clients: bool,
    /// Whether it was made by the controller.
    pub automatic: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// Label of the objects that the controller makes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "svcdiag");

impl From<&ServiceDiagnosis> for Interest {
    fn from(diagnosis: &ServiceDiagnosis) -> Self {
        let spec = &diagnosis.spec;
        let own = diagnosis.namespace();
        Self {
            service: spec.service_name.clone(),
            client_namespace: spec.clients.namespace.clone().filter(|n| n != own),
            names_clients: spec.clients.pod_selector.is_some(),
            // The label alone could have come with a copied manifest.
            automatic: diagnosis
                .labels()
                .get(MANAGED_BY.0)
                .is_some_and(|v| v == MANAGED_BY.1)
                && diagnosis
                    .metadata
                    .owner_references
                    .iter()
                    .flatten()
                    .any(|o| o.kind == "Service" && o.controller == Some(true)),
            created: diagnosis.metadata.creation_timestamp.as_ref().map(|t| t.0),
        }
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct Inventory {
    services: Table<Service>,
    /// How many Services have an address: two may have one for a moment.
    service_ips: BTreeMap<String, usize>,
    slices: Table<EndpointSlice>,
    /// Names of the slices of a Service, by namespace and Service.
    slices_of: BTreeMap<(String, String), BTreeSet<String>>,
    /// When slices of a Service were last seen to be gone, for a while, by namespace and Service.
    slices_gone_at: BTreeMap<(String, String), Timestamp>,
    pods: Table<Pod>,
    deployments: Table<Deployment>,
    replica_sets: Table<ReplicaSet>,
    stateful_sets: Table<StatefulSet>,
    policies: Table<NetworkPolicy>,
    namespaces: Table<Namespace>,
    nodes: Table<Node>,
    leases: Table<Lease>,
    /// Whether all Leases were listed, so that one that is not here does not exist.
    leases_are_listed: bool,
    /// What the Leases say of the agents, by node.
    agents: BTreeMap<Arc<str>, agents::Agent>,
    probes: Table<PackedProbe>,
    /// Names of the NodeProbes of a diagnosis.
    probes_of: BTreeMap<DiagnosisKey, BTreeSet<String>>,
    /// Since when agents have owed an answer to a NodeProbe, by its namespace and name.
    owed_since: BTreeMap<(String, String), Timestamp>,
    events: PodEvents,
    /// Kinds of policies beyond NetworkPolicy that the cluster serves.
    other_policy_kinds: Vec<String>,
    /// Why kinds cannot be read that a verdict can do without, by resource.
    unreadable: BTreeMap<String, String>,
    /// When what is taken in was seen.
    now: Timestamp,
    interests: Table<Interest>,
    /// Diagnoses whose clients are in another namespace, by that.
    clients_in: BTreeMap<String, BTreeSet<DiagnosisKey>>,
    /// Objects that could not be parsed: kind, namespace and name, and why.
    unparsable: BTreeMap<(String, String, String), String>,
}

/// A kind that the Inventory holds.
pub trait Tracked: Object + Sized + Send + Sync + 'static {
    /// As what it is held: for most kinds, as it is.
    type Held: Send + Sync;

    /// Where it is held.
    fn table(inventory: &mut Inventory) -> &mut Table<Self::Held>;

    /// The object as it is held.
    fn hold(object: &Arc<Self>) -> Arc<Self::Held>;

    /// What is held, as an object.
    fn held(held: &Arc<Self::Held>) -> Option<Arc<Self>>;

    /// What of an object is taken in.
    fn admitted(self) -> Self {
        self
    }

    /// Whether the object seldom changes a verdict while more of its kind are about to come.
    fn tells_no_fault(&self) -> bool {
        false
    }

    /// Notes that all objects of the kind have been listed.
    fn note_listed(_: &mut Inventory) {}

    /// The diagnoses that a change concerns; `old` is absent for a new object, `new` for one that is gone.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey>;

    /// Keeps indexes in step with the table.
    fn index(_: &mut Inventory, _old: Option<&Self>, _new: Option<&Self>) {}
}

/// What a kind says of itself that is held as it is.
macro_rules! held_as_it_is {
    () => {
        type Held = Self;

        fn hold(object: &Arc<Self>) -> Arc<Self> {
            object.clone()
        }

        fn held(held: &Arc<Self>) -> Option<Arc<Self>> {
            Some(held.clone())
        }
    };
}
use held_as_it_is;

impl Inventory {
    /// Sets the time at which what is taken in next was seen. Only what agents say, and do not say, asks for it.
    pub fn observe_at(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Takes in an object that is new or has changed; returns the diagnoses it concerns.
    pub fn apply<K: Tracked>(&mut self, object: K) -> BTreeSet<DiagnosisKey> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let closed = self.close_gap::<K>(&namespace, &name);
        let object = Arc::new(object.admitted());
        let before = K::table(self).insert(&namespace, &name, K::hold(&object));
        let old = before.and_then(|held| K::held(&held));
        K::index(self, old.as_deref(), Some(&object));
        let concerned = K::concerns(self, old.as_deref(), Some(&object));
        &closed | &concerned
    }

    /// Takes in a Node of which nothing but the name is known, unless it is there.
    pub fn ensure_node(&mut self, name: &str) {
        if self.nodes.get("", name).is_none() {
            let mut node = Node::default();
            node.metadata.name = Some(name.to_owned());
            self.apply(node);
        }
    }

    /// Forgets an object; returns the diagnoses it concerned.
    pub fn delete<K: Tracked>(&mut self, namespace: &str, name: &str) -> BTreeSet<DiagnosisKey> {
        let closed = self.close_gap::<K>(namespace, name);
        let Some(old) = K::table(self)
            .remove(namespace, name)
            .and_then(|held| K::held(&held))
        else {
            return closed;
        };
        K::index(self, Some(&old), None);
        let concerned = K::concerns(self, Some(&old), None);
        &closed | &concerned
    }

    /// Forgets that an object could not be parsed; returns the diagnoses that it kept from a verdict.
    fn close_gap<K>(&mut self, namespace: &str, name: &str) -> BTreeSet<DiagnosisKey> {
        match self.unparsable.remove(&unparsable_key::<K>(namespace, name)) {
            Some(_) => self.diagnoses_in(namespace),
            None => BTreeSet::new(),
        }
    }

    /// Diagnoses of a namespace.
    pub fn diagnoses_in(&self, namespace: &str) -> BTreeSet<DiagnosisKey> {
        let names = self.interests_of(namespace);
        names
            .map(|(name, _)| (namespace.to_owned(), name.clone()))
            .collect()
    }

    /// Replaces all objects of a kind, after they were listed anew; concerns every diagnosis.
    pub fn replace<K: Tracked>(&mut self, objects: impl IntoIterator<Item = K>) -> BTreeSet<DiagnosisKey> {
        self.replace_held::<K>(objects.into_iter().map(as_held))
    }

    /// The same with objects as they are held ([`as_held`]), so that a long list takes no more memory than its objects will.
    pub fn replace_held<K: Tracked>(
        &mut self,
        objects: impl IntoIterator<Item = Arc<K::Held>>,
    ) -> BTreeSet<DiagnosisKey> {
        let kind = kind_of::<K>();
        K::note_listed(self);
        self.unparsable.retain(|(k, _, _), _| *k != kind);
        let mut old = std::mem::take(K::table(self));
        for held in objects {
            let Some(object) = K::held(&held) else { continue };
            let before = old.remove(object.namespace(), object.name());
            let before = before.and_then(|held| K::held(&held));
            K::table(self).insert(object.namespace(), object.name(), held);
            K::index(self, before.as_deref(), Some(&object));
        }
        for gone in old.0.values().flat_map(BTreeMap::values).filter_map(K::held) {
            K::index(self, Some(&gone), None);
        }
        self.all()
    }

    /// Notes that an object could not be parsed. What was known of it stays, but nothing is blamed
    /// on what it may have become.
    pub fn note_unparsable<K: Tracked>(
        &mut self,
        namespace: &str,
        name: &str,
        why: String,
    ) -> BTreeSet<DiagnosisKey> {
        self.unparsable.insert(unparsable_key::<K>(namespace, name), why);
        self.diagnoses_in(namespace)
    }

    /// Notes why a kind cannot be read that a verdict can do without, or that it can be; returns the diagnoses
    /// to which that is news.
    pub fn note_unreadable(&mut self, resource: &str, why: Option<String>) -> BTreeSet<DiagnosisKey> {
        let before = match why.clone() {
            Some(why) => self.unreadable.insert(resource.to_owned(), why),
            None => self.unreadable.remove(resource),
        };
        if before == why {
            return BTreeSet::new();
        }
        self.all()
    }

    /// Notes which kinds of policies beyond NetworkPolicy the cluster serves; returns the diagnoses to which
    /// that is news.
    pub fn note_policy_kinds(&mut self, kinds: BTreeSet<String>) -> BTreeSet<DiagnosisKey> {
        let kinds: Vec<String> = kinds.into_iter().collect();
        if self.other_policy_kinds == kinds {
            return BTreeSet::new();
        }
        self.other_policy_kinds = kinds;
        self.all()
    }

    /// Kinds of policies beyond NetworkPolicy that the cluster serves.
    pub fn policy_kinds(&self) -> impl Iterator<Item = &String> {
        self.other_policy_kinds.iter()
    }

    /// Every diagnosis.
    #[must_use]
    pub fn all(&self) -> BTreeSet<DiagnosisKey> {
        let keys = |(namespace, of): (&String, &BTreeMap<String, _>)| {
            of.keys()
                .map(|name| (namespace.clone(), name.clone()))
                .collect::<Vec<_>>()
        };
        self.interests.0.iter().flat_map(keys).collect()
    }

    /// How many diagnoses there are.
    #[must_use]
    pub fn diagnoses(&self) -> usize {
        self.interests.len()
    }

    /// Takes in a diagnosis that is new or has changed.
    pub fn set_interest(&mut self, diagnosis: &ServiceDiagnosis) {
        let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
        let interest = Interest::from(diagnosis);
        self.remove_interest(namespace, name);
        if let Some(clients) = &interest.client_namespace {
            let there = self.clients_in.entry(clients.clone()).or_default();
            there.insert((namespace.to_owned(), name.to_owned()));
        }
        self.interests.insert(namespace, name, Arc::new(interest));
    }

    /// Forgets a diagnosis.
    pub fn remove_interest(&mut self, namespace: &str, name: &str) {
        let gone = self.interests.remove(namespace, name);
        let Some(clients) = gone.and_then(|interest| interest.client_namespace.clone()) else {
            return;
        };
        if let Some(there) = self.clients_in.get_mut(&clients) {
            there.remove(&(namespace.to_owned(), name.to_owned()));
            if there.is_empty() {
                self.clients_in.remove(&clients);
            }
        }
    }

    /// Whether a diagnosis is beyond the number that a namespace may have, the oldest first.
    #[must_use]
    pub fn is_beyond(&self, limit: usize, namespace: &str, name: &str) -> bool {
        let Some(of) = self
            .interests
            .0
            .get(namespace)
            .filter(|of| limit > 0 && of.len() > limit)
        else {
            return false;
        };
        let rank = |name: &str| of.get(name).map(|i| (i.created, name.to_owned()));
        let own = rank(name);
        of.keys().filter(|other| rank(other) < own).count() >= limit
    }

    /// Services, each with the diagnosis of its name, for Namespaces that ask for one for each.
    pub fn services_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.services.of(namespace)
    }

    /// Namespaces and names of all Services.
    pub fn service_names(&self) -> impl Iterator<Item = (String, String)> {
        let of = |(namespace, of): (&String, &BTreeMap<String, _>)| {
            of.keys()
                .map(|name| (namespace.clone(), name.clone()))
                .collect::<Vec<_>>()
        };
        self.services.0.iter().flat_map(of)
    }

    /// Namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.of("")
    }

    /// Diagnoses of a namespace, by name.
    pub fn interests_of(&self, namespace: &str) -> impl Iterator<Item = (&String, &Arc<Interest>)> {
        self.interests.0.get(namespace).into_iter().flatten()
    }
}

/// What is taken in of an object, as it is held.
pub fn as_held<K: Tracked>(object: K) -> Arc<K::Held> {
    K::hold(&Arc::new(object.admitted()))
}

/// Our types have the names of their kinds.
fn kind_of<K>() -> &'static str {
    std::any::type_name::<K>().rsplit("::").next().unwrap_or_default()
}

fn unparsable_key<K>(namespace: &str, name: &str) -> (String, String, String) {
    (kind_of::<K>().to_owned(), namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod agent_tests;
#[cfg(test)]
mod tests;
