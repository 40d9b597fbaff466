//! Reasons: why a condition has its status. Public API; nothing is emitted that is not listed here.

use super::string_enum;

string_enum! {
    /// Reason of a condition. The documentation of a value names the condition it belongs to and
    /// the status it goes with. Which of several faults of a condition is reported is said by the
    /// table in `stage`, not by the order here.
    Reason {
        /// ServiceExists is True: the Service was found.
        ServiceFound,
        /// ServiceExists is False: no Service of that name is in the namespace.
        ServiceNotFound,

        /// DefinitionValid is True: nothing in the definition contradicts itself or the Pods.
        Valid,
        /// DefinitionValid is True: nothing is wrong, but the message names something odd.
        ValidWithHints,
        /// DefinitionValid is False: clients use a port that the Service does not list.
        PortNotListed,
        /// DefinitionValid is False: targetPort is a number written as a string, which names a port.
        NumericTargetPortName,
        /// DefinitionValid is False: targetPort names a port that no selected Pod has.
        NamedPortNotFound,
        /// DefinitionValid is False: only some Pods of one revision have the port that targetPort names.
        NamedPortMissingOnSomePods,
        /// DefinitionValid is False: the Pods listen with another protocol than the Service's port has.
        ProtocolMismatch,
        /// DefinitionValid is False: no Pod has an address of any of the Service's IP families.
        IPFamilyMismatch,
        /// DefinitionValid is False: externalName is an IP address, which DNS cannot alias.
        ExternalNameIsIP,
        /// DefinitionValid is False: a hand-made EndpointSlice lacks the Service's port, by name or protocol.
        ManualEndpointsPortMismatch,

        /// PodsHealthy is True: every selected Pod is ready.
        AllPodsReady,
        /// PodsHealthy is True: some of the selected Pods are ready.
        SomePodsNotReady,
        /// PodsHealthy is True: Pods are ready but their containers restart often.
        RestartingOften,
        /// PodsHealthy is Unknown: no Pod is ready yet and their start-up deadlines are not over.
        PodsStarting,
        /// PodsHealthy is False: no Pod is ready and the nodes that they run on are not Ready.
        NodeNotReady,
        /// PodsHealthy is False: no Pod could be placed on a node.
        PodsUnschedulable,
        /// PodsHealthy is False: the only Pods left are being deleted and do not go away.
        PodsStuckTerminating,
        /// PodsHealthy is False: no Pod is ready and an image cannot be pulled.
        ImagePullFailed,
        /// PodsHealthy is False: no Pod is ready and an init container fails or does not end.
        InitContainerFailing,
        /// PodsHealthy is False: no Pod is ready and containers start and end again and again.
        CrashLooping,
        /// PodsHealthy is False: no Pod is ready; containers run but their readiness probes fail.
        ReadinessProbeFailing,
        /// PodsHealthy is False: no Pod is ready, for another cause.
        PodsNotReady,

        /// EndpointsPopulated is True: the Service has ready endpoints.
        EndpointsReady,
        /// EndpointsPopulated is True: every endpoint is terminating but still serves.
        OnlyTerminatingEndpoints,
        /// EndpointsPopulated is False: the selector matches no Pod.
        SelectorMatchesNoPods,
        /// EndpointsPopulated is False: the workload that the selector matches is scaled to zero.
        ScaledToZero,
        /// EndpointsPopulated is False: the Service has no selector and no EndpointSlice was made by hand.
        NoSelectorAndNoEndpoints,
        /// EndpointsPopulated is False: Pods have been ready for a while but the EndpointSlices do not hold them.
        EndpointSlicesStale,
        /// EndpointsPopulated is False: there are endpoints but none is ready.
        NoReadyEndpoints,
        /// EndpointsPopulated is False: a port of the Service has no endpoint, though other ports may.
        PortHasNoEndpoints,
        /// EndpointsPopulated is False: a Local traffic policy shuts out client Pods whose node has no endpoint.
        NoLocalEndpoints,

        /// NetworkPolicyAllows is True: no NetworkPolicy selects the Pods involved.
        NoPolicySelects,
        /// NetworkPolicyAllows is True: NetworkPolicies select the Pods and admit the clients.
        Allowed,
        /// NetworkPolicyAllows is True: NetworkPolicies deny the clients but the traffic passes.
        DeniedButNotEnforced,
        /// NetworkPolicyAllows is Unknown: the cluster serves other kinds of policies, which may admit what NetworkPolicies deny.
        OtherPoliciesApply,
        /// NetworkPolicyAllows is False: NetworkPolicies on the target Pods do not admit the clients.
        IngressDenied,
        /// NetworkPolicyAllows is False: NetworkPolicies on the clients do not let them out to the Service's Pods.
        EgressDenied,
        /// NetworkPolicyAllows is False: NetworkPolicies on the clients do not let them out to cluster DNS.
        EgressToDNSDenied,

        /// EndpointsReachable is True: every endpoint answered; over UDP none refused.
        AllEndpointsAnswer,
        /// EndpointsReachable or ServiceReachable is Unknown: a service mesh intercepts the connections.
        InterceptedByMesh,
        /// EndpointsReachable is False: no process in the Pods listens on the target port.
        NotListening,
        /// EndpointsReachable is False: the Pods listen on a loopback address only.
        ListensOnLoopbackOnly,
        /// EndpointsReachable is False: the Pods listen, but not in the IP family of the Service.
        WrongFamilyListening,
        /// EndpointsReachable is False: endpoints answer on their own node only.
        CrossNodeUnreachable,
        /// EndpointsReachable is False: some of the endpoints do not answer.
        SomeEndpointsFailing,

        /// A data-path stage is False: a node does not forward packets (sysctl ip_forward).
        IPForwardingDisabled,
        /// A data-path stage is False: the FORWARD chain of a node drops the packets.
        ForwardChainDrops,
        /// A data-path stage is False: the connection tracking table of a node is full.
        ConntrackTableFull,
        /// A data-path stage is False: reverse path filtering of a node drops the packets.
        ReversePathFiltering,
        /// A data-path stage is False: connections are refused.
        ConnectionRefused,
        /// A data-path stage is False: there is no route to the address.
        NoRouteToHost,
        /// A data-path stage is False: connections time out.
        TimedOut,
        /// A data-path stage is False: an answer came but not with an expected HTTP status.
        UnexpectedResponse,

        /// KubeProxyHealthy is True: kube-proxy runs on every node that was looked at.
        Running,
        /// KubeProxyHealthy is Unknown: another product does kube-proxy's work in this cluster.
        ProxyReplaced,
        /// KubeProxyHealthy or ProxyRulesPresent is Unknown: the Service is labelled for another proxy.
        HandledByAnotherProxy,
        /// KubeProxyHealthy is False: no kube-proxy runs on a node.
        NotRunning,
        /// KubeProxyHealthy is False: kube-proxy of a node does not answer its liveness check.
        NotLive,
        /// KubeProxyHealthy is False: kube-proxy of a node applies nothing new.
        NotSyncing,
        /// KubeProxyHealthy is False: kube-proxy of a node cannot reach the API server.
        APIServerUnreachable,
        /// KubeProxyHealthy is False: kube-proxy of a node may not read what it has to watch (403).
        APIAccessDenied,
        /// KubeProxyHealthy is False: the conntrack program that this old kube-proxy needs is missing.
        ConntrackMissing,

        /// ProxyRulesPresent is True: the rules of the nodes are what the EndpointSlices ask for.
        RulesMatchEndpoints,
        /// ProxyRulesPresent is False: both iptables backends hold rules for the Service.
        ConflictingBackends,
        /// ProxyRulesPresent is False: leftovers of another proxy mode hold the Service's addresses.
        ConflictingModes,
        /// ProxyRulesPresent is False: rules of the Service are missing.
        RulesMissing,
        /// ProxyRulesPresent is False: the rules lack an endpoint.
        EndpointMissingFromRules,
        /// ProxyRulesPresent is False: the rules hold the endpoints but send nothing to them (ipvs weight 0).
        EndpointsDrained,
        /// ProxyRulesPresent is False: the rules still hold an endpoint that is gone.
        StaleEndpointInRules,
        /// ProxyRulesPresent is False: kube-proxy runs under another name than its Node, so that it takes local endpoints for remote ones.
        NodeNameMismatch,
        /// ProxyRulesPresent is False: another process of the node holds the node port.
        NodePortInUse,
        /// ProxyRulesPresent is False: the rules of the node port are missing.
        NodePortRulesMissing,

        /// ProxyForwards is True: the Service's addresses answer from the nodes; over UDP they do not refuse.
        Forwards,
        /// ProxyForwards is False: a connection tracking entry sends UDP packets to a Pod that is gone.
        StaleConntrackEntry,

        /// ServiceReachable is True: the Service's addresses answer from client Pods; over UDP they do not refuse.
        Reachable,
        /// A stage that needs client Pods is Unknown: there is none to try from or to judge by.
        NoClientPods,
        /// A stage that needs client Pods is Unknown: the clients' Namespace does not lend its Pods to this one.
        ClientNamespaceNotGranted,
        /// ServiceReachable is False: bridged packets skip kube-proxy's rules (sysctl bridge-nf-call-iptables).
        BridgeNetfilterDisabled,
        /// ServiceReachable is False: some of the endpoints do not answer through the Service's address.
        PartiallyReachable,

        /// DNSResolves is True: the client Pods resolve the Service's names.
        Resolves,
        /// DNSResolves is False: cluster DNS has Pods and none of them is ready.
        ClusterDNSNotReady,
        /// DNSResolves is False: cluster DNS answers, but with SERVFAIL or REFUSED.
        ClusterDNSFailing,
        /// DNSResolves is False: cluster DNS serves another domain than the one the clients search in.
        ClusterDomainMismatch,
        /// DNSResolves is False: cluster DNS does not answer; kubernetes.default cannot be resolved either.
        ClusterDNSUnreachable,
        /// DNSResolves is False: the clients ask a name server that does not know the cluster.
        NameserverNotClusterDNS,
        /// DNSResolves is False: the name that the Service is an alias of does not exist.
        ExternalNameNotFound,
        /// DNSResolves is False: cluster DNS does not know the Service's name.
        NameNotFound,
        /// DNSResolves is False: the clients' search list lacks the suffix of the namespace.
        SearchPathMissing,
        /// DNSResolves is False: ndots is too low for the clients' resolver.
        NdotsTooLow,
        /// DNSResolves is False: clients of another namespace use the short name.
        OnlyQualifiedNameResolves,
        /// DNSResolves is False: only the fully qualified name resolves.
        OnlyFullyQualifiedNameResolves,
        /// DNSResolves is False: the name resolves to an address that is not the Service's.
        WrongAddress,
        /// DNSResolves is False: some of the DNS servers do not answer.
        SomeDNSServersFailing,

        /// HairpinOK is True: a Pod reached itself through the Service.
        HairpinWorks,
        /// HairpinOK is True: bridge port and masquerade rule are right; the probe could not pin the connection.
        HairpinConfigured,
        /// HairpinOK is False: the bridge port of the Pod does not send packets back.
        HairpinModeDisabled,
        /// HairpinOK is False: the bridge does not take the packets that Pods send to themselves, in the kubelet's promiscuous-bridge mode.
        BridgeNotPromiscuous,
        /// HairpinOK is False: the Pod's traffic to itself is not masqueraded.
        MasqueradeMissing,
        /// HairpinOK is False: the connection of the Pod to itself is refused.
        HairpinRefused,
        /// HairpinOK is False: the connection of the Pod to itself times out.
        HairpinTimedOut,

        /// Ready is True: every stage is True or needs no answer.
        ServiceWorks,
        /// Ready is True: the Service works from the nodes; there was no client Pod to try from.
        WorksFromNodes,
        /// Unknown: the diagnosis is suspended.
        Suspended,

        /// Unknown: the first full round is not over.
        Pending,
        /// Unknown: an earlier stage, named in the message, has to be mended first.
        Blocked,
        /// Unknown: the question does not arise for this Service.
        NotApplicable,
        /// Unknown: no node agent could look.
        NoVantagePoint,
        /// Unknown: the node agents have stopped reporting.
        AgentNotResponding,
        /// Unknown: a look or a probe could not be made.
        ProbeFailed,
        /// Unknown: the diagnosis' spec.skip names this stage.
        Skipped,
    }
}

impl Reason {
    /// Whether a stage that is Unknown for this reason leaves nothing to be answered, so that
    /// Ready may be True.
    #[must_use]
    pub const fn is_satisfied(self) -> bool {
        matches!(
            self,
            Self::NotApplicable
                | Self::Skipped
                | Self::ProxyReplaced
                | Self::HandledByAnotherProxy
                | Self::InterceptedByMesh
                | Self::NoClientPods
                | Self::OtherPoliciesApply
        )
    }
}
