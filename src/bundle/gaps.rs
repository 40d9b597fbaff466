//! What a bundle does not hold, although the verdict depends on it.
//!
//! Each becomes an [`Unreadable`], as a missing right does for `svcdiag check`, so that nobody is
//! blamed for what is only missing in the bundle.

use super::Bundle;
use crate::{
    engine::{Facts, Unreadable},
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
        missing.pods(facts);
    }
    missing.kind("deployments", "Deployments", &namespace);
    missing.kind("replicasets", "ReplicaSets", &namespace);
    missing.kind("statefulsets", "StatefulSets", &namespace);
    missing.kind("networkpolicies", "NetworkPolicies", &namespace);
    if !bundle.tables.has_events(&namespace) {
        missing.kind("events", "Events", &namespace);
    }
    // Of a Node that nobody asked about it is not known that it is gone.
    let has_all_nodes = bundle.has_all_nodes || bundle.manifest.listed.is_some();
    if !facts.cluster_nodes.is_empty() && !has_all_nodes {
        missing
            .found
            .push(gap("nodes", "no list of the Nodes".to_owned()));
    }
    if let Some(clients) = facts.client_namespace.as_ref().filter(|c| c.granted) {
        // Some Pods are enough of those that only dial.
        if bundle.listed.shared_label("pods", &clients.name).is_none() {
            missing.kind("pods", "Pods", &clients.name);
        }
        missing.kind("networkpolicies", "NetworkPolicies", &clients.name);
    }
    let mut found = missing.found;
    if bundle.is_paste {
        for gap in &mut found {
            gap.why = gap.why.replacen("the bundle has", "the text has", 1);
        }
    }
    facts.unreadable.extend(found);
    // What whoever collected was not allowed to read is told in their words, and once.
    for gap in &bundle.manifest.unreadable {
        facts.unreadable.retain(|u| u.resource != gap.resource);
    }
    facts
        .unreadable
        .extend(bundle.manifest.unreadable.iter().cloned());
    // Half of its Pods may be the half that is broken: nothing is known of DNS without all.
    let dns = facts.cluster_dns.as_ref().map(|dns| dns.service.as_ref());
    if dns.is_some_and(|dns| !has_selected(bundle, &namespace, dns)) {
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
            if resource == "pods" && self.are_manifests() {
                return self.manifests(
                    resource,
                    &format!(
                        "which Pods run and whether they are ready; add `kubectl -n {} get pods -o json`",
                        self.home
                    ),
                );
            }
            let what = format!("no list of the {kinds} of namespace {namespace}");
            self.found.push(gap(resource, what));
        }
    }

    /// The Pods of the Service's namespace, at least those that it selects.
    fn pods(&mut self, facts: &Facts) {
        let listed = &self.bundle.listed;
        let is_sure = listed.is_sure("pods", self.home) || listed.is_sure("pods", "");
        let Some(service) = facts.service.as_deref().filter(|s| s.has_selector()) else {
            // It has no Pods of its own that could be left out.
            if listed.shared_label("pods", self.home).is_none() {
                self.kind("pods", "Pods", self.home);
            }
            return;
        };
        let what = if !has_selected(self.bundle, self.home, service) {
            let Some(label) = listed.shared_label("pods", self.home) else {
                return self.kind("pods", "Pods", self.home);
            };
            format!("by the label {label}, which all of them have and the selector has not")
        } else if let Some(pod) = unlisted(facts).filter(|_| !is_sure) {
            format!("since Pod {pod}, which is an endpoint, is not in it")
        } else {
            return;
        };
        let namespace = self.home;
        let what = format!(
            "only a list of the Pods of namespace {namespace} that may have been filtered, {what}; add `kubectl get --raw /api/v1/namespaces/{namespace}/pods`"
        );
        self.found.push(gap("pods", what));
    }

    /// Whether nothing of the Service's namespace but manifests says what Pods there are.
    fn are_manifests(&self) -> bool {
        self.bundle.manifests.templates.contains_key(self.home) && !self.bundle.inventory.has_pods(self.home)
    }

    fn manifests(&mut self, resource: &str, what: &str) {
        self.found.push(Unreadable {
            resource: resource.to_owned(),
            why: format!("the objects come from manifests, which do not say {what}"),
        });
    }

    fn slices(&mut self, service: &str) {
        if !self.bundle.knows_slices(self.home, service) {
            if self.are_manifests() {
                return self.manifests(
                    "endpointslices",
                    &format!(
                        "whether the Service has endpoints; add `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`",
                        self.home, service
                    ),
                );
            }
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

/// Whether all Pods are known that a Service selects.
fn has_selected(bundle: &Bundle, home: &str, service: &Service) -> bool {
    let (namespace, selector) = (service.namespace(), &service.spec.selector);
    has(bundle, home, "pods", namespace) || bundle.listed.has_selected("pods", namespace, selector)
}

/// A Pod that is an endpoint and not among the Pods.
fn unlisted(facts: &Facts) -> Option<&str> {
    let is_listed = |name: &str| facts.pods.iter().any(|pod| pod.name() == name);
    let endpoints = facts.slices.iter().flat_map(|slice| &slice.endpoints);
    let targets = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref());
    let of_pods = targets.filter(|target| target.kind.as_deref() == Some("Pod"));
    let mut names = of_pods.filter_map(|target| target.name.as_deref());
    names.find(|name| !is_listed(name))
}

fn gap(resource: &str, what: String) -> Unreadable {
    Unreadable {
        resource: resource.to_owned(),
        why: format!("the bundle has {what}"),
    }
}
