//! Condition types: the questions of the page, in causal order, and the three that sum them up.

use super::string_enum;

string_enum! {
    /// Type of a condition in a ServiceDiagnosis' status.
    ///
    /// The stages stand first, in causal order: what stands earlier explains what stands later.
    /// For every stage True is good.
    ConditionType {
        /// Does the Service exist?
        ServiceExists,
        /// Is the Service defined correctly?
        DefinitionValid,
        /// Are the Pods running and not restarting?
        PodsHealthy,
        /// Does the Service have any endpoints?
        EndpointsPopulated,
        /// Does any NetworkPolicy keep the clients away from the target Pods or from DNS?
        NetworkPolicyAllows,
        /// Do the Pods answer when the Service is bypassed?
        EndpointsReachable,
        /// Is kube-proxy running on the nodes that were looked at?
        KubeProxyHealthy,
        /// Is kube-proxy writing the rules of this Service?
        ProxyRulesPresent,
        /// Is kube-proxy proxying, tried from the nodes?
        ProxyForwards,
        /// Does the Service work by IP, tried from client Pods?
        ServiceReachable,
        /// Does the Service work by DNS name, tried from client Pods?
        DNSResolves,
        /// Can a Pod reach itself through the Service?
        HairpinOK,
        /// Does the Service work? True when every stage is True or needs no answer.
        Ready,
        /// Is the verdict still being worked out? True is not bad. Read by kstatus (Flux).
        Reconciling,
        /// Has Ready been False for longer than stalledAfterSeconds? True is bad. Read by kstatus (Flux).
        Stalled,
    }
}

impl ConditionType {
    /// The stages of the decision tree, in causal order.
    #[must_use]
    pub fn stages() -> &'static [Self] {
        &Self::ALL[..12]
    }

    /// The stages that API objects decide; the others need a look at the data path.
    #[must_use]
    pub fn api_stages() -> &'static [Self] {
        &Self::ALL[..5]
    }
}

string_enum! {
    /// Status of a condition.
    ConditionStatus {
        /// The answer is yes.
        True,
        /// The answer is no.
        False,
        /// There is no answer; the reason says why.
        Unknown,
    }
}
