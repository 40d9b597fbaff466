//! Which diagnoses a change of an object concerns: those whose verdict may depend on it.
//!
//! Nearly everything that matters to a Service is in its namespace, so most kinds concern the
//! diagnoses there. Slices and Pods change all the time and are told apart more finely. What slips
//! through (a Pod that becomes the first candidate for a client, say) is seen in the next round.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{DiagnosisKey, Interest, Inventory, Table, Tracked, held_as_it_is};
use crate::time::later;
use svcdiag_objects::{
    Deployment, EndpointSlice, Namespace, NetworkPolicy, Object, Pod, ReplicaSet, Service, StatefulSet,
    matches_labels,
};

/// How long it is known that slices of a Service have gone.
const GONE_FOR: SignedDuration = SignedDuration::from_secs(60);

impl Inventory {
    /// Diagnoses in a namespace, or with clients there, that pass a test.
    pub(super) fn involving(
        &self,
        namespace: &str,
        test: impl Fn(&str, &Interest) -> bool,
    ) -> BTreeSet<DiagnosisKey> {
        let own = self.interests_of(namespace);
        let own = own.map(|(name, interest)| (namespace, name, interest));
        let others = self.clients_in.get(namespace).into_iter().flatten();
        let others =
            others.filter_map(|(home, name)| Some((home.as_str(), name, self.interests.get(home, name)?)));
        let involved = own
            .chain(others)
            .filter(|(home, _, interest)| test(home, interest));
        involved
            .map(|(home, name, _)| (home.to_owned(), name.clone()))
            .collect()
    }

    /// Diagnoses that involve a namespace with Pods on a node; all, if cluster DNS has some there.
    pub(super) fn with_pods_on(&self, node: &str) -> BTreeSet<DiagnosisKey> {
        let is_there = |pod: &Arc<Pod>| pod.spec.node_name.as_deref() == Some(node);
        if self
            .cluster_dns()
            .is_some_and(|dns| dns.pods.iter().any(is_there))
        {
            return self.all();
        }
        let namespaces = self.pods.0.iter().filter(|(_, pods)| pods.values().any(is_there));
        namespaces
            .flat_map(|(name, _)| self.involving(name, |_, _| true))
            .collect()
    }

    fn is_cluster_dns(&self, namespace: &str, name: &str) -> bool {
        self.dns_service()
            .is_some_and(|s| s.namespace() == namespace && s.name() == name)
    }
}

/// Namespace of an object before or after its change.
fn place<K: Object>(old: Option<&K>, new: Option<&K>) -> (String, String) {
    old.or(new)
        .map(|o| (o.namespace().to_owned(), o.name().to_owned()))
        .unwrap_or_default()
}

impl Tracked for NetworkPolicy {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.policies
    }

    /// Every diagnosis that involves its namespace.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let (namespace, _) = place(old, new);
        inventory.involving(&namespace, |_, _| true)
    }
}

/// Declares a workload: it concerns the Services that select its Pods.
macro_rules! workload {
    ($kind:ident, $table:ident) => {
        impl Tracked for $kind {
            held_as_it_is!();

            fn table(inventory: &mut Inventory) -> &mut Table<Self> {
                &mut inventory.$table
            }

            fn concerns(
                inventory: &Inventory,
                old: Option<&Self>,
                new: Option<&Self>,
            ) -> BTreeSet<DiagnosisKey> {
                let (namespace, _) = place(old, new);
                let templates = || {
                    old.into_iter()
                        .chain(new)
                        .map(|w| &w.spec.template.metadata.labels)
                };
                inventory.involving(&namespace, |home, interest| {
                    let service = inventory.services.get(home, &interest.service);
                    home == namespace
                        && service.is_some_and(|s| {
                            templates().any(|labels| matches_labels(&s.spec.selector, labels))
                        })
                })
            }
        }
    };
}

workload!(Deployment, deployments);
workload!(ReplicaSet, replica_sets);
workload!(StatefulSet, stateful_sets);

impl Tracked for Service {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.services
    }

    /// Its own diagnoses, those of namesakes elsewhere and of Services that are not there (their
    /// messages name near misses); all, if it is cluster DNS.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let (namespace, name) = place(old, new);
        if inventory.is_cluster_dns(&namespace, &name)
            || super::facts::CLUSTER_DNS.contains(&(&namespace, &name))
        {
            return inventory.all();
        }
        let appeared_or_gone = old.is_none() || new.is_none();
        let mut keys = BTreeSet::new();
        for (home, interests) in &inventory.interests.0 {
            for (diagnosis, interest) in interests {
                let own = *home == namespace && interest.service == name;
                let missing = || inventory.services.get(home, &interest.service).is_none();
                let near = appeared_or_gone && (*home == namespace || interest.service == name) && missing();
                if own || near {
                    keys.insert((home.clone(), diagnosis.clone()));
                }
            }
        }
        keys
    }

    fn index(inventory: &mut Inventory, old: Option<&Self>, new: Option<&Self>) {
        note_addresses(inventory, old, new);
    }
}

/// Keeps the index of Services' addresses in step.
fn note_addresses(inventory: &mut Inventory, old: Option<&Service>, new: Option<&Service>) {
    for ip in old.into_iter().flat_map(Service::cluster_ips) {
        if let Some(count) = inventory.service_ips.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                inventory.service_ips.remove(ip);
            }
        }
    }
    for ip in new.into_iter().flat_map(Service::cluster_ips) {
        *inventory.service_ips.entry(ip.to_owned()).or_default() += 1;
    }
}

impl Tracked for EndpointSlice {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.slices
    }

    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let (namespace, _) = place(old, new);
        let services: BTreeSet<&str> = old
            .into_iter()
            .chain(new)
            .filter_map(EndpointSlice::service)
            .collect();
        inventory.involving(&namespace, |home, interest| {
            home == namespace && services.contains(interest.service.as_str())
        })
    }

    fn index(inventory: &mut Inventory, old: Option<&Self>, new: Option<&Self>) {
        let key = |s: &Self| Some((s.namespace().to_owned(), s.service()?.to_owned()));
        if let Some((old, key)) = old.and_then(|s| Some((s, key(s)?)))
            && let Some(names) = inventory.slices_of.get_mut(&key)
        {
            names.remove(old.name());
            if names.is_empty() {
                inventory.slices_of.remove(&key);
            }
            if new.and_then(EndpointSlice::service) != old.service() {
                let now = inventory.now;
                let is_recent = |at: &Timestamp| later(*at, GONE_FOR) > now;
                inventory.slices_gone_at.retain(|_, at| is_recent(at));
                inventory.slices_gone_at.insert(key, now);
            }
        }
        if let Some((new, key)) = new.and_then(|s| Some((s, key(s)?))) {
            inventory
                .slices_of
                .entry(key)
                .or_default()
                .insert(new.name().to_owned());
        }
    }
}

impl Tracked for Pod {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.pods
    }

    /// The Services that select it, before or after; those without endpoints, which it may miss
    /// narrowly; and, where it can be told apart as a client, those that are judged by their clients.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let (namespace, _) = place(old, new);
        let dns = inventory
            .dns_service()
            .filter(|s| s.namespace() == namespace && s.has_selector());
        let selected_by = |service: &Service| {
            service.has_selector()
                && old
                    .into_iter()
                    .chain(new)
                    .any(|p| matches_labels(&service.spec.selector, p.labels()))
        };
        if dns.is_some_and(|s| selected_by(s)) {
            return inventory.all();
        }
        let as_client = old.map(client_view) != new.map(client_view);
        inventory.involving(&namespace, |home, interest| {
            let Some(service) = inventory.services.get(home, &interest.service) else {
                return false;
            };
            let by_clients = interest.names_clients
                || service.is_internally_local()
                || inventory.policies.0.contains_key(home)
                || inventory.policies.0.contains_key(&namespace);
            let no_endpoints = || {
                inventory
                    .slices_of(home, &interest.service)
                    .all(|slice| slice.endpoints.is_empty())
            };
            home == namespace && (selected_by(service) || no_endpoints()) || as_client && by_clients
        })
    }
}

/// What of a Pod matters to it as a client.
fn client_view(pod: &Pod) -> impl PartialEq + use<> {
    let ips: Vec<String> = pod.ips().map(str::to_owned).collect();
    (
        pod.labels().clone(),
        pod.status.phase.clone(),
        pod.is_terminating(),
        pod.spec.node_name.clone(),
        ips,
    )
}

impl Tracked for Namespace {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.namespaces
    }

    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let (_, name) = place(old, new);
        inventory.involving(&name, |_, _| true)
    }
}
