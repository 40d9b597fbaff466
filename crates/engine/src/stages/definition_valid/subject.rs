//! A Service whose definition is judged.

use crate::{Facts, Finding, text::quoted};
use svcdiag_api::Reason;
use svcdiag_objects::{Object, Pod, Service, ServicePort};

/// A Service with what its definition is held against.
pub(super) struct Subject<'a> {
    pub facts: &'a Facts,
    pub service: &'a Service,
    /// The Service's ports that clients use.
    pub ports: Vec<&'a ServicePort>,
    /// Selected Pods that are here to stay.
    pub pods: Vec<&'a Pod>,
}

impl Subject<'_> {
    /// The command that opens the Service in an editor.
    pub(super) fn edit(&self) -> String {
        format!(
            "`kubectl -n {} edit service {}`",
            quoted(&self.facts.namespace),
            quoted(self.service.name())
        )
    }

    /// A fault of these ports; of the whole Service, if clients use no others.
    pub(super) fn fault(&self, of: usize, reason: Reason, message: String, remediation: String) -> Finding {
        if of >= self.ports.len() {
            Finding::nothing_works(reason, message, remediation)
        } else {
            Finding::part_fails(reason, message, remediation)
        }
    }

    /// Whether ports are translated at all: an ExternalName has none, and behind a headless
    /// Service clients dial whatever port of the Pods they like.
    pub(super) fn translates_ports(&self) -> bool {
        !self.service.is_external_name() && !self.service.is_headless()
    }
}
