//! What is found in the rules of a node, as a NodeProbe says it.

use svcdiag_api::{DeadEndRule, GapKind, RuleGap};
use svcdiag_kube_proxy::{Gap, IpFamily, RuleFault, Ruleset, dead_end};

/// What goes into the status of a NodeProbe.
#[must_use]
pub fn rule_gap(gap: Gap) -> RuleGap {
    RuleGap {
        kind: match gap.fault {
            RuleFault::RulesMissing => GapKind::Missing,
            RuleFault::EndpointMissing => GapKind::EndpointMissing,
            RuleFault::EndpointDrained => GapKind::EndpointDrained,
            RuleFault::StaleEndpoint => GapKind::EndpointStale,
            RuleFault::EndpointStuck => GapKind::EndpointStuck,
            RuleFault::NodePortRulesMissing => GapKind::NodePortMissing,
            RuleFault::Incomplete => GapKind::Incomplete,
        },
        destination: gap.destination,
        endpoint: gap.endpoint.map(|e| e.to_string()),
        detail: gap.detail,
    }
}

/// The rules of a backend of iptables at which every packet of IPv4 ends.
pub fn dead_ends_of(rules: &dyn Ruleset) -> impl Iterator<Item = DeadEndRule> {
    ["FORWARD", "INPUT", "OUTPUT"].into_iter().filter_map(|hook| {
        let end = dead_end(rules, IpFamily::V4, hook).ok()??;
        Some(DeadEndRule {
            hook: hook.to_owned(),
            chain: end.chain,
            rejects: end.rejects,
        })
    })
}
