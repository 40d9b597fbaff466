//! The IP families of the Service and of its Pods.

use std::collections::BTreeSet;

use crate::{Finding, stages::definition_valid::subject::Subject, text::quoted};
use svcdiag_api::Reason;
use svcdiag_objects::{IpFamily, Object, Open};

impl Subject<'_> {
    pub(super) fn ip_family_mismatch(&self) -> Option<Finding> {
        let families = self.families();
        let have: BTreeSet<IpFamily> = if self.service.has_selector() {
            self.pods
                .iter()
                .flat_map(|p| p.ips())
                .filter_map(family)
                .collect()
        } else {
            let used = self.facts.slices.iter().filter(|s| !s.endpoints.is_empty());
            used.filter_map(|s| s.address_type.known()).collect()
        };
        if self.service.is_external_name()
            || families.is_empty()
            || have.is_empty()
            || !families.is_disjoint(&have)
        {
            return None;
        }
        let (wants, has) = (join(&families), join(&have));
        let whose = if self.service.has_selector() {
            "its Pods have only"
        } else {
            "its EndpointSlices list only"
        };
        Some(Finding::nothing_works(
            Reason::IPFamilyMismatch,
            format!("The Service uses only {wants}, but {whose} {has} addresses."),
            format!(
                "If the cluster has Service addresses in both families, make the Service dual-stack: \
                 `kubectl -n {ns} patch service {name} --type=merge -p '{{\"spec\":{{\"ipFamilyPolicy\":\"PreferDualStack\"}}}}'`. \
                 Or create another Service with ipFamilies [{has}]: the first family of a Service cannot be changed. \
                 If the cluster has no {has} Service addresses, the endpoints need {wants} addresses.",
                ns = quoted(&self.facts.namespace),
                name = quoted(self.service.name())
            ),
        ))
    }

    /// IP families of the Service, by its declaration or else by its addresses.
    pub(super) fn families(&self) -> BTreeSet<IpFamily> {
        let spec = &self.service.spec;
        if spec.ip_families.is_empty() {
            spec.cluster_ips.iter().filter_map(|ip| family(ip)).collect()
        } else {
            spec.ip_families.iter().filter_map(Open::known).collect()
        }
    }

    /// A family of the Service in which no Pod has an address.
    pub(super) fn family_without_pods(&self) -> Option<String> {
        let families = self.families();
        let have: BTreeSet<IpFamily> = self
            .pods
            .iter()
            .flat_map(|p| p.ips())
            .filter_map(family)
            .collect();
        let lacking: BTreeSet<IpFamily> = families.difference(&have).copied().collect();
        (!have.is_empty() && !lacking.is_empty()).then(|| {
            format!(
                "no Pod has an {lacking} address, so the Service does not work over {lacking}",
                lacking = join(&lacking)
            )
        })
    }
}

fn family(ip: &str) -> Option<IpFamily> {
    ip.parse().ok().map(IpFamily::of)
}

fn join(families: &BTreeSet<IpFamily>) -> String {
    let names: Vec<String> = families.iter().map(ToString::to_string).collect();
    names.join(" and ")
}
