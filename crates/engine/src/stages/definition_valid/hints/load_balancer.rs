//! Load balancers that have no address.

use std::collections::BTreeSet;

use crate::{stages::definition_valid::subject::Subject, text::quoted};
use svcdiag_objects::Object;

pub(super) fn of(subject: &Subject<'_>) -> Option<String> {
    let service = subject.service;
    let is_waiting = service.spec.type_.as_deref() == Some("LoadBalancer")
        && service.status.load_balancer.ingress.is_empty();
    if !is_waiting {
        return None;
    }
    let protocols: BTreeSet<String> = service
        .spec
        .ports
        .iter()
        .map(|p| p.protocol.to_string())
        .collect();
    let protocols: Vec<String> = protocols.into_iter().collect();
    let mixed = match protocols.len() {
        0 | 1 => String::new(),
        _ => format!(
            " (its ports mix {}, which not every load balancer controller supports in one Service)",
            protocols.join(" and ")
        ),
    };
    Some(format!(
        "the load balancer has no address yet, so clients outside the cluster cannot use the Service through it{mixed}. To read what its controller reports: `kubectl -n {} describe service {}`",
        quoted(&subject.facts.namespace),
        quoted(service.name())
    ))
}
