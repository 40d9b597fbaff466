//! Clients that ask for a headless Service by its name and port, and come to a port that its Pods do not have.
//!
//! Nobody can tell which port clients dial, so that a port that differs is a hint. Where files hold such a request,
//! it is a failure like any other.

use crate::{
    Facts, Finding,
    evidence::Evidence,
    text::{self, quoted},
};
use svcdiag_api::Reason;
use svcdiag_objects::ServicePort;

pub(super) fn judge(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let service = facts.service.as_deref().filter(|s| s.is_headless())?;
    let mut refused = reports
        .current
        .iter()
        .filter_map(|r| r.saved)
        .flat_map(|s| &s.untranslated);
    let (port, numbers) = refused.find_map(|number| {
        let port = service.spec.ports.iter().find(|p| p.port == i32::from(*number))?;
        Some((port, numbers(facts, port)))
    })?;
    let name = &facts.spec.service_name;
    Some(Finding::part_fails(
        Reason::ConnectionRefused,
        format!(
            "Clients that connected to {name} on port {} were refused: the Service is headless and does not translate ports, so they reached that port of a Pod. Its endpoints have {}.",
            port.port,
            text::list(&numbers)
        ),
        format!(
            "Have clients use {}, or give them a Service with an address (without clusterIP: None), which translates ports. Check the ports of the endpoints: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={}`.",
            numbers.join(" or "),
            quoted(&facts.namespace),
            quoted(name)
        ),
    ))
}

/// The numbers that the endpoints of a port have.
fn numbers(facts: &Facts, port: &ServicePort) -> Vec<String> {
    let of_slices = facts.slices.iter().flat_map(|s| s.numbers(&port.protocol));
    let mut numbers: Vec<u16> = of_slices
        .filter(|(of, _)| *of == port.name())
        .map(|(_, n)| n)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.iter().map(|n| format!("port {n}")).collect()
}
