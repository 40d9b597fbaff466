//! What was listed as a whole.
//!
//! A bundle without Pods may be one of a namespace without Pods, or one whose maker did not think of
//! them. Only where the Pods were listed does it follow from their absence that there are none.

use std::collections::BTreeSet;

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
pub struct Listed(BTreeSet<Listing>);

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

    fn insert(&mut self, resource: &str, namespace: &str, service: Option<&str>) {
        self.0.insert(Listing {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
        });
    }

    /// Whether a kind was listed in a namespace.
    #[must_use]
    pub fn has(&self, resource: &str, namespace: &str) -> bool {
        self.has_of(resource, namespace, None) || self.has_of(resource, Self::EVERYWHERE, None)
    }

    /// Whether a kind was listed in a namespace, or as much of it as concerns a Service.
    #[must_use]
    pub fn has_for(&self, resource: &str, namespace: &str, service: &str) -> bool {
        self.has(resource, namespace) || self.has_of(resource, namespace, Some(service))
    }

    fn has_of(&self, resource: &str, namespace: &str, service: Option<&str>) -> bool {
        self.0.contains(&Listing {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    /// What was listed, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Listing> {
        self.0.iter()
    }
}

impl FromIterator<Listing> for Listed {
    fn from_iter<I: IntoIterator<Item = Listing>>(listings: I) -> Self {
        Self(listings.into_iter().collect())
    }
}
