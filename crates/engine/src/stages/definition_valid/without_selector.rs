//! Services without a selector: aliases, and those whose EndpointSlices somebody else writes.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Finding,
    stages::definition_valid::subject::Subject,
    text::{self, quoted},
};
use svcdiag_api::Reason;
use svcdiag_objects::{EndpointPort, Object};

impl Subject<'_> {
    pub(super) fn external_name_is_ip(&self) -> Option<Finding> {
        let name = self.service.spec.external_name.as_deref()?;
        if !self.service.is_external_name() || name.parse::<IpAddr>().is_err() {
            return None;
        }
        Some(Finding::nothing_works(
            Reason::ExternalNameIsIP,
            format!(
                "externalName is the IP address {name}. DNS would return a CNAME to a host of that name, which does not exist."
            ),
            format!(
                "Set externalName to a host name, or make it a Service without a selector and list the address in an EndpointSlice: {}.",
                self.edit()
            ),
        ))
    }

    pub(super) fn manual_endpoints_port_mismatch(&self) -> Option<Finding> {
        if self.service.has_selector() || !self.translates_ports() {
            return None;
        }
        let slices: Vec<_> = self
            .facts
            .slices
            .iter()
            .filter(|s| !s.endpoints.is_empty())
            .collect();
        if slices.is_empty() {
            return None;
        }
        let unmatched: Vec<_> = self
            .ports
            .iter()
            .filter(|port| {
                let same = |p: &&EndpointPort| p.name() == port.name() && p.protocol == port.protocol;
                !slices.iter().any(|s| s.ports.iter().any(|p| same(&p)))
            })
            .collect();
        let port = unmatched.first()?;
        let have: BTreeSet<String> = slices
            .iter()
            .flat_map(|s| &s.ports)
            .map(|p| format!("\"{}\"/{}", p.name(), p.protocol))
            .collect();
        let have: Vec<String> = have.into_iter().collect();
        let have = if have.is_empty() {
            "no port".to_owned()
        } else {
            text::list(&have)
        };
        let mut names: Vec<&str> = slices.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        Some(self.fault(
            unmatched.len(),
            Reason::ManualEndpointsPortMismatch,
            format!(
                "The Service's port is \"{}\"/{}, but {} {} {} {have}. kube-proxy matches them by name and protocol.",
                port.name(),
                port.protocol,
                if names.len() == 1 { "EndpointSlice" } else { "EndpointSlices" },
                text::list(&names),
                if names.len() == 1 { "has" } else { "have" }
            ),
            format!(
                "Set the port in the EndpointSlice to name \"{}\" and protocol {}: `kubectl -n {} edit endpointslice {}`.",
                port.name(),
                port.protocol,
                quoted(&self.facts.namespace),
                quoted(names.first().copied().unwrap_or_default())
            ),
        ))
    }
}
