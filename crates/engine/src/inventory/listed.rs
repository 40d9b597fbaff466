//! What was listed as a whole.
//!
//! A bundle without Pods may be one of a namespace without Pods, or one whose maker did not think of
//! them. Only where the Pods were listed does it follow from their absence that there are none. Lists that
//! `kubectl get` wrote do not say whether they were filtered, those of the API are as it gave them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A list of all objects of a kind that are in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// Plural of the kind, for example endpointslices.
    pub resource: String,
    /// The namespace; empty where a file does not say which one, so that it must be the Service's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The Service whose EndpointSlices alone were listed, or that alone was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Everything that was listed as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    whole: BTreeSet<Listing>,
    likely: BTreeSet<Likely>,
}

/// A list that does not say whether it was filtered. A filter by a label would leave that label to all of
/// its objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Likely {
    resource: String,
    namespace: String,
    /// The labels that all of its objects have.
    shared: BTreeMap<String, String>,
}

impl Listed {
    /// Stands for the name of every namespace.
    pub const EVERYWHERE: &'static str = "*";

    /// Notes that all objects of a kind in a namespace were listed.
    pub fn note(&mut self, resource: &str, namespace: &str) {
        self.insert(resource, namespace, None);
    }

    /// Notes that all EndpointSlices of a Service were listed.
    pub fn note_slices_of(&mut self, namespace: &str, service: &str) {
        self.insert("endpointslices", namespace, Some(service));
    }

    /// Notes that the API server was asked for a Service, so that the bundle would hold it if there
    /// were one; for example that `kubectl get service` said NotFound.
    pub fn note_service_looked_for(&mut self, namespace: &str, service: &str) {
        self.insert("services", namespace, Some(service));
    }

    /// Notes a list that may have been filtered by one of the labels that all of its objects have.
    pub fn note_likely(&mut self, resource: &str, namespace: &str, shared: &BTreeMap<String, String>) {
        self.likely.insert(Likely {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            shared: shared.clone(),
        });
    }

    fn insert(&mut self, resource: &str, namespace: &str, service: Option<&str>) {
        self.whole.insert(Listing {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
        });
    }

    /// Whether a kind was listed in a namespace.
    #[must_use]
    pub fn has(&self, resource: &str, namespace: &str) -> bool {
        self.is_sure(resource, namespace)
            || self
                .likely(resource, namespace)
                .any(|list| list.shared.is_empty())
    }

    /// Whether it is told that the list was not filtered.
    #[must_use]
    pub fn is_sure(&self, resource: &str, namespace: &str) -> bool {
        self.has_of(resource, namespace, None) || self.has_of(resource, Self::EVERYWHERE, None)
    }

    /// Whether a list has all objects of a namespace that a selector matches. Whoever filtered by a label of
    /// the selector has left out none of these.
    #[must_use]
    pub fn has_selected(&self, resource: &str, namespace: &str, selector: &BTreeMap<String, String>) -> bool {
        let is_of_selector = |(label, value): (&String, &String)| selector.get(label) == Some(value);
        self.has(resource, namespace)
            || self
                .likely(resource, namespace)
                .any(|list| list.shared.iter().any(is_of_selector))
    }

    /// A label, by which the only lists of a kind in a namespace may have been filtered.
    #[must_use]
    pub fn shared_label(&self, resource: &str, namespace: &str) -> Option<String> {
        let mut labels = self.likely(resource, namespace).flat_map(|list| &list.shared);
        labels.next().map(|(label, value)| format!("{label}={value}"))
    }

    fn likely<'a>(&'a self, resource: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Likely> {
        self.likely.iter().filter(move |list| {
            list.resource == resource && [namespace, Self::EVERYWHERE].contains(&list.namespace.as_str())
        })
    }

    /// Whether a kind was listed in a namespace, or as much of it as concerns a Service.
    #[must_use]
    pub fn has_for(&self, resource: &str, namespace: &str, service: &str) -> bool {
        self.has(resource, namespace) || self.has_of(resource, namespace, Some(service))
    }

    fn has_of(&self, resource: &str, namespace: &str, service: Option<&str>) -> bool {
        self.whole.contains(&Listing {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    /// What was listed for sure, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Listing> {
        self.whole.iter()
    }
}

impl FromIterator<Listing> for Listed {
    fn from_iter<I: IntoIterator<Item = Listing>>(listings: I) -> Self {
        Self {
            whole: listings.into_iter().collect(),
            likely: BTreeSet::new(),
        }
    }
}
