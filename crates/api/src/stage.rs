//! The decision tree as one table: the stages in causal order, each with its question, what it needs, its
//! reasons, and the section of the "Debug Services" page that asks its question.
//!
//! Everything that depends on the tree is made of this table or checked against it: the types of conditions and
//! the reasons of the API, the CRD, the engine's choice of what it asks and blames, the root cause's link, and
//! the table in README.

use super::macros::{is_objects, stages, string_enum};

/// A stage of the decision tree.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its condition.
    pub condition: ConditionType,
    /// Whether objects of the API decide it; the others need a look at the data path.
    pub is_decided_by_objects: bool,
    /// Stages that have to be all right before this one means anything.
    pub needs: &'static [ConditionType],
    /// Reasons for True.
    pub successes: &'static [Reason],
    /// Reasons for Unknown, but for those that any stage may have.
    pub unknowns: &'static [Reason],
    /// Reasons for False, in order of precedence: of several faults of the stage the first is the one
    /// that is reported.
    pub faults: &'static [Reason],
    /// Section of the page that asks the stage's question.
    pub(super) section: &'static str,
}

/// Kubernetes' "Debug Services" page.
pub const PAGE: &str = "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/";

stages! {
    /// Does the Service exist?
    ServiceExists decided by objects {
        page: "does-the-service-exist",
        needs: [],
        yes: [
            ServiceFound = "the Service was found.",
        ],
        unknown: [],
        no: [
            ServiceNotFound = "no Service of that name is in the namespace.",
        ],
    }

    /// Is the Service defined correctly?
    DefinitionValid decided by objects {
        page: "is-the-service-defined-correctly",
        needs: [ServiceExists],
        yes: [
            Valid = "nothing in the definition contradicts itself or the Pods.",
            ValidWithHints = "nothing is wrong, but the message names something odd.",
        ],
        unknown: [],
        no: [
            PortNotListed = "clients use a port that the Service does not list.",
            NumericTargetPortName = "targetPort is a number written as a string, which names a port.",
            NamedPortNotFound = "targetPort names a port that no selected Pod has.",
            NamedPortMissingOnSomePods = "only some Pods of one revision have the port that targetPort names.",
            ProtocolMismatch = "the Pods listen with another protocol than the Service's port has.",
            IPFamilyMismatch = "no Pod has an address of any of the Service's IP families.",
            ExternalNameIsIP = "externalName is an IP address, which DNS cannot alias.",
            ManualEndpointsPortMismatch = "a hand-made EndpointSlice lacks the Service's port, by name or protocol.",
        ],
    }

    /// Are the Pods running and not restarting?
    PodsHealthy decided by objects {
        page: "are-the-pods-working",
        needs: [ServiceExists],
        yes: [
            AllPodsReady = "every selected Pod is ready.",
            SomePodsNotReady = "some of the selected Pods are ready.",
            RestartingOften = "Pods are ready but their containers restart often.",
        ],
        unknown: [
            PodsStarting = "no Pod is ready yet and their start-up deadlines are not over.",
        ],
        no: [
            NodeNotReady = "no Pod is ready and the nodes that they run on are not Ready.",
            PodsUnschedulable = "no Pod could be placed on a node.",
            PodsStuckTerminating = "the only Pods left are being deleted and do not go away.",
            ImagePullFailed = "no Pod is ready and an image cannot be pulled.",
            InitContainerFailing = "no Pod is ready and an init container fails or does not end.",
            CrashLooping = "no Pod is ready and containers start and end again and again.",
            ReadinessProbeFailing = "no Pod is ready; containers run but their readiness probes fail.",
            PodsNotReady = "no Pod is ready, for another cause.",
        ],
    }

    /// Does the Service have any endpoints?
    EndpointsPopulated decided by objects {
        page: "does-the-service-have-any-endpointslices",
        needs: [ServiceExists],
        yes: [
            EndpointsReady = "the Service has ready endpoints.",
            OnlyTerminatingEndpoints = "every endpoint is terminating but still serves.",
        ],
        unknown: [],
        no: [
            SelectorMatchesNoPods = "the selector matches no Pod.",
            ScaledToZero = "the workload that the selector matches is scaled to zero.",
            NoSelectorAndNoEndpoints = "the Service has no selector and no EndpointSlice was made by hand.",
            EndpointSlicesStale = "Pods have been ready for a while but the EndpointSlices do not hold them.",
            NoReadyEndpoints = "there are endpoints but none is ready.",
            PortHasNoEndpoints = "a port of the Service has no endpoint, though other ports may.",
            NoLocalEndpoints = "a Local traffic policy shuts out client Pods whose node has no endpoint.",
        ],
    }

    /// Do the NetworkPolicies let the clients get to the target Pods and to DNS?
    NetworkPolicyAllows decided by objects {
        page: "any-network-policy-ingress-rules-affecting-the-target-pods",
        needs: [ServiceExists],
        yes: [
            NoPolicySelects = "no NetworkPolicy selects the Pods involved.",
            Allowed = "NetworkPolicies select the Pods and admit the clients.",
            DeniedButNotEnforced = "NetworkPolicies deny the clients but the traffic passes.",
        ],
        unknown: [
            OtherPoliciesApply = "the cluster serves other kinds of policies, which may admit what NetworkPolicies deny.",
        ],
        no: [
            IngressDenied = "NetworkPolicies on the target Pods do not admit the clients.",
            EgressDenied = "NetworkPolicies on the clients do not let them out to the Service's Pods.",
            EgressToDNSDenied = "NetworkPolicies on the clients do not let them out to cluster DNS.",
        ],
    }

    /// Do the Pods answer when the Service is bypassed?
    EndpointsReachable decided by agents {
        page: "are-the-pods-working",
        needs: [EndpointsPopulated],
        yes: [
            AllEndpointsAnswer = "every endpoint answered; over UDP none refused.",
        ],
        unknown: [
            InterceptedByMesh,
        ],
        no: [
            NotListening = "no process in the Pods listens on the target port.",
            ListensOnLoopbackOnly = "the Pods listen on a loopback address only.",
            WrongFamilyListening = "the Pods listen, but not in the IP family of the Service.",
            IPForwardingDisabled, ForwardChainDrops, ConntrackTableFull, ReversePathFiltering,
            CrossNodeUnreachable = "endpoints answer on their own node only.",
            ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
            SomeEndpointsFailing = "some of the endpoints do not answer.",
        ],
    }

    /// Is kube-proxy running on the nodes that were probed?
    KubeProxyHealthy decided by agents {
        page: "is-kube-proxy-running",
        needs: [],
        yes: [
            Running = "kube-proxy runs on every node that was looked at.",
        ],
        unknown: [
            ProxyReplaced = "another product does kube-proxy's work in this cluster.",
            HandledByAnotherProxy,
        ],
        no: [
            NotRunning = "no kube-proxy runs on a node.",
            NotLive = "kube-proxy of a node does not answer its liveness check.",
            ConntrackMissing = "the conntrack program that this old kube-proxy needs is missing.",
            NotSyncing = "kube-proxy of a node applies nothing new.",
            APIServerUnreachable = "kube-proxy of a node cannot reach the API server.",
            APIAccessDenied = "kube-proxy of a node may not read what it has to watch (403).",
        ],
    }

    /// Is kube-proxy writing the rules of this Service?
    ProxyRulesPresent decided by agents {
        page: "is-the-kube-proxy-working",
        needs: [ServiceExists],
        yes: [
            RulesMatchEndpoints = "the rules of the nodes are what the EndpointSlices ask for.",
        ],
        unknown: [
            HandledByAnotherProxy,
        ],
        no: [
            ConflictingBackends = "both iptables backends hold rules for the Service.",
            ConflictingModes = "leftovers of another proxy mode hold the Service's addresses.",
            RulesMissing = "rules of the Service are missing.",
            EndpointMissingFromRules = "the rules lack an endpoint.",
            EndpointsDrained = "the rules hold the endpoints but send nothing to them (ipvs weight 0).",
            StaleEndpointInRules = "the rules still hold an endpoint that is gone.",
            NodeNameMismatch = "kube-proxy runs under another name than its Node, so that it takes local endpoints for remote ones.",
            NodePortInUse = "another process of the node holds the node port.",
            NodePortRulesMissing = "the rules of the node port are missing.",
        ],
    }

    /// Is kube-proxy proxying, tried from the nodes?
    ProxyForwards decided by agents {
        page: "is-kube-proxy-proxying",
        needs: [EndpointsPopulated],
        yes: [
            Forwards = "the Service's addresses answer from the nodes; over UDP they do not refuse.",
        ],
        unknown: [],
        no: [
            StaleConntrackEntry = "a connection tracking entry sends UDP packets to a Pod that is gone.",
            IPForwardingDisabled, ForwardChainDrops, ConntrackTableFull, ReversePathFiltering, ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
        ],
    }

    /// Does the Service work by IP, tried from client Pods?
    ServiceReachable decided by agents {
        page: "does-the-service-work-by-ip",
        needs: [EndpointsPopulated],
        yes: [
            Reachable = "the Service's addresses answer from client Pods; over UDP they do not refuse.",
        ],
        unknown: [
            NoClientPods, ClientNamespaceNotGranted, InterceptedByMesh,
        ],
        no: [
            BridgeNetfilterDisabled = "bridged packets skip kube-proxy's rules (sysctl bridge-nf-call-iptables).",
            IPForwardingDisabled, ForwardChainDrops, ConntrackTableFull, ReversePathFiltering, ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
            PartiallyReachable = "some of the endpoints do not answer through the Service's address.",
        ],
    }

    /// Does the Service work by DNS name, tried from client Pods?
    DNSResolves decided by agents {
        page: "does-the-service-work-by-dns-name",
        needs: [ServiceExists],
        yes: [
            Resolves = "the client Pods resolve the Service's names.",
        ],
        unknown: [
            NoClientPods, ClientNamespaceNotGranted,
        ],
        no: [
            ClusterDNSNotReady = "cluster DNS has Pods and none of them is ready.",
            ClusterDNSFailing = "cluster DNS answers, but with SERVFAIL or REFUSED.",
            ClusterDomainMismatch = "cluster DNS serves another domain than the one the clients search in.",
            ClusterDNSUnreachable = "cluster DNS does not answer; kubernetes.default cannot be resolved either.",
            NameserverNotClusterDNS = "the clients ask a name server that does not know the cluster.",
            ExternalNameNotFound = "the name that the Service is an alias of does not exist.",
            NameNotFound = "cluster DNS does not know the Service's name.",
            SearchPathMissing = "the clients' search list lacks the suffix of the namespace.",
            NdotsTooLow = "ndots is too low for the clients' resolver.",
            OnlyQualifiedNameResolves = "clients of another namespace use the short name.",
            OnlyFullyQualifiedNameResolves = "only the fully qualified name resolves.",
            WrongAddress = "the name resolves to an address that is not the Service's.",
            SomeDNSServersFailing = "some of the DNS servers do not answer.",
        ],
    }

    /// Can a Pod reach itself through the Service?
    HairpinOK decided by agents {
        page: "a-pod-fails-to-reach-itself-via-the-service-ip",
        needs: [EndpointsReachable, ProxyRulesPresent],
        yes: [
            HairpinWorks = "a Pod reached itself through the Service.",
            HairpinConfigured = "bridge port and masquerade rule are right; the probe could not pin the connection.",
        ],
        unknown: [],
        no: [
            HairpinModeDisabled = "the bridge port of the Pod does not send packets back.",
            BridgeNotPromiscuous = "the bridge does not take the packets that Pods send to themselves, in the kubelet's promiscuous-bridge mode.",
            MasqueradeMissing = "the Pod's traffic to itself is not masqueraded.",
            HairpinRefused = "the connection of the Pod to itself is refused.",
            HairpinTimedOut = "the connection of the Pod to itself times out.",
        ],
    }

    summaries {
        /// Does the Service work? True when every stage is True or needs no answer.
        Ready,
        /// Is the verdict still being worked out? True is not bad. Read by kstatus (Flux).
        Reconciling,
        /// Has Ready been False for longer than stalledAfterSeconds? True is bad. Read by kstatus (Flux).
        Stalled,
    }

    reasons {
        /// EndpointsReachable or ServiceReachable is Unknown: a service mesh intercepts the connections.
        InterceptedByMesh,
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
        /// KubeProxyHealthy or ProxyRulesPresent is Unknown: the Service is labelled for another proxy.
        HandledByAnotherProxy,
        /// A stage that needs client Pods is Unknown: there is none to try from or to judge by.
        NoClientPods,
        /// A stage that needs client Pods is Unknown: the clients' Namespace does not lend its Pods to this one.
        ClientNamespaceNotGranted,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_needs_what_stands_before_it() {
        for (i, stage) in STAGES.iter().enumerate() {
            let before: Vec<ConditionType> = STAGES[..i].iter().map(|s| s.condition).collect();
            assert!(
                stage.needs.iter().all(|need| before.contains(need)),
                "{}",
                stage.condition
            );
        }
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
