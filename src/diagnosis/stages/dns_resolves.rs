//! Does the Service work by DNS name?

use super::{
    super::{
        Facts, Finding,
        pod_state::{self, Trouble},
        words,
    },
    data_path,
};
use crate::{
    api::Reason,
    objects::{Object, Pod},
};

pub(super) fn judge(facts: &Facts) -> Finding {
    if let Some(finding) = cluster_dns_not_ready(facts) {
        return finding;
    }
    data_path::no_clients(facts).unwrap_or_else(|| data_path::no_agent("No name was looked up"))
}

/// Cluster DNS has Pods and none is ready. A cluster without a DNS Service of its own (managed
/// DNS), or with one that selects no Pods, cannot be judged from the API.
fn cluster_dns_not_ready(facts: &Facts) -> Option<Finding> {
    let dns = facts.cluster_dns.as_ref()?;
    let pods: Vec<&Pod> = dns
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|p| !p.has_ended())
        .collect();
    if pods.is_empty() || pods.iter().any(|p| p.is_ready()) {
        return None;
    }
    let (namespace, name) = (dns.service.namespace(), dns.service.name());
    let deadlines = pods.iter().filter_map(|p| match pod_state::trouble(facts, p) {
        Trouble::Starting(until) => Some(until),
        _ => None,
    });
    if let Some(until) = deadlines.min() {
        return Some(
            Finding::unknown(
                Reason::Pending,
                format!("The Pods of cluster DNS ({namespace}/{name}) are starting."),
            )
            .recheck_at(Some(until)),
        );
    }
    Some(Finding::nothing_works(
        Reason::ClusterDNSNotReady,
        format!(
            "None of the {} of cluster DNS ({namespace}/{name}) is ready; no name of a Service resolves.",
            words::count(pods.len(), "Pod")
        ),
        format!(
            "Diagnose cluster DNS itself: `svcdiag check {name} -n {namespace}`; its Pods: `kubectl -n {namespace} get pods`."
        ),
    ))
}
