//! The decision tree as one table: for each stage its reasons to be False in order of precedence, and
//! the section of the "Debug Services" page that asks its question.
//!
//! Everything that depends on that order or names those sections reads it here: the engine, the root
//! cause's link, and the table in README, which a test compares.

use super::{ConditionType, Reason};

/// A stage of the decision tree.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its condition.
    pub condition: ConditionType,
    /// Reasons for False, in order of precedence: of several faults of the stage the first is the one
    /// that is reported.
    pub faults: &'static [Reason],
    /// Section of the page that asks the stage's question.
    section: &'static str,
}

/// Kubernetes' "Debug Services" page.
pub const PAGE: &str = "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/";

/// The stages, in causal order.
pub const STAGES: &[Stage] = {
    use ConditionType as C;
    use Reason as R;
    &[
        Stage {
            condition: C::ServiceExists,
            faults: &[R::ServiceNotFound],
            section: "does-the-service-exist",
        },
        Stage {
            condition: C::DefinitionValid,
            faults: &[
                R::PortNotListed,
                R::NumericTargetPortName,
                R::NamedPortNotFound,
                R::NamedPortMissingOnSomePods,
                R::ProtocolMismatch,
                R::IPFamilyMismatch,
                R::ExternalNameIsIP,
                R::ManualEndpointsPortMismatch,
            ],
            section: "is-the-service-defined-correctly",
        },
        Stage {
            condition: C::PodsHealthy,
            faults: &[
                R::NodeNotReady,
                R::PodsUnschedulable,
                R::PodsStuckTerminating,
                R::ImagePullFailed,
                R::InitContainerFailing,
                R::CrashLooping,
                R::ReadinessProbeFailing,
                R::PodsNotReady,
            ],
            section: "are-the-pods-working",
        },
        Stage {
            condition: C::EndpointsPopulated,
            faults: &[
                R::SelectorMatchesNoPods,
                R::ScaledToZero,
                R::NoSelectorAndNoEndpoints,
                R::EndpointSlicesStale,
                R::NoReadyEndpoints,
                R::PortHasNoEndpoints,
                R::NoLocalEndpoints,
            ],
            section: "does-the-service-have-any-endpointslices",
        },
        Stage {
            condition: C::NetworkPolicyAllows,
            faults: &[R::IngressDenied, R::EgressDenied, R::EgressToDNSDenied],
            section: "any-network-policy-ingress-rules-affecting-the-target-pods",
        },
        Stage {
            condition: C::EndpointsReachable,
            faults: &[
                R::NotListening,
                R::ListensOnLoopbackOnly,
                R::WrongFamilyListening,
                R::IPForwardingDisabled,
                R::ForwardChainDrops,
                R::ConntrackTableFull,
                R::ReversePathFiltering,
                R::CrossNodeUnreachable,
                R::ConnectionRefused,
                R::NoRouteToHost,
                R::TimedOut,
                R::UnexpectedResponse,
                R::SomeEndpointsFailing,
            ],
            section: "are-the-pods-working",
        },
        Stage {
            condition: C::KubeProxyHealthy,
            faults: &[
                R::NotRunning,
                R::NotLive,
                R::ConntrackMissing,
                R::NotSyncing,
                R::APIServerUnreachable,
                R::APIAccessDenied,
            ],
            section: "is-kube-proxy-running",
        },
        Stage {
            condition: C::ProxyRulesPresent,
            faults: &[
                R::ConflictingBackends,
                R::ConflictingModes,
                R::RulesMissing,
                R::EndpointMissingFromRules,
                R::EndpointsDrained,
                R::StaleEndpointInRules,
                R::NodeNameMismatch,
                R::NodePortInUse,
                R::NodePortRulesMissing,
            ],
            section: "is-the-kube-proxy-working",
        },
        Stage {
            condition: C::ProxyForwards,
            faults: &[
                R::StaleConntrackEntry,
                R::IPForwardingDisabled,
                R::ForwardChainDrops,
                R::ConntrackTableFull,
                R::ReversePathFiltering,
                R::ConnectionRefused,
                R::NoRouteToHost,
                R::TimedOut,
                R::UnexpectedResponse,
            ],
            section: "is-kube-proxy-proxying",
        },
        Stage {
            condition: C::ServiceReachable,
            faults: &[
                R::BridgeNetfilterDisabled,
                R::IPForwardingDisabled,
                R::ForwardChainDrops,
                R::ConntrackTableFull,
                R::ReversePathFiltering,
                R::ConnectionRefused,
                R::NoRouteToHost,
                R::TimedOut,
                R::UnexpectedResponse,
                R::PartiallyReachable,
            ],
            section: "does-the-service-work-by-ip",
        },
        Stage {
            condition: C::DNSResolves,
            faults: &[
                R::ClusterDNSNotReady,
                R::ClusterDNSFailing,
                R::ClusterDomainMismatch,
                R::ClusterDNSUnreachable,
                R::NameserverNotClusterDNS,
                R::ExternalNameNotFound,
                R::NameNotFound,
                R::SearchPathMissing,
                R::NdotsTooLow,
                R::OnlyQualifiedNameResolves,
                R::OnlyFullyQualifiedNameResolves,
                R::WrongAddress,
                R::SomeDNSServersFailing,
            ],
            section: "does-the-service-work-by-dns-name",
        },
        Stage {
            condition: C::HairpinOK,
            faults: &[
                R::HairpinModeDisabled,
                R::BridgeNotPromiscuous,
                R::MasqueradeMissing,
                R::HairpinRefused,
                R::HairpinTimedOut,
            ],
            section: "a-pod-fails-to-reach-itself-via-the-service-ip",
        },
    ]
};

impl ConditionType {
    /// Reasons for this stage to be False, in order of precedence; none for conditions that sum up.
    #[must_use]
    pub fn faults(self) -> &'static [Reason] {
        STAGES
            .iter()
            .find(|stage| stage.condition == self)
            .map_or(&[], |stage| stage.faults)
    }

    /// Where to read more: the section of the page that asks the question of this stage.
    #[must_use]
    pub fn link(self) -> String {
        STAGES
            .iter()
            .find(|stage| stage.condition == self)
            .map_or_else(|| PAGE.to_owned(), |stage| format!("{PAGE}#{}", stage.section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_the_stages_in_causal_order() {
        let of_table: Vec<ConditionType> = STAGES.iter().map(|stage| stage.condition).collect();
        assert_eq!(of_table, ConditionType::stages());
    }

    #[test]
    fn no_reason_stands_twice_in_a_stage() {
        for stage in STAGES {
            for (i, reason) in stage.faults.iter().enumerate() {
                assert!(
                    !stage.faults[..i].contains(reason),
                    "{}: {reason}",
                    stage.condition
                );
            }
        }
    }
}
