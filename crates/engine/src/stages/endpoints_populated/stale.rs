//! Whether the EndpointSlices follow the Pods.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts, Finding, Verdict,
    pods::{behind_endpoints::EndpointPods, node},
    text::{self, quoted},
    time::later,
};
use svcdiag_api::Reason;
use svcdiag_objects::{Endpoint, IpFamily, Object, Pod, Service};

/// How long the EndpointSlices may lag behind the Pods. The endpoints controller needs well under
/// a second; its retries under load stay below this.
pub(super) const SLICE_GRACE: SignedDuration = SignedDuration::from_secs(30);

pub(super) enum Lag<'a> {
    /// The slices should hold these Pods by now.
    Over(Vec<&'a Pod>),
    /// They may still lag, until this time.
    Until(Timestamp),
    /// These Pods may have changed after the slices were saved, or before.
    Apart(Vec<&'a Pod>),
}

/// Whether Pods that are ready are missing from the slices, or stand there as not ready. Those of a Node that does not
/// exist are left out on purpose.
pub(super) fn staleness<'a>(facts: &Facts, service: &Service, selected: &[&'a Pod]) -> Option<Lag<'a>> {
    let known = EndpointPods::of(facts);
    let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
    let listed: BTreeSet<&str> = endpoints
        .filter(|e| e.is_ready())
        .filter_map(|e| known.behind(e))
        .map(|p| p.name())
        .collect();
    let families = &service.spec.ip_families;
    let has_family = |pod: &Pod| {
        let family = |ip: &str| {
            if ip.contains(':') {
                IpFamily::V6
            } else {
                IpFamily::V4
            }
        };
        families.is_empty() && pod.ips().next().is_some()
            || pod.ips().any(|ip| families.iter().any(|f| *f == family(ip)))
    };
    let missing = selected
        .iter()
        .copied()
        .filter(|p| p.is_ready() && !p.is_terminating() && has_family(p))
        .filter(|p| !listed.contains(p.name()))
        .filter(|p| service.publishes_not_ready() || !node::is_gone(facts, p));
    let mut over = Vec::new();
    let mut apart = Vec::new();
    let mut until: Option<Timestamp> = None;
    for pod in missing {
        if facts.saved_objects.apart.contains(pod.name()) {
            apart.push(pod);
            continue;
        }
        let due = due(facts, service, pod);
        if due <= facts.now {
            over.push(pod);
        } else {
            until = Some(until.map_or(due, |u| u.min(due)));
        }
    }
    if !over.is_empty() {
        Some(Lag::Over(over))
    } else if !apart.is_empty() {
        Some(Lag::Apart(apart))
    } else {
        until.map(Lag::Until)
    }
}

/// What becomes of an answer on endpoints that lack Pods which may have changed meanwhile: it is no fault.
pub(super) fn apart(facts: &Facts, pods: &[&Pod], mut finding: Finding) -> Finding {
    let names: Vec<&str> = pods.iter().map(|p| p.name()).collect();
    let what = format!(
        "{} {} ready but not among the Service's ready endpoints. {} may have changed between the moments at which the Pods and the EndpointSlices were saved, so nothing follows from that.",
        text::list(&names),
        if pods.len() == 1 { "is" } else { "are" },
        if pods.len() == 1 { "It" } else { "They" },
    );
    if matches!(finding.verdict, Verdict::True) {
        finding.message.push_str(&format!(" {what}"));
        return finding;
    }
    Finding::unknown(
        Reason::ProbeFailed,
        format!(
            "{what} Save both again with one command: `kubectl -n {} get endpointslices,pods -o yaml`.",
            quoted(&facts.namespace),
        ),
    )
}

/// By when the slices should hold a Pod that is ready. The grace begins with the latest change of the Pod or of the
/// Service: a new label or selector has to be noticed, too. Nor are slices behind that have just changed, or have just
/// gone: then it is we who have yet to see why, as each kind has a watch of its own and a deleted Service loses its
/// slices too.
pub(super) fn due(facts: &Facts, service: &Service, pod: &Pod) -> Timestamp {
    let became_ready = pod.condition("Ready").and_then(|c| c.last_transition_time);
    let slices = facts.slices.iter().filter_map(|slice| slice.changed_at());
    let since = [
        became_ready,
        pod.changed_at(),
        service.changed_at(),
        facts.slices_gone_at,
    ];
    let since = since.into_iter().flatten().chain(slices).max();
    later(since.unwrap_or(facts.now), SLICE_GRACE)
}

pub(super) fn stale(facts: &Facts, service: &Service, pods: &[&Pod], endpoints: &[&Endpoint]) -> Finding {
    let names: Vec<&str> = pods.iter().map(|p| p.name()).collect();
    let message = format!(
        "{} ready for at least {} seconds but {} not among the Service's ready endpoints: {}.",
        if pods.len() == 1 {
            "1 Pod has been".to_owned()
        } else {
            format!("{} Pods have been", pods.len())
        },
        SLICE_GRACE.as_secs(),
        if pods.len() == 1 { "is" } else { "are" },
        text::list(&names)
    );
    let remediation = format!(
        "Probably the EndpointSlice controller, which is part of kube-controller-manager, is behind or stopped. Check whether kube-controller-manager runs: `kubectl -n kube-system get pods -l component=kube-controller-manager` (it shows nothing where the provider runs the control plane), and read its log. The endpoints that it has written: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={}`.",
        quoted(&facts.namespace),
        quoted(service.name())
    );
    if endpoints.iter().any(|e| e.is_ready()) {
        Finding::part_fails(Reason::EndpointSlicesStale, message, remediation)
    } else {
        Finding::nothing_works(Reason::EndpointSlicesStale, message, remediation)
    }
}
