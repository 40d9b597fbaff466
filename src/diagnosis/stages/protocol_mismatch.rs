//! Do the Pods listen with another protocol than the Service's port has? Declarations say nothing of it: the
//! agents have seen the sockets.

use super::{
    super::{
        Facts, Finding,
        paths::{Failed, Paths, Way},
        targets, told,
        vantage::Vantage,
        words,
    },
    listening,
};
use crate::{
    api::Reason,
    objects::{Object, Service, ServicePort},
};

/// Ports whose every endpoint refuses, and whose Pods listen there with the other protocol only.
pub(super) fn judge(facts: &Facts, service: &Service, ports: &[&ServicePort]) -> Option<Finding> {
    let vantage = Vantage::of(facts);
    if vantage.reports.is_empty() {
        return None;
    }
    let paths = Paths::of(facts, &vantage)?;
    let dials = paths.dials(Way::Direct);
    let of = |port: &ServicePort| -> Vec<&Failed<'_>> {
        let number = targets::number(port);
        dials.failures.iter().filter(|f| f.dial.port == number).collect()
    };
    let mismatched: Vec<(&ServicePort, Vec<&Failed<'_>>)> = ports
        .iter()
        .map(|port| (*port, of(port)))
        .filter(|(port, failures)| {
            !failures.is_empty()
                && dials.is_dead(&targets::number(port))
                && failures
                    .iter()
                    .all(|f| listening::listens_with_other_protocol(&paths, f))
        })
        .collect();
    let (port, failures) = mismatched.first()?;
    let other = if port.protocol() == "UDP" { "TCP" } else { "UDP" };
    let target = failures.first()?.endpoint?.port();
    let pods = told::pods(failures);
    let message = format!(
        "Port {} is {}, but {} with {other} only on port {target}: {}.",
        port.describe(),
        port.protocol(),
        match pods.as_slice() {
            [one] => format!("Pod {one} listens"),
            several => format!("{} listen", words::count(several.len(), "Pod")),
        },
        told::endpoints(failures)
    );
    let remediation = format!(
        "Set protocol of the port to {other}: `kubectl -n {} edit service {}`.",
        facts.namespace,
        service.name()
    );
    Some(if mismatched.len() >= ports.len() {
        Finding::nothing_works(Reason::ProtocolMismatch, message, remediation)
    } else {
        Finding::part_fails(Reason::ProtocolMismatch, message, remediation)
    })
}
