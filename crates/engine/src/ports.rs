//! The ports that a verdict is about.

use crate::Facts;
use svcdiag_api::PortRef;
use svcdiag_objects::{Service, ServicePort};

/// The Service's ports that clients use: those that spec.ports names, else all.
pub(crate) fn judged<'a>(facts: &Facts, service: &'a Service) -> Vec<&'a ServicePort> {
    let wanted = &facts.spec.ports;
    service
        .spec
        .ports
        .iter()
        .filter(|p| wanted.is_empty() || wanted.iter().any(|w| p.is_named_by(w)))
        .collect()
}

/// The ports of spec.ports that the Service does not list.
pub(crate) fn unlisted<'a>(facts: &'a Facts, service: &Service) -> Vec<&'a PortRef> {
    let mut unlisted: Vec<&PortRef> = facts
        .spec
        .ports
        .iter()
        .filter(|w| !service.spec.ports.iter().any(|p| p.is_named_by(w)))
        .collect();
    unlisted.sort_by_key(|w| text(w));
    unlisted
}

/// A port reference as the user wrote it.
pub(crate) fn text(port: &PortRef) -> String {
    match port {
        PortRef::Int(number) => number.to_string(),
        PortRef::String(name) => name.clone(),
    }
}
