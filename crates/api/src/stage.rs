//! The decision tree as one table: the stages in causal order, each with its question, what it needs, its
//! reasons, and the section of the "Debug Services" page that asks its question.
//!
//! Everything that depends on the tree is made of this table or checked against it: the types of conditions and
//! the reasons of the API, the CRD, the engine's choice of what it asks and blames, the root cause's link, and
//! the table in docs/conditions.md and the pages of docs/reasons.

use super::macros::{is_objects, stages, string_enum};

/// A stage of the decision tree.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its condition.
    pub condition: ConditionType,
    /// Whether API objects decide it; the other stages need probes of the data path.
    pub is_decided_by_objects: bool,
    /// Stages that must pass before this one means anything.
    pub needs: &'static [ConditionType],
    /// Reasons for True.
    pub successes: &'static [Reason],
    /// Reasons for Unknown, except those that any stage can have.
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
            ServiceNotFound = "the namespace has no Service of that name.",
        ],
    }

    /// Is the Service defined correctly?
    DefinitionValid decided by objects {
        page: "is-the-service-defined-correctly",
        needs: [ServiceExists],
        yes: [
            Valid = "nothing in the definition contradicts itself or the Pods.",
            ValidWithHints = "nothing is wrong, but the message names something unusual.",
        ],
        unknown: [],
        no: [
            PortNotListed = "clients use a port that the Service does not list.",
            NumericTargetPortName = "targetPort is a number written as a string, which names a port.",
            NamedPortNotFound = "targetPort names a port that no selected Pod has.",
            NamedPortMissingOnSomePods = "only some Pods of one revision have the port that targetPort names.",
            ProtocolMismatch = "the Pods listen on another protocol than that of the Service's port.",
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
            RestartingOften = "Pods are ready, but their containers restart often.",
        ],
        unknown: [
            PodsStarting = "no Pod is ready yet, and their startup deadlines have not passed.",
        ],
        no: [
            NodeNotReady = "no Pod is ready and the nodes that they run on are not Ready.",
            PodsUnschedulable = "no Pod could be scheduled to a node.",
            PodsStuckTerminating = "the only Pods left are stuck in deletion.",
            ImagePullFailed = "no Pod is ready and an image cannot be pulled.",
            InitContainerFailing = "no Pod is ready and an init container fails or does not complete.",
            CrashLooping = "no Pod is ready and containers keep restarting.",
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
            EndpointSlicesStale = "Pods have been ready for a while but are not in the EndpointSlices.",
            NoReadyEndpoints = "there are endpoints, but none is ready.",
            PortHasNoEndpoints = "a port of the Service has no endpoint, though other ports may.",
            NoLocalEndpoints = "the traffic policy is Local, and nodes of client Pods have no endpoint.",
        ],
    }

    /// Do the NetworkPolicies let the clients get to the target Pods and to DNS?
    NetworkPolicyAllows decided by objects {
        page: "any-network-policy-ingress-rules-affecting-the-target-pods",
        needs: [ServiceExists],
        yes: [
            NoPolicySelects = "no NetworkPolicy selects the Pods involved.",
            Allowed = "NetworkPolicies select the Pods and admit the clients.",
            DeniedButNotEnforced = "NetworkPolicies deny the clients, but the traffic passes.",
        ],
        unknown: [
            OtherPoliciesApply = "the cluster serves other kinds of policies, which may admit what NetworkPolicies deny.",
        ],
        no: [
            IngressDenied = "NetworkPolicies on the target Pods do not admit the clients.",
            EgressDenied = "NetworkPolicies on the clients do not allow egress to the Service's Pods.",
            EgressToDNSDenied = "NetworkPolicies on the clients do not allow egress to cluster DNS.",
        ],
    }

    /// Do the Pods answer when the Service is bypassed?
    EndpointsReachable decided by agents {
        page: "are-the-pods-working",
        needs: [EndpointsPopulated],
        yes: [
            AllEndpointsAnswer = "every endpoint answered; over UDP, none refused.",
        ],
        unknown: [
            InterceptedByMesh,
        ],
        no: [
            NotListening = "no process in the Pods listens on the target port.",
            ListensOnLoopbackOnly = "the Pods listen on a loopback address only.",
            WrongFamilyListening = "the Pods listen, but not in the IP family of the Service.",
            AcceptQueueFull = "the application does not accept connections, and the queue where they wait is full.",
            IPForwardingDisabled, FirewallDrops, FirewallRejects, ConntrackTableFull, ReversePathFiltering,
            LostBetweenNodes = "packets left one node and did not arrive at the other: the client's node and the endpoint's saw it.",
            CrossNodeUnreachable = "endpoints answer on their own node only.",
            PathMTUTooSmall = "between nodes small packets arrive and large ones are lost.",
            ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
            SomeEndpointsFailing = "some endpoints do not answer.",
        ],
    }

    /// Is kube-proxy running on the nodes that were probed?
    KubeProxyHealthy decided by agents {
        page: "is-kube-proxy-running",
        needs: [],
        yes: [
            Running = "kube-proxy runs on every node that was checked.",
        ],
        unknown: [
            ProxyReplaced = "another product replaces kube-proxy in this cluster.",
            HandledByAnotherProxy,
        ],
        no: [
            NotRunning = "kube-proxy is not running on a node.",
            NotLive = "kube-proxy on a node fails its liveness check.",
            ConntrackMissing = "the conntrack program that this old kube-proxy needs is missing.",
            NotSyncing = "kube-proxy on a node is not writing its rules although changes are pending.",
            APIServerUnreachable = "kube-proxy on a node cannot reach the API server.",
            APIAccessDenied = "the API server does not allow kube-proxy on a node to list what it watches (403).",
        ],
    }

    /// Is kube-proxy writing the rules of this Service?
    ProxyRulesPresent decided by agents {
        page: "is-the-kube-proxy-working",
        needs: [ServiceExists],
        yes: [
            RulesMatchEndpoints = "the rules on the nodes match the EndpointSlices.",
        ],
        unknown: [
            HandledByAnotherProxy,
        ],
        no: [
            ConflictingBackends = "both iptables backends hold rules for the Service.",
            ConflictingModes = "old rules of another proxy mode still match the Service's addresses.",
            RulesMissing = "rules for the Service are missing.",
            EndpointMissingFromRules = "a ready endpoint is missing from the rules.",
            EndpointsDrained = "the rules hold the endpoints, but with weight 0 (ipvs), so they get no new connections.",
            StaleEndpointInRules = "the rules still hold an endpoint that is gone.",
            NodeNameMismatch = "kube-proxy runs under another name than its Node, so it treats local endpoints as remote.",
            NodePortInUse = "another process on the node uses the node port.",
            NodePortRulesMissing = "the rules for the node port are missing.",
        ],
    }

    /// Is kube-proxy proxying, tried from the nodes?
    ProxyForwards decided by agents {
        page: "is-kube-proxy-proxying",
        needs: [EndpointsPopulated],
        yes: [
            Forwards = "the Service's addresses answer the nodes; over UDP, they do not refuse.",
        ],
        unknown: [],
        no: [
            StaleConntrackEntry = "a conntrack entry sends UDP packets to a Pod that is gone.",
            IPForwardingDisabled, FirewallDrops, FirewallRejects, ConntrackTableFull, ReversePathFiltering, ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
        ],
    }

    /// Does the Service work by IP, tried from client Pods?
    ServiceReachable decided by agents {
        page: "does-the-service-work-by-ip",
        needs: [EndpointsPopulated],
        yes: [
            Reachable = "the Service's addresses answer client Pods; over UDP, they do not refuse.",
        ],
        unknown: [
            NoClientPods, ClientNamespaceNotGranted, InterceptedByMesh,
        ],
        no: [
            BridgeNetfilterDisabled = "bridged packets bypass kube-proxy's rules (sysctl bridge-nf-call-iptables).",
            IPForwardingDisabled, FirewallDrops, FirewallRejects, ConntrackTableFull, ReversePathFiltering, ConnectionRefused, NoRouteToHost, TimedOut, UnexpectedResponse,
            PartiallyReachable = "some endpoints do not answer through the Service's address.",
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
            ClusterDNSNotReady = "cluster DNS has Pods, but none of them is ready.",
            ClusterDNSFailing = "cluster DNS answers, but with SERVFAIL or REFUSED.",
            ClusterDomainMismatch = "cluster DNS serves another domain than the one the clients search in.",
            ClusterDNSUnreachable = "cluster DNS does not answer; kubernetes.default cannot be resolved either.",
            NameserverNotClusterDNS = "the clients use a name server that does not know the cluster's names.",
            ExternalNameNotFound = "the name that the Service is an alias for does not resolve.",
            NameNotFound = "cluster DNS does not know the Service's name.",
            SearchPathMissing = "the clients' search list lacks the suffix of the namespace.",
            NdotsTooLow = "ndots is too low for the clients' resolver.",
            OnlyQualifiedNameResolves = "clients in another namespace use the short name.",
            OnlyFullyQualifiedNameResolves = "only the fully qualified name resolves.",
            WrongAddress = "the name resolves to an address that is not the Service's.",
            SomeDNSServersFailing = "some DNS servers do not answer.",
        ],
    }

    /// Can a Pod reach itself through the Service?
    HairpinOK decided by agents {
        page: "a-pod-fails-to-reach-itself-via-the-service-ip",
        needs: [EndpointsReachable, ProxyRulesPresent],
        yes: [
            HairpinWorks = "a Pod reached itself through the Service.",
            HairpinConfigured = "the bridge port and the masquerading rule are correct; no probe could be tied to a Pod's connection to itself.",
        ],
        unknown: [],
        no: [
            HairpinModeDisabled = "the bridge port of the Pod does not send packets back.",
            BridgeNotPromiscuous = "the bridge drops packets that Pods send to themselves: it needs promiscuous mode (the kubelet's promiscuous-bridge).",
            MasqueradeMissing = "the Pod's traffic to itself is not masqueraded.",
            HairpinRefused = "a Pod's connection to itself is refused.",
            HairpinTimedOut = "a Pod's connection to itself times out.",
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
        /// A data-path stage is False: a firewall, on a node or in a Pod, drops the packets.
        FirewallDrops,
        /// A data-path stage is False: a firewall, or a route, rejects the packets as administratively prohibited (ICMP).
        FirewallRejects,
        /// A data-path stage is False: the conntrack table of a node is full.
        ConntrackTableFull,
        /// A data-path stage is False: reverse path filtering of a node drops the packets.
        ReversePathFiltering,
        /// A data-path stage is False: connections are refused.
        ConnectionRefused,
        /// A data-path stage is False: there is no route to the address.
        NoRouteToHost,
        /// A data-path stage is False: connections time out.
        TimedOut,
        /// A data-path stage is False: the HTTP status of the answer was not an expected one.
        UnexpectedResponse,
        /// KubeProxyHealthy or ProxyRulesPresent is Unknown: the Service is labelled for another proxy.
        HandledByAnotherProxy,
        /// A stage that needs client Pods is Unknown: there is no client Pod to probe from.
        NoClientPods,
        /// A stage that needs client Pods is Unknown: the clients' Namespace does not allow diagnoses in this one to use its Pods.
        ClientNamespaceNotGranted,
        /// Ready is True: every stage is True or needs no answer.
        ServiceWorks,
        /// Ready is True: the Service works from the nodes; there was no client Pod to probe from.
        WorksFromNodes,
        /// Ready is True: nothing is wrong with the API objects, and spec.dataPath asks for no more.
        DefinitionWorks,
        /// Unknown: the diagnosis is suspended.
        Suspended,
        /// Unknown: the first full round has not finished.
        Pending,
        /// Unknown: an earlier stage, named in the message, must pass first.
        Blocked,
        /// Unknown: the question does not arise for this Service.
        NotApplicable,
        /// Unknown: no node agent could observe it.
        NoVantagePoint,
        /// Unknown: the node agents have stopped reporting.
        AgentNotResponding,
        /// Unknown: something could not be read or probed.
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
