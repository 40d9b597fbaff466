//! A difference of the rules as a NodeProbe says it.

use svcdiag_api::{GapKind, RuleGap};
use svcdiag_kube_proxy::{Gap, RuleFault};

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
