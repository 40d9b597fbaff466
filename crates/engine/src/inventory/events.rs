//! Warning Events about Pods, and about workloads that cannot create any: of each object and reason the last one.
//!
//! A cluster in trouble has many Events, and whoever may write them may write any number. So what is kept is
//! bounded by the objects and, in each namespace, by a number.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{DiagnosisKey, Inventory};
use svcdiag_objects::{Event, Object, Pod, STATIC_POD_HASH, matches_labels};

/// Most Events that are kept of a namespace. A Pod that cannot start has one to three reasons.
const MAX_OF_NAMESPACE: usize = 1000;

/// Kind and name of an object, and reason of an Event.
type Topic = (String, String, String);

/// The last Warning Event of each object and reason, by namespace.
#[derive(Debug, Default)]
pub struct PodEvents(BTreeMap<String, BTreeMap<Topic, Arc<Event>>>);

impl PodEvents {
    /// Takes in an Event; whether it says something new.
    pub fn note(&mut self, event: Event) -> bool {
        if !event.is_warning_about_pod() && !event.is_failed_create() {
            return false;
        }
        let of_namespace = self.0.entry(event.namespace().to_owned()).or_default();
        let of = &event.involved_object;
        let topic = (of.kind.clone(), of.name.clone(), event.reason.clone());
        let before = of_namespace.get(&topic);
        if before.is_some_and(|before| before.last_seen() > event.last_seen()) {
            return false;
        }
        let is_news = before.is_none_or(|before| {
            before.message != event.message || before.involved_object.uid != event.involved_object.uid
        });
        of_namespace.insert(topic, Arc::new(event));
        if of_namespace.len() > MAX_OF_NAMESPACE {
            let oldest = of_namespace.iter().min_by_key(|(_, event)| event.last_seen());
            if let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) {
                of_namespace.remove(&oldest);
            }
        }
        is_news
    }

    /// Forgets an Event, by its own name.
    fn forget(&mut self, namespace: &str, name: &str) {
        if let Some(of_namespace) = self.0.get_mut(namespace) {
            of_namespace.retain(|_, event| event.name() != name);
            if of_namespace.is_empty() {
                self.0.remove(namespace);
            }
        }
    }

    /// All Events.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// Events about workloads of a namespace that could not create a Pod.
    fn failed_creates(&self, namespace: &str) -> impl Iterator<Item = &Arc<Event>> {
        let of_namespace = self.0.get(namespace).into_iter().flat_map(BTreeMap::values);
        of_namespace.filter(|event| event.is_failed_create())
    }

    /// Events about a Pod, and not about an earlier one of its name.
    fn about<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Arc<Event>> {
        let of_namespace = self.0.get(pod.namespace()).into_iter();
        let from = ("Pod".to_owned(), pod.name().to_owned(), String::new());
        let of_pod = of_namespace.flat_map(move |events| events.range(from.clone()..));
        of_pod
            .take_while(|((kind, name, _), _)| kind == "Pod" && name == pod.name())
            .map(|(_, event)| event)
            .filter(|event| {
                let uid = event.involved_object.uid.as_str();
                // The kubelet knows a static Pod by the hash of its manifest.
                let own = [pod.metadata.uid.as_deref(), pod.annotation(STATIC_POD_HASH)];
                uid.is_empty() || own.contains(&Some(uid))
            })
    }
}

impl Inventory {
    /// Takes in an Event; returns the diagnoses to which it says something new.
    pub fn note_event(&mut self, event: Event) -> BTreeSet<DiagnosisKey> {
        let namespace = event.namespace().to_owned();
        let pod = event.involved_object.name.clone();
        let is_of_workload = event.is_failed_create();
        if !self.events.note(event) {
            return BTreeSet::new();
        }
        if is_of_workload {
            // Whose Pods there would be is not known of every kind.
            return self.involving(&namespace, |home, interest| {
                let service = self.services.get(home, &interest.service);
                home == namespace && service.is_some_and(|s| s.has_selector())
            });
        }
        let Some(pod) = self.pods.get(&namespace, &pod) else {
            // Its Pod will concern them, if it is of use to anybody.
            return BTreeSet::new();
        };
        self.involving(&namespace, |home, interest| {
            let service = self.services.get(home, &interest.service);
            home == namespace
                && service.is_some_and(|s| s.has_selector() && matches_labels(&s.spec.selector, pod.labels()))
        })
    }

    /// Forgets an Event that has gone: it was as long ago as the API server keeps Events.
    pub fn forget_event(&mut self, namespace: &str, name: &str) {
        self.events.forget(namespace, name);
    }

    /// Replaces all Events, after they were listed anew; concerns every diagnosis.
    pub fn replace_events(&mut self, events: PodEvents) -> BTreeSet<DiagnosisKey> {
        self.events = events;
        self.all()
    }

    /// Events about the Pods of a namespace that there are, and about workloads that could not create any.
    pub(super) fn events_of(&self, namespace: &str) -> Vec<Arc<Event>> {
        let of_pods = self.pods.of(namespace).flat_map(|pod| self.events.about(pod));
        of_pods
            .chain(self.events.failed_creates(namespace))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(name: &str, pod: &str, reason: &str, minute: u32) -> Event {
        object(json!({
            "metadata": { "namespace": "shop", "name": name }, "type": "Warning", "reason": reason,
            "involvedObject": { "kind": "Pod", "name": pod, "uid": pod }, "message": format!("of {name}"),
            "lastTimestamp": format!("2026-05-01T12:{minute:02}:00Z"),
        }))
    }

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    /// Two Services with a Pod each, and their diagnoses.
    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        for name in ["cart", "pay"] {
            inventory.set_interest(&object(
                json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
                "metadata": { "namespace": "shop", "name": name }, "spec": { "serviceName": name } }),
            ));
            inventory.apply::<svcdiag_objects::Service>(object(
                json!({ "metadata": { "namespace": "shop", "name": name },
                "spec": { "selector": { "app": name } } }),
            ));
            inventory.apply::<Pod>(object(
                json!({ "metadata": { "namespace": "shop", "name": name, "uid": name,
                "labels": { "app": name } } }),
            ));
        }
        inventory
    }

    fn names(inventory: &Inventory) -> Vec<String> {
        let events = inventory.events_of("shop");
        events.iter().map(|e| e.name().to_owned()).collect()
    }

    #[test]
    fn of_each_pod_and_reason_the_last_one_stays() {
        let mut inventory = inventory();
        inventory.note_event(event("a", "cart", "FailedMount", 1));
        inventory.note_event(event("b", "cart", "FailedMount", 3));
        inventory.note_event(event("c", "cart", "FailedMount", 2));
        inventory.note_event(event("d", "cart", "FailedCreatePodSandBox", 1));
        inventory.note_event(event("e", "pay", "FailedMount", 1));
        inventory.note_event(event("f", "cart2", "FailedMount", 1));
        assert_eq!(
            names(&inventory),
            ["d", "b", "e"],
            "none of a Pod that is not there"
        );
        inventory.forget_event("shop", "a");
        inventory.forget_event("shop", "b");
        assert_eq!(names(&inventory), ["d", "e"]);
        assert_eq!(inventory.replace_events(PodEvents::default()).len(), 2);
        assert!(names(&inventory).is_empty());
    }

    #[test]
    fn events_of_an_earlier_pod_of_the_name_and_of_other_kinds_are_no_evidence() {
        let mut inventory = inventory();
        let mut earlier = event("a", "cart", "FailedMount", 1);
        earlier.involved_object.uid = "earlier".to_owned();
        inventory.note_event(earlier);
        let mut of_service = event("b", "cart", "Failed", 1);
        of_service.involved_object.kind = "Service".to_owned();
        inventory.note_event(of_service);
        let mut normal = event("c", "cart", "Pulled", 1);
        normal.type_ = "Normal".to_owned();
        inventory.note_event(normal);
        assert!(names(&inventory).is_empty());
    }

    #[test]
    fn workloads_that_cannot_create_pods_concern_all_services_of_their_namespace() {
        let mut inventory = inventory();
        for (n, kind) in ["ReplicaSet", "StatefulSet", "DaemonSet", "Job"]
            .into_iter()
            .enumerate()
        {
            let mut event = event(&format!("of-{kind}"), "cart", "FailedCreate", 1);
            event.involved_object.kind = kind.to_owned();
            assert_eq!(inventory.note_event(event).len(), 2, "{kind}");
            assert_eq!(names(&inventory).len(), n + 1, "{kind}");
        }
        let mut other = event("x", "cart", "FailedCreate", 1);
        other.involved_object.kind = "CronJob".to_owned();
        assert!(inventory.note_event(other.clone()).is_empty());
        other.involved_object.kind = "StatefulSet".to_owned();
        other.reason = "RecreatingFailedPod".to_owned();
        assert!(inventory.note_event(other).is_empty());
        assert_eq!(names(&inventory).len(), 4);
    }

    #[test]
    fn an_event_concerns_the_services_of_its_pod_when_it_says_something_new() {
        let mut inventory = inventory();
        let concerned = |inventory: &mut Inventory, event: Event| -> Vec<String> {
            let keys = inventory.note_event(event);
            keys.into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(
            concerned(&mut inventory, event("a", "cart", "FailedMount", 1)),
            ["cart"]
        );
        let mut again = event("a", "cart", "FailedMount", 2);
        again.count = Some(2);
        assert!(concerned(&mut inventory, again).is_empty(), "only said again");
        let mut other = event("a", "cart", "FailedMount", 3);
        other.message = "another volume".to_owned();
        assert_eq!(concerned(&mut inventory, other), ["cart"]);
        assert!(concerned(&mut inventory, event("b", "unknown", "FailedMount", 1)).is_empty());
    }

    #[test]
    fn the_events_of_a_namespace_are_bounded() {
        let mut events = PodEvents::default();
        for n in 0..=MAX_OF_NAMESPACE {
            let minute = if n == 7 { 0 } else { 1 };
            events.note(event(&format!("e{n}"), &format!("p{n}"), "FailedMount", minute));
        }
        assert_eq!(events.iter().count(), MAX_OF_NAMESPACE);
        assert!(events.iter().all(|e| e.name() != "e7"), "the oldest goes first");
    }
}
