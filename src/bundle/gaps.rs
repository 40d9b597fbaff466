//! What a bundle does not hold, although the verdict depends on it.
//!
//! Each becomes an [`Unreadable`], as a missing right does for `svcdiag check`, so that nobody is
//! blamed for what is only missing in the bundle.

use super::Bundle;
use crate::{
    diagnosis::{Facts, Unreadable},
    objects::{Object, Service},
};

/// Adds what is missing for the verdict on the Service of these Facts.
pub(super) fn add(bundle: &Bundle, facts: &mut Facts) {
    let namespace = facts.namespace.clone();
    let service = facts.spec.service_name.clone();
    let mut missing = Missing {
        bundle,
        home: &namespace,
        found: Vec::new(),
    };
    let is_listed =
        bundle.has_listed("services", &namespace) || bundle.listed.has_for("services", &namespace, &service);
    if facts.service.is_none() && !is_listed {
        let what = format!("neither Service {service} nor a list of the Services of namespace {namespace}");
        missing.found.push(gap("services", what));
    }
    // An ExternalName Service has neither, and is judged without.
    let is_alias = facts.service.as_deref().is_some_and(Service::is_external_name);
    if !is_alias {
        missing.slices(&service);
        missing.kind("pods", "Pods", &namespace);
    }
    missing.kind("deployments", "Deployments", &namespace);
    missing.kind("replicasets", "ReplicaSets", &namespace);
    missing.kind("statefulsets", "StatefulSets", &namespace);
    missing.kind("networkpolicies", "NetworkPolicies", &namespace);
    if let Some(clients) = facts.client_namespace.as_ref().filter(|c| c.granted) {
        missing.kind("pods", "Pods", &clients.name);
        missing.kind("networkpolicies", "NetworkPolicies", &clients.name);
    }
    let found = missing.found;
    facts.unreadable.extend(found);
    // What whoever collected was not allowed to read is told in their words, and once.
    for gap in &bundle.manifest.unreadable {
        facts.unreadable.retain(|u| u.resource != gap.resource);
    }
    facts
        .unreadable
        .extend(bundle.manifest.unreadable.iter().cloned());
    // Half of its Pods may be the half that is broken: nothing is known of DNS without all.
    let dns = facts.cluster_dns.as_ref().map(|dns| dns.service.namespace());
    if dns.is_some_and(|dns| !has(bundle, &namespace, "pods", dns)) {
        facts.cluster_dns = None;
    }
}

struct Missing<'a> {
    bundle: &'a Bundle,
    /// Namespace of the Service.
    home: &'a str,
    found: Vec<Unreadable>,
}

impl Missing<'_> {
    fn kind(&mut self, resource: &str, kinds: &str, namespace: &str) {
        if !has(self.bundle, self.home, resource, namespace) {
            let what = format!("no list of the {kinds} of namespace {namespace}");
            self.found.push(gap(resource, what));
        }
    }

    fn slices(&mut self, service: &str) {
        if !self.bundle.knows_slices(self.home, service) {
            let what = format!(
                "neither a list of the EndpointSlices of Service {service} nor its Endpoints (namespace {})",
                self.home
            );
            self.found.push(gap("endpointslices", what));
        }
    }
}

/// Whether a kind was listed in a namespace. A list that does not say its namespace is never one of
/// another than the Service's.
fn has(bundle: &Bundle, home: &str, resource: &str, namespace: &str) -> bool {
    match namespace == home {
        true => bundle.has_listed(resource, namespace),
        false => bundle.listed.has(resource, namespace),
    }
}

fn gap(resource: &str, what: String) -> Unreadable {
    Unreadable {
        resource: resource.to_owned(),
        why: format!("the bundle has {what}"),
    }
}
