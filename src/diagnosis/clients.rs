//! The Pods that stand for the Service's clients.

use std::collections::BTreeSet;

use super::Facts;
use crate::objects::{LabelSelector, Object, Pod};

/// The Pods from which the Service is tried, or judged.
pub(super) enum Clients<'a> {
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
pub(super) enum Role {
    /// The user named it: what it cannot do, the Service fails to do.
    Named,
    /// Any Pod that could be a client.
    Candidate,
    /// One of the Service's own endpoints, for want of other Pods.
    Endpoint,
}

impl<'a> Clients<'a> {
    /// The clients that a diagnosis asks for; without a selector the candidates for clients.
    pub(super) fn of(facts: &'a Facts) -> Self {
        let pods = match &facts.client_namespace {
            Some(other) if !other.granted => return Self::NotGranted(&other.name),
            Some(other) => &other.pods,
            None => &facts.pods,
        };
        let usable = pods.iter().map(AsRef::as_ref).filter(|p: &&Pod| {
            p.status.phase.as_deref() == Some("Running") && !p.is_terminating() && p.ips().next().is_some()
        });
        let (mut pods, role): (Vec<&Pod>, Role) = match &facts.spec.clients.pod_selector {
            Some(selector) => {
                let selector = LabelSelector::from(selector);
                (
                    usable.filter(|p| selector.matches(p.labels())).collect(),
                    Role::Named,
                )
            }
            None => prefer_others(facts, usable.filter(|p| is_ordinary(p)).collect()),
        };
        pods.sort_by(|a, b| a.name().cmp(b.name()));
        Self::Pods { pods, role }
    }

    /// Namespace of the clients.
    pub(super) fn namespace(facts: &Facts) -> &str {
        facts
            .client_namespace
            .as_ref()
            .map_or(&facts.namespace, |other| &other.name)
    }
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
    let listed = facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter_map(|e| e.pod_uid());
    let selected = facts.selected_pods();
    let endpoints: BTreeSet<&str> = listed
        .chain(selected.iter().filter_map(|p| p.metadata.uid.as_deref()))
        .collect();
    let others: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|p| {
            p.metadata
                .uid
                .as_deref()
                .is_none_or(|uid| !endpoints.contains(uid))
        })
        .collect();
    if others.is_empty() {
        (pods, Role::Endpoint)
    } else {
        (others, Role::Candidate)
    }
}
