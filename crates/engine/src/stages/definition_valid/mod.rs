//! Is the Service defined correctly?

mod families;
mod hints;
mod named_ports;
mod protocol_mismatch;
mod subject;
mod without_selector;

use crate::{Finding, evidence::Evidence, ports, stages::definition_valid::subject::Subject, text};
use svcdiag_api::{DialPath, Impact, PortRef, Reason};
use svcdiag_objects::{Object, ServicePort};

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    let subject = Subject {
        facts,
        service,
        ports: evidence.ports.clone(),
        pods: facts
            .selected_pods()
            .into_iter()
            .filter(|p| !p.is_terminating())
            .collect(),
    };
    // In the order of precedence; a fault that leaves nothing working explains more than one of a part.
    let faults: Vec<Finding> = [
        subject.port_not_listed(),
        subject.dialled_port_not_listed(),
        subject.numeric_target_port_name(),
        subject.named_port_not_found(),
        subject.named_port_missing_on_some_pods(),
        protocol_mismatch::judge(evidence, service, &subject.ports),
        subject.ip_family_mismatch(),
        subject.external_name_is_ip(),
        subject.manual_endpoints_port_mismatch(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let worst = faults.iter().position(Finding::leaves_nothing).unwrap_or(0);
    if let Some(fault) = faults.into_iter().nth(worst) {
        return fault;
    }
    let (hints, until) = hints::of(&subject);
    let finding = if hints.is_empty() {
        Finding::yes(Reason::Valid, "The definition of the Service is consistent.")
    } else {
        Finding::yes(
            Reason::ValidWithHints,
            format!("The definition has no errors, but note: {}.", hints.join("; ")),
        )
    };
    finding.recheck_at(until)
}

impl Subject<'_> {
    fn port_not_listed(&self) -> Option<Finding> {
        if self.service.is_external_name() {
            return None;
        }
        let by_name_only = self.service.is_headless();
        let unlisted: Vec<String> = ports::unlisted(self.facts, self.service)
            .into_iter()
            .filter(|w| !by_name_only || matches!(w, PortRef::String(_)))
            .map(ports::text)
            .collect();
        if unlisted.is_empty() {
            return None;
        }
        let listed: Vec<String> = self
            .service
            .spec
            .ports
            .iter()
            .map(ServicePort::describe)
            .collect();
        let listed = if listed.is_empty() {
            "no port".to_owned()
        } else {
            text::list(&listed)
        };
        let impact = if self.ports.is_empty() {
            Impact::All
        } else {
            Impact::Some
        };
        let message = format!(
            "spec.ports of the ServiceDiagnosis says that clients use port {}, but the Service lists {listed}.",
            text::list(&unlisted)
        );
        let remediation = format!(
            "If clients do use the port, add it to spec.ports of the Service ({}), or have them use a port that the Service lists. Otherwise correct spec.ports of the ServiceDiagnosis.",
            self.edit()
        );
        Some(match impact {
            Impact::All => Finding::nothing_works(Reason::PortNotListed, message, remediation),
            Impact::Some => Finding::part_fails(Reason::PortNotListed, message, remediation),
        })
    }

    /// By hand somebody dialled, in vain, a port that the Service does not list, and nobody one that it lists.
    fn dialled_port_not_listed(&self) -> Option<Finding> {
        let reports = || self.facts.nodes.iter();
        let seen = reports().filter_map(|n| n.probe.as_ref()?.facts.as_ref());
        let mut dials = seen.flat_map(|facts| &facts.dials);
        let saved = reports().filter_map(|n| n.saved.as_ref());
        let unlisted: Vec<&String> = saved.flat_map(|saved| &saved.unlisted).collect();
        if unlisted.is_empty() || dials.any(|d| d.path != DialPath::Endpoint) {
            return None;
        }
        let listed: Vec<String> = self
            .service
            .spec
            .ports
            .iter()
            .map(ServicePort::describe)
            .collect();
        Some(Finding::nothing_works(
            Reason::PortNotListed,
            format!(
                "{}, a port that the Service does not list, and got no answer. It lists {}.",
                text::list(&unlisted),
                text::list(&listed)
            ),
            format!(
                "Have the clients use a port that the Service lists, or add theirs to the Service: {}.",
                self.edit()
            ),
        ))
    }
}
