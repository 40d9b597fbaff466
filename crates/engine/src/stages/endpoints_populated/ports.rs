//! Whether each port of the Service has an endpoint. kube-proxy pairs the ports of the Service with those of the
//! EndpointSlices by name, protocol and IP family, so that one port can be dead beside others that work.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::{
    Facts, Finding,
    pods::state::{self, trouble::Trouble},
    ports,
    stages::endpoints_populated::stale::{self, SLICE_GRACE},
    text::{self, quoted},
    time::later,
};
use svcdiag_api::Reason;
use svcdiag_kube_proxy::{IpFamily, Protocol, Vantage, expected};
use svcdiag_objects::{IntOrString, Object, Pod, Service, ServicePort};

/// The ports without an endpoint.
pub(super) enum Ports {
    /// Each that clients use has one.
    Served,
    /// Some have none yet, and may have until this time.
    Waiting {
        message: String,
        until: Timestamp,
        is_all: bool,
    },
    /// Some have none.
    Dead(Box<Finding>),
}

/// A port of the Service in one IP family.
struct Judged<'a> {
    port: &'a ServicePort,
    family: IpFamily,
    is_served: bool,
}

pub(super) fn judge(facts: &Facts, service: &Service) -> Ports {
    let all = judged(facts, service);
    let dead: Vec<&Judged<'_>> = all.iter().filter(|j| !j.is_served).collect();
    let Some(first) = dead.first() else {
        return Ports::Served;
    };
    let pods = pods_with(facts, service, first);
    let is_all = dead.len() == all.len();
    let is_of_one_family = all
        .iter()
        .any(|j| j.is_served && j.port.name() == first.port.name() && j.port.protocol == first.port.protocol);
    let mut names: Vec<String> = Vec::new();
    for judged in &dead {
        let name = match is_of_one_family {
            true => format!("{} over {}", judged.port.describe(), judged.family),
            false => judged.port.describe(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let what = format!(
        "{} {} {} no ready endpoint",
        if names.len() == 1 {
            "Service port"
        } else {
            "Service ports"
        },
        text::list(&names),
        if names.len() == 1 { "has" } else { "have" },
    );
    if let Some(until) = waits_until(facts, service, &pods) {
        return Ports::Waiting {
            message: format!("{what} yet"),
            until,
            is_all,
        };
    }
    let (why, remediation) = explain(facts, service, first.port, &pods);
    let beside = if is_all {
        ""
    } else {
        ", while other ports have one"
    };
    let message = format!("{what}{beside}: {why}.");
    let finding = match is_all {
        true => Finding::nothing_works(Reason::PortHasNoEndpoints, message, remediation),
        false => Finding::part_fails(Reason::PortHasNoEndpoints, message, remediation),
    };
    Ports::Dead(Box::new(finding))
}

/// The ports that clients use, in the families that the slices have addresses of. A family without any is nothing
/// that a port lacks: Pods have addresses of one family only on many clusters.
fn judged<'a>(facts: &Facts, service: &'a Service) -> Vec<Judged<'a>> {
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let in_use: BTreeSet<IpFamily> = slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter_map(|e| e.addresses.first()?.parse::<IpAddr>().ok())
        .map(IpFamily::of)
        .collect();
    // What serves does not depend on the node.
    let anywhere = Vantage { node: "", zone: None };
    let expected = expected(service, &slices, anywhere);
    let asked = ports::judged(facts, service);
    let find =
        |name: &str, protocol: Protocol| asked.iter().find(|p| p.name() == name && p.protocol == protocol);
    expected
        .into_iter()
        .filter(|e| in_use.contains(&e.family))
        .filter_map(|e| {
            Some(Judged {
                port: find(&e.name, e.protocol)?,
                family: e.family,
                is_served: !e.serving.is_empty(),
            })
        })
        .collect()
}

/// The Pods that have the port and an address of the family, and stay.
fn pods_with<'a>(facts: &'a Facts, service: &Service, judged: &Judged<'_>) -> Vec<&'a Pod> {
    if !service.has_selector() {
        return Vec::new();
    }
    let target = judged.port.target_port();
    let has_address = |p: &Pod| {
        p.ips()
            .filter_map(|ip| ip.parse().ok())
            .any(|ip| IpFamily::of(ip) == judged.family)
    };
    let mut pods = facts.selected_pods();
    pods.retain(|p| !p.is_terminating() && p.resolve_port(&target, &judged.port.protocol).is_some());
    // One that is starting has no address yet.
    pods.retain(|p| has_address(p) || p.ips().next().is_none());
    pods
}

/// Until when the port may still get an endpoint by itself: Pods that have it are starting, as in a rollout that adds
/// it, or the slices are about to follow.
fn waits_until(facts: &Facts, service: &Service, pods: &[&Pod]) -> Option<Timestamp> {
    let of_pod = |pod: &&Pod| {
        if pod.is_ready() {
            return Some(stale::due(facts, service, pod));
        }
        match state::trouble(facts, pod) {
            Trouble::Starting(start) => Some(start.until),
            _ => None,
        }
    };
    let of_slices = facts
        .endpoints_settle_at(SLICE_GRACE)
        .filter(|_| !service.has_selector());
    let of_service = service.changed_at().map(|at| later(at, SLICE_GRACE));
    pods.iter()
        .filter_map(of_pod)
        .chain(of_slices)
        .chain(of_service)
        .filter(|until| *until > facts.now)
        .min()
}

/// Why the port has no endpoint, and what to do.
fn explain(facts: &Facts, service: &Service, port: &ServicePort, pods: &[&Pod]) -> (String, String) {
    let (ns, name) = (quoted(&facts.namespace), quoted(service.name()));
    let slices = format!("`kubectl -n {ns} get endpointslices -l kubernetes.io/service-name={name} -o yaml`");
    if !service.has_selector() {
        return (
            "no EndpointSlice has a ready endpoint for it".to_owned(),
            format!("Add a ready endpoint with the port's name and protocol. The EndpointSlices: {slices}."),
        );
    }
    let target = port.target_port();
    let Some(pod) = pods.first() else {
        return (
            format!("no Pod has its targetPort {target}"),
            format!(
                "Name the port in the Pod template, or correct targetPort: `kubectl -n {ns} edit service {name}`."
            ),
        );
    };
    if let Some(unready) = pods.first().filter(|_| !pods.iter().any(|p| p.is_ready())) {
        return none_is_ready(facts, unready, pods.len());
    }
    if let (IntOrString::String(wanted), Some(sidecar)) = (&target, sidecar_with(pod, &target, port)) {
        let number = pod.resolve_port(&target, &port.protocol).unwrap_or_default();
        return (
            format!(
                "\"{wanted}\" is a port of {sidecar}, an init container that keeps running (a native sidecar), and older versions of Kubernetes look for port names only in regular containers"
            ),
            format!(
                "Set targetPort to the number {number} instead of the name: `kubectl -n {ns} edit service {name}`. Or upgrade the cluster."
            ),
        );
    }
    (
        format!(
            "Pods that have it are ready, for example {}, but the EndpointSlices do not list it",
            pod.name()
        ),
        format!(
            "Check that kube-controller-manager is running, and read its log: `kubectl -n kube-system get pods -l component=kube-controller-manager`. Compare with {slices}."
        ),
    )
}

/// Why none of the Pods that have a port is ready, for example this one.
fn none_is_ready(facts: &Facts, unready: &Pod, pods: usize) -> (String, String) {
    let (ns, name) = (quoted(&facts.namespace), quoted(unready.name()));
    let which = match pods {
        1 => format!("{}, the only Pod that has it, is not ready", unready.name()),
        n => format!(
            "{} Pods that have it is ready, for example {}",
            text::none_of(n),
            unready.name()
        ),
    };
    (
        format!("{which}: {}", state::trouble(facts, unready).describe()),
        format!("Find out why it is not ready: `kubectl -n {ns} describe pod {name}`."),
    )
}

/// The native sidecar whose port is meant, where no ordinary container has one of the name.
fn sidecar_with<'a>(pod: &'a Pod, target: &IntOrString, port: &ServicePort) -> Option<&'a str> {
    let IntOrString::String(name) = target else {
        return None;
    };
    let has = |c: &&svcdiag_objects::Container| {
        c.ports
            .iter()
            .any(|p| p.name.as_ref() == Some(name) && p.protocol == port.protocol)
    };
    if pod.spec.containers.iter().any(|c| has(&c)) {
        return None;
    }
    pod.spec.init_containers.iter().find(has).map(|c| c.name.as_str())
}
