//! The Pods that stand for the Service's clients.

use std::collections::BTreeSet;

use crate::{
    Facts,
    evidence::targets::key,
    pods::behind_endpoints::{EndpointPods, pods_behind},
};
use svcdiag_objects::{LabelSelector, Object, Pod};

/// The Pods from which the Service is tried, or judged.
pub(crate) enum Clients<'a> {
    /// The Namespace of the clients does not lend its Pods to the diagnosis' one.
    NotGranted(&'a str),
    /// Running Pods, by name.
    Pods {
        /// The Pods.
        pods: Vec<&'a Pod>,
        /// What is known of their being clients.
        role: Role,
    },
}

/// What is known of a Pod's being a client of the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The user named it, or saved what it got when it used the Service: what it cannot do, the Service
    /// fails to do.
    Named,
    /// Any Pod that could be a client.
    Candidate,
    /// One of the Service's own endpoints, for want of other Pods.
    Endpoint,
}

impl<'a> Clients<'a> {
    /// The clients that a diagnosis asks for; without a selector the candidates for clients.
    pub(crate) fn of(facts: &'a Facts) -> Self {
        let pods = match &facts.client_namespace {
            Some(other) if !other.granted => return Self::NotGranted(&other.name),
            Some(other) => &other.pods,
            None => &facts.pods,
        };
        let is_one_off = |p: &Pod| facts.saved_objects.one_offs.contains(&key(p));
        let usable = pods.iter().map(AsRef::as_ref).filter(|p: &&Pod| {
            let has_address = p.ips().next().is_some() || is_one_off(p);
            p.status.phase.as_deref() == Some("Running") && !p.is_terminating() && has_address
        });
        let (mut pods, role): (Vec<&Pod>, Role) = match &facts.spec.clients.pod_selector {
            Some(selector) => {
                let selector = LabelSelector::from(selector);
                (
                    usable.filter(|p| selector.matches(p.labels())).collect(),
                    Role::Named,
                )
            }
            None => {
                let tried = who_tried(facts);
                let (used, idle): (Vec<&Pod>, Vec<&Pod>) = usable.partition(|p| tried.contains(&key(p)));
                // Who makes a Pod only to try the Service does not say that it is one of the clients.
                let (one_offs, named): (Vec<&Pod>, Vec<&Pod>) = used.into_iter().partition(|p| is_one_off(p));
                if !named.is_empty() {
                    (named, Role::Named)
                } else if !one_offs.is_empty() {
                    (one_offs, Role::Candidate)
                } else {
                    prefer_others(facts, idle.into_iter().filter(|p| is_ordinary(p)).collect())
                }
            }
        };
        // Files may hold two of one name.
        pods.sort_by(|a, b| a.name().cmp(b.name()).then_with(|| a.ips().cmp(b.ips())));
        Self::Pods { pods, role }
    }

    /// Whether it is known who the clients are: what is lost on their way is a fault.
    pub(crate) fn are_named(&self) -> bool {
        matches!(
            self,
            Self::Pods {
                role: Role::Named,
                ..
            }
        )
    }

    /// Namespace of the clients.
    pub(crate) fn namespace(facts: &Facts) -> &str {
        facts
            .client_namespace
            .as_ref()
            .map_or(&facts.namespace, |other| &other.name)
    }
}

/// Pods of which somebody has saved what they got from the Service: whoever does that takes them for clients.
/// An endpoint that dials its Service may only stand in for one.
fn who_tried(facts: &Facts) -> BTreeSet<String> {
    let saved = facts.nodes.iter().filter(|n| n.saved.is_some());
    let seen = saved.filter_map(|n| n.probe.as_ref()?.facts.as_deref());
    let dialled = seen.flat_map(|f| &f.dials).filter_map(|d| d.from.clone());
    let mut tried: BTreeSet<String> = dialled.collect();
    for name in endpoints(facts) {
        tried.remove(&format!("{}/{name}", facts.namespace));
    }
    tried
}

/// Names of the Pods that are, or should be, endpoints of the Service.
fn endpoints(facts: &Facts) -> BTreeSet<&str> {
    let known = EndpointPods::of(facts);
    let listed = facts.slices.iter().flat_map(|s| &s.endpoints);
    listed
        .filter_map(|e| known.behind(e))
        .chain(pods_behind(facts))
        .map(|p| p.name())
        .collect()
}

/// Whether the Pod looks names up in cluster DNS and has an address of its own.
fn is_ordinary(pod: &Pod) -> bool {
    !pod.is_host_network()
        && pod
            .spec
            .dns_policy
            .as_deref()
            .is_none_or(|policy| policy == "ClusterFirst")
}

/// Those that are no endpoints of the Service; all, if there are no others.
fn prefer_others<'a>(facts: &Facts, pods: Vec<&'a Pod>) -> (Vec<&'a Pod>, Role) {
    if facts.client_namespace.is_some() {
        return (pods, Role::Candidate);
    }
    let endpoints = endpoints(facts);
    let others: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|p| !endpoints.contains(p.name()))
        .collect();
    if others.is_empty() {
        (pods, Role::Endpoint)
    } else {
        (others, Role::Candidate)
    }
}
