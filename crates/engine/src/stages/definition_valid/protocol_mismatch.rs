//! Do the Pods listen with another protocol than the Service's port has? Declarations say nothing of it: the
//! agents have seen the sockets.

use crate::{
    Finding,
    dialling::describe,
    evidence::{Evidence, dials::Failed, listening},
    text::{self, quoted},
};
use svcdiag_api::Reason;
use svcdiag_objects::{Object, Open, Protocol, Service, ServicePort};

/// Files hold no sockets. But where clients want TCP of a port of UDP, its Pods answer that and declare nothing
/// else, the Service is what does not fit.
fn by_files(evidence: &Evidence<'_>, service: &Service, ports: &[&ServicePort]) -> Option<Finding> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let saved = || reports.current.iter().filter_map(|r| r.saved);
    let is_wanted = |port: i32| saved().any(|s| s.wanted_over_tcp.iter().any(|p| i32::from(*p) == port));
    let pods = facts.selected_pods();
    let declares = |port: &ServicePort, protocol: Protocol| {
        let numbers = pods
            .iter()
            .filter_map(|pod| pod.resolve_port(&port.target_port(), &Open::Known(Protocol::Tcp)));
        let numbers: Vec<i32> = numbers.collect();
        let mut declared = pods.iter().flat_map(|p| p.long_running()).flat_map(|c| &c.ports);
        declared.any(|p| numbers.contains(&p.container_port) && p.protocol == protocol)
    };
    let port = ports
        .iter()
        .find(|p| is_wanted(p.port) && declares(p, Protocol::Tcp) && !declares(p, Protocol::Udp))?;
    Some(Finding::part_fails(
        Reason::ProtocolMismatch,
        format!(
            "Service port {} is UDP, but the Pods declare TCP and answer it, while TCP connections to the Service fail.",
            port.describe()
        ),
        format!(
            "Set the port's protocol to TCP: `kubectl -n {} edit service {}`.",
            quoted(&facts.namespace),
            quoted(service.name())
        ),
    ))
}

/// Ports whose every endpoint refuses, and whose Pods listen there with the other protocol only.
pub(super) fn judge(evidence: &Evidence<'_>, service: &Service, ports: &[&ServicePort]) -> Option<Finding> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    if reports.current.is_empty() {
        return None;
    }
    if let Some(finding) = by_files(evidence, service, ports) {
        return Some(finding);
    }
    let dials = &evidence.direct;
    let of = |port: &ServicePort| -> Vec<&Failed<'_>> {
        let asked = port.port_protocol();
        let of = dials.failures.iter().filter(|f| Some(f.dial.port) == asked);
        of.collect()
    };
    let mismatched: Vec<(&ServicePort, Vec<&Failed<'_>>)> = ports
        .iter()
        .map(|port| (*port, of(port)))
        .filter(|(_, failures)| {
            !failures.is_empty()
                && failures.iter().all(|f| dials.is_dead_for(f))
                && failures
                    .iter()
                    .all(|f| listening::listens_with_other_protocol(evidence, f))
        })
        .collect();
    let (port, failures) = mismatched.first()?;
    let other = if port.protocol == Protocol::Udp {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let target = failures.first()?.endpoint?.port();
    let pods = describe::pods(failures);
    let message = format!(
        "Service port {} is {}, but {} only on {other} port {target}. {}.",
        port.describe(),
        port.protocol,
        match pods.as_slice() {
            [one] => format!("Pod {one} listens"),
            several => format!("{} listen", text::count(several.len(), "Pod")),
        },
        describe::endpoints(failures)
    );
    let remediation = format!(
        "If clients use {other}, set the port's protocol to {other}: `kubectl -n {} edit service {}`. If they use {}, make the application listen on {} port {target}.",
        quoted(&facts.namespace),
        quoted(service.name()),
        port.protocol,
        port.protocol
    );
    Some(if mismatched.len() >= ports.len() {
        Finding::nothing_works(Reason::ProtocolMismatch, message, remediation)
    } else {
        Finding::part_fails(Reason::ProtocolMismatch, message, remediation)
    })
}
