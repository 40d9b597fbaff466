//! Does the Service have any endpoints?

mod no_pods;
mod ports;
mod stale;

use std::collections::BTreeSet;

use jiff::SignedDuration;

use self::{
    no_pods::judge as no_pods,
    ports::Ports,
    stale::{Lag, stale, staleness},
};
use super::super::{
    Facts, Finding,
    clients::{Clients, Role},
    pod_state, words,
};
use crate::{
    api::Reason,
    objects::{Endpoint, Object, Pod, Service},
};

pub(super) use no_pods::is_scaled_to_zero;

/// How long the EndpointSlices may lag behind the Pods. The endpoints controller needs well under
/// a second; its retries under load stay below this.
const SLICE_GRACE: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if service.is_external_name() {
        return Finding::not_applicable("An ExternalName Service has no endpoints.");
    }
    let endpoints: Vec<&Endpoint> = facts.slices.iter().flat_map(|s| &s.endpoints).collect();
    if !service.has_selector() {
        if endpoints.is_empty() {
            return no_selector_and_no_endpoints(facts, service);
        }
        return judge_endpoints(facts, service, &endpoints);
    }
    let selected = facts.selected_pods();
    if selected.is_empty() {
        return no_pods(facts, service);
    }
    match staleness(facts, service, &selected) {
        Some(Lag::Over(pods)) => stale(facts, service, &pods, &endpoints),
        Some(Lag::Until(time)) if !endpoints.iter().any(|e| e.is_ready()) => Finding::unknown(
            Reason::Pending,
            "Pods are ready; the EndpointSlices do not hold them yet.",
        )
        .recheck_at(Some(time)),
        Some(Lag::Until(time)) => {
            let finding = judge_endpoints(facts, service, &endpoints);
            let first = finding.recheck_at.map_or(time, |at| at.min(time));
            finding.recheck_at(Some(first))
        }
        None => judge_endpoints(facts, service, &endpoints),
    }
}

fn judge_endpoints(facts: &Facts, service: &Service, endpoints: &[&Endpoint]) -> Finding {
    let ready = distinct(endpoints.iter().filter(|e| e.is_ready()));
    let all = distinct(endpoints.iter());
    if ready > 0 {
        let (note, until) = match ports::judge(facts, service) {
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
        if let Some(finding) = no_local_endpoints(facts, service, endpoints) {
            return finding;
        }
        let be = if ready == 1 { "is" } else { "are" };
        return Finding::yes(
            Reason::EndpointsReady,
            format!("{ready} of {} {be} ready.{note}", words::count(all, "endpoint")),
        )
        .recheck_at(until);
    }
    let serving = distinct(endpoints.iter().filter(|e| e.is_serving() && e.is_terminating()));
    if serving > 0 {
        return Finding::yes(
            Reason::OnlyTerminatingEndpoints,
            format!(
                "No endpoint is ready, but {} still {} while terminating.",
                words::count(serving, "endpoint"),
                if serving == 1 { "serves" } else { "serve" }
            ),
        );
    }
    let selected = facts.selected_pods();
    let starting = selected
        .iter()
        .filter(|p| !p.is_ready())
        .filter_map(|p| pod_state::settles_at(facts, p));
    if let Some(until) = starting.min() {
        return Finding::unknown(
            Reason::Pending,
            "No endpoint is ready yet; Pods are starting or terminating.",
        )
        .recheck_at(Some(until));
    }
    let whose = if service.has_selector() {
        "the Pods"
    } else {
        "the hand-made EndpointSlices"
    };
    Finding::nothing_works(
        Reason::NoReadyEndpoints,
        match all {
            0 => "The Service has no endpoint.".to_owned(),
            1 => "The only endpoint of the Service is not ready.".to_owned(),
            n => format!("None of the {n} endpoints of the Service is ready."),
        },
        format!(
            "Make {whose} ready; see the endpoints' conditions: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`.",
            facts.namespace,
            service.name()
        ),
    )
}

/// Endpoints, counted once though they stand in a slice for each IP family or set of ports.
fn distinct<'a, 'b: 'a>(endpoints: impl Iterator<Item = &'a &'b Endpoint>) -> usize {
    let keys = endpoints.filter_map(|e| e.pod_uid().or(e.addresses.first().map(String::as_str)));
    keys.collect::<BTreeSet<_>>().len()
}

fn no_selector_and_no_endpoints(facts: &Facts, service: &Service) -> Finding {
    Finding::nothing_works(
        Reason::NoSelectorAndNoEndpoints,
        "The Service has no selector and no EndpointSlice names an endpoint for it.",
        format!(
            "Give the Service a selector: `kubectl -n {} set selector service {} KEY=VALUE`; or create an EndpointSlice with the label kubernetes.io/service-name={}.",
            facts.namespace,
            service.name(),
            service.name()
        ),
    )
}

/// internalTrafficPolicy Local: a client whose node has no endpoint cannot use the Service.
/// externalTrafficPolicy Local shuts nobody inside the cluster out.
fn no_local_endpoints(facts: &Facts, service: &Service, endpoints: &[&Endpoint]) -> Option<Finding> {
    if !service.is_internally_local() || service.is_headless() {
        return None;
    }
    let serving = |e: &&&Endpoint| e.is_ready() || e.is_serving() && e.is_terminating();
    let nodes: BTreeSet<&str> = endpoints
        .iter()
        .filter(serving)
        .filter_map(|e| e.node_name.as_deref())
        .collect();
    let Clients::Pods { pods, role } = Clients::of(facts) else {
        return None;
    };
    let node = |p: &&Pod| p.spec.node_name.clone().unwrap_or_default();
    let (inside, outside): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().partition(|p| nodes.contains(node(p).as_str()));
    if outside.is_empty() || role != Role::Named && !inside.is_empty() {
        return None;
    }
    let lacking: Vec<String> = outside
        .iter()
        .map(node)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let shut_out: Vec<&str> = outside.iter().map(|p| p.name()).collect();
    let message = format!(
        "internalTrafficPolicy is Local, and {} has no endpoint: {} cannot use the Service from there.",
        if lacking.len() == 1 {
            format!("node {}", lacking[0])
        } else {
            format!("none of the nodes {}", words::list(&lacking))
        },
        words::list(&shut_out)
    );
    let remediation = format!(
        "Run an endpoint on every node with clients (for example as a DaemonSet), or let the traffic leave the node: `kubectl -n {} patch service {} --type=merge -p '{{\"spec\":{{\"internalTrafficPolicy\":\"Cluster\"}}}}'`.",
        facts.namespace,
        service.name()
    );
    Some(if inside.is_empty() {
        Finding::nothing_works(Reason::NoLocalEndpoints, message, remediation)
    } else {
        Finding::part_fails(Reason::NoLocalEndpoints, message, remediation)
    })
}
