//! Does the Service have any endpoints?

mod hand_made;
mod local_endpoints;
mod no_pods;
mod ports;
mod stale;

use std::collections::BTreeSet;

use crate::{
    Facts, Finding, applicable,
    evidence::Evidence,
    pods::state,
    stages::endpoints_populated::{
        local_endpoints::Local,
        no_pods::judge as no_pods,
        ports::Ports,
        stale::{Lag, apart, stale, staleness},
    },
    text::{self, quoted},
};
use svcdiag_api::Reason;
use svcdiag_objects::{Endpoint, Object, Service};

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if service.is_external_name() {
        return Finding::not_applicable("An ExternalName Service has no endpoints.");
    }
    let endpoints: Vec<&Endpoint> = facts.slices.iter().flat_map(|s| &s.endpoints).collect();
    if !service.has_selector() {
        if let Some(finding) = applicable::only_a_name(facts) {
            return finding;
        }
        if endpoints.is_empty() {
            return hand_made::none(facts, service);
        }
        return judge_endpoints(evidence, service, &endpoints);
    }
    let selected = facts.selected_pods();
    if selected.is_empty() {
        return no_pods(facts, service);
    }
    match staleness(facts, service, &selected) {
        Some(Lag::Over(pods)) => stale(facts, service, &pods, &endpoints),
        Some(Lag::Apart(pods)) => {
            let finding = judge_endpoints(evidence, service, &endpoints);
            apart(facts, &pods, finding)
        }
        Some(Lag::Until(time)) if !endpoints.iter().any(|e| e.is_ready()) => Finding::unknown(
            Reason::Pending,
            "Pods are ready, but the EndpointSlices do not list them yet.",
        )
        .recheck_at(Some(time)),
        Some(Lag::Until(time)) => {
            let finding = judge_endpoints(evidence, service, &endpoints);
            let first = finding.recheck_at.map_or(time, |at| at.min(time));
            finding.recheck_at(Some(first))
        }
        None => judge_endpoints(evidence, service, &endpoints),
    }
}

fn judge_endpoints(evidence: &Evidence<'_>, service: &Service, endpoints: &[&Endpoint]) -> Finding {
    let ready = distinct(endpoints.iter().filter(|e| e.is_ready()));
    if ready > 0 {
        return some_are_ready(evidence, service, endpoints, ready);
    }
    only_terminating(endpoints)
        .or_else(|| pods_are_starting(evidence.facts))
        .unwrap_or_else(|| none_is_ready(evidence.facts, service, distinct(endpoints.iter())))
}

fn some_are_ready(
    evidence: &Evidence<'_>,
    service: &Service,
    endpoints: &[&Endpoint],
    ready: usize,
) -> Finding {
    let (note, until) = match ports::judge(evidence.facts, service) {
        Ports::Served => (String::new(), None),
        Ports::Dead(finding) => return *finding,
        Ports::Waiting {
            message,
            until,
            is_all: true,
        } => {
            return Finding::unknown(Reason::Pending, format!("{message}.")).recheck_at(Some(until));
        }
        Ports::Waiting { message, until, .. } => (format!(" {message}."), Some(until)),
    };
    let all = text::count(distinct(endpoints.iter()), "endpoint");
    let be = if ready == 1 { "is" } else { "are" };
    let are_ready = format!("{ready} of {all} {be} ready.{note}");
    match local_endpoints::judge(evidence, service, endpoints) {
        Local::Lacking(finding) => finding,
        Local::Served => Finding::yes(Reason::EndpointsReady, are_ready).recheck_at(until),
        Local::Hint(hint, hint_until) => Finding::yes(Reason::EndpointsReady, format!("{are_ready} {hint}"))
            .recheck_at([until, hint_until].into_iter().flatten().min()),
    }
}

fn only_terminating(endpoints: &[&Endpoint]) -> Option<Finding> {
    let serving = distinct(endpoints.iter().filter(|e| e.is_serving() && e.is_terminating()));
    (serving > 0).then(|| {
        Finding::yes(
            Reason::OnlyTerminatingEndpoints,
            format!(
                "No endpoint is ready, but {} still {} while terminating.",
                text::count(serving, "endpoint"),
                if serving == 1 { "serves" } else { "serve" }
            ),
        )
    })
}

fn pods_are_starting(facts: &Facts) -> Option<Finding> {
    let selected = facts.selected_pods();
    let starting = selected
        .iter()
        .filter(|p| !p.is_ready())
        .filter_map(|p| state::settles_at(facts, p));
    let until = starting.min()?;
    let finding = Finding::unknown(
        Reason::Pending,
        "No endpoint is ready yet. Pods are starting or terminating.",
    );
    Some(finding.recheck_at(Some(until)))
}

fn none_is_ready(facts: &Facts, service: &Service, all: usize) -> Finding {
    let (by_hand, what_to_do) = if service.has_selector() {
        ("", "make the Pods ready")
    } else {
        (
            " Its EndpointSlices were made by hand.",
            "mark those that work as ready in the EndpointSlices",
        )
    };
    Finding::nothing_works(
        Reason::NoReadyEndpoints,
        match all {
            0 => "The Service has no endpoint.".to_owned(),
            1 => format!("The only endpoint of the Service is not ready.{by_hand}"),
            n => text::capitalized(&format!(
                "{} endpoints of the Service is ready.{}",
                text::none_of(n),
                by_hand
            )),
        },
        format!(
            "Check the endpoints' conditions: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`. Then {what_to_do}.",
            quoted(&facts.namespace),
            quoted(service.name())
        ),
    )
}

/// Endpoints, counted once though they stand in a slice for each IP family or set of ports.
fn distinct<'a, 'b: 'a>(endpoints: impl Iterator<Item = &'a &'b Endpoint>) -> usize {
    let keys = endpoints.filter_map(|e| e.pod_uid().or(e.addresses.first().map(String::as_str)));
    keys.collect::<BTreeSet<_>>().len()
}
