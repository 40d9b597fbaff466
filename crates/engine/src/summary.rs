//! The short strings of kubectl's columns.

use std::collections::BTreeMap;

use crate::{
    Facts, Finding, Verdict,
    evidence::{
        Evidence,
        proxies::{self, Proxy},
        reports::Reports,
    },
};
use svcdiag_api::{ConditionType, Reason, Summary};

pub(crate) fn summary(evidence: &Evidence<'_>, stages: &[(ConditionType, Finding)]) -> Summary {
    let word = |condition| {
        let finding = stages
            .iter()
            .find(|(c, _)| *c == condition)
            .map(|(_, finding)| finding);
        match finding.map(|f| (&f.verdict, f.reason)) {
            Some((Verdict::True, _)) => "OK",
            Some((Verdict::False { .. }, _)) => "Failed",
            Some((Verdict::Unknown, Reason::NotApplicable)) => "n/a",
            _ => "?",
        }
        .to_owned()
    };
    Summary {
        endpoints: endpoints(evidence.facts),
        proxy: proxy(&evidence.reports).unwrap_or_else(|| word(ConditionType::ProxyRulesPresent)),
        dns: word(ConditionType::DNSResolves),
        hairpin: word(ConditionType::HairpinOK),
    }
}

/// The mode, and the nodes with right rules of those whose rules were compared.
fn proxy(reports: &Reports<'_>) -> Option<String> {
    let own = reports.current.iter().filter(|r| proxies::of(r) == Proxy::Own);
    let compared: Vec<_> = own
        .filter_map(|r| r.facts.rules.as_ref())
        .filter(|rules| rules.compared > 0)
        .collect();
    let mode = proxies::mode(reports);
    if compared.is_empty() {
        // A replacement has no rules to compare, but a name.
        return mode.filter(|_| proxies::replaced_everywhere(reports).is_some());
    }
    let right = compared
        .iter()
        .filter(|rules| rules.gaps.is_empty() && rules.conflict.is_none());
    Some(format!(
        "{} {}/{}",
        mode.unwrap_or_default(),
        right.count(),
        compared.len()
    ))
}

/// Ready endpoints of all. A Pod is one endpoint though it may stand in several slices, one for
/// each IP family or for each set of ports; it is ready if it is ready in any of them.
fn endpoints(facts: &Facts) -> String {
    let Some(service) = facts.service.as_deref() else {
        return "?".to_owned();
    };
    if service.is_external_name() {
        return "n/a".to_owned();
    }
    let mut endpoints: BTreeMap<&str, bool> = BTreeMap::new();
    for endpoint in facts.slices.iter().flat_map(|s| &s.endpoints) {
        let address = endpoint.addresses.first().map(String::as_str);
        if let Some(key) = endpoint.pod_uid().or(address) {
            *endpoints.entry(key).or_default() |= endpoint.is_ready();
        }
    }
    format!(
        "{}/{}",
        endpoints.values().filter(|ready| **ready).count(),
        endpoints.len()
    )
}
