//! Everything a verdict can depend on, as one value.
//!
//! Facts are gathered by the controller from its watches, by `svcdiag check` from the API and by
//! a bundle from files. They can be written to a file and read back without a change of verdict.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    saved::{Saved, SavedObjects},
    time::later,
};
use svcdiag_api::{NodeFacts, NodeProbeSpec, ServiceDiagnosisSpec, ServiceDiagnosisStatus};
use svcdiag_objects::{
    Deployment, EndpointSlice, Event, Labels, Namespace, NetworkPolicy, Node, Object, Pod, ReplicaSet,
    Service, StatefulSet, matches_labels,
};

/// Everything a verdict can depend on. The order of the lists means nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The present time.
    pub now: Timestamp,
    /// Namespace of the diagnosis, and so of the Service.
    pub namespace: String,
    /// What the user asked.
    pub spec: ServiceDiagnosisSpec,
    /// Since when Ready has been False, by the status that the last verdict left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_since: Option<Timestamp>,
    /// The status that the last verdict left, if it was on what the user asks now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<ServiceDiagnosisStatus>>,
    /// Whether the agents' answers, or those that are waited for, differ from what is asked now in nothing but the
    /// endpoints.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_endpoints_differ: bool,
    /// Whether agents would be asked, and may not be: other diagnoses of the namespace have all NodeProbes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub are_probes_withheld: bool,
    /// Whether it is known that the cluster has no agents. That none is known may have other causes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_no_agents: bool,
    /// Since when agents have not answered what they are to be asked, be it that every answer comes too late for that;
    /// unless they have answered an earlier question well meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_since: Option<Timestamp>,

    /// The Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<Service>>,
    /// The other Services of the namespace, where the Service is not there or selects no Pod.
    #[serde(default)]
    pub other_services: Vec<OtherService>,
    /// Other Namespaces with Pods that the selector would match, where it matches none in its own.
    #[serde(default)]
    pub selected_elsewhere: Vec<String>,
    /// Services whose own address is an endpoint of this one.
    #[serde(default)]
    pub chained_services: Vec<ChainedService>,
    /// Other Namespaces that have a Service of the same name.
    #[serde(default)]
    pub namesakes: Vec<String>,
    /// What only saved objects tell of it.
    #[serde(default)]
    pub saved_objects: SavedObjects,
    /// EndpointSlices of the Service.
    #[serde(default)]
    pub slices: Vec<Arc<EndpointSlice>>,
    /// When slices of the Service were last seen to be gone, if that was lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices_gone_at: Option<Timestamp>,
    /// Endpoints of hand-made slices that are cluster IPs of Services: the address, and the Service as
    /// namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints_of_services: Vec<(String, String)>,
    /// All Pods of the namespace.
    #[serde(default)]
    pub pods: Vec<Arc<Pod>>,
    /// Deployments of the namespace.
    #[serde(default)]
    pub deployments: Vec<Arc<Deployment>>,
    /// ReplicaSets of the namespace.
    #[serde(default)]
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// StatefulSets of the namespace.
    #[serde(default)]
    pub stateful_sets: Vec<Arc<StatefulSet>>,
    /// The Namespace of the clients, where spec.clients.namespace names another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_namespace: Option<ClientNamespace>,
    /// NetworkPolicies of the namespace and of the clients' Namespace.
    #[serde(default)]
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// Those Namespaces, and that of cluster DNS.
    #[serde(default)]
    pub namespaces: Vec<Arc<Namespace>>,
    /// Cluster DNS, where the cluster runs its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_dns: Option<ClusterDns>,
    /// The Nodes of the cluster, as far as they may be read.
    #[serde(default)]
    pub cluster_nodes: Vec<Arc<Node>>,
    /// Warning Events about Pods of the namespace.
    #[serde(default)]
    pub events: Vec<Arc<Event>>,
    /// Addresses of endpoints that are addresses of Services, of any namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_addresses: Vec<String>,
    /// Kinds of policies beyond NetworkPolicy that the cluster serves, for example CiliumNetworkPolicy.
    #[serde(default)]
    pub other_policy_kinds: Vec<String>,
    /// What could not be read, as the right that is missing: "list pods in namespace kube-system".
    #[serde(default)]
    pub unreadable: Vec<Unreadable>,
    /// Nodes with an agent, and what it reported.
    #[serde(default)]
    pub nodes: Vec<NodeReport>,
    /// Changes when the user wants the agents to look again at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refresh: String,
}

/// Another Service of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherService {
    /// Its name.
    pub name: String,
    /// The Pods that it selects.
    #[serde(default)]
    pub selector: Labels,
}

/// A Service whose own address is an endpoint of the judged one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainedService {
    /// The address.
    pub address: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
}

/// A node with an agent. There may be a thousand, and few of them were asked: what was is boxed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Name of the node.
    pub name: Arc<str>,
    /// Its labels, by which a diagnosis chooses nodes.
    #[serde(default)]
    pub labels: Arc<Labels>,
    /// Until when the agent counts as alive without another sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive_until: Option<Timestamp>,
    /// What it was asked for this diagnosis, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<ProbeReport>>,
    /// What only saved files tell of it; then there is no agent, and the probe was made of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Box<Saved>>,
}

/// What an agent was asked and what it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// What it was asked.
    pub asked: NodeProbeSpec,
    /// Whether the answer is to the present question, not to an earlier one.
    #[serde(default)]
    pub is_current: bool,
    /// Digest of the question that the answer is to, by which it stands where only second looks are asked for; empty of
    /// agents that give none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// Since when it has owed an answer, be it that questions came one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed_since: Option<Timestamp>,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Arc<NodeFacts>>,
}

/// A Namespace that lends its Pods as clients, or does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientNamespace {
    /// Its name.
    pub name: String,
    /// Whether its annotation svcdiag.dev/clients-for names the diagnosis' namespace.
    pub granted: bool,
    /// Its Pods; empty unless granted.
    #[serde(default)]
    pub pods: Vec<Arc<Pod>>,
}

/// The cluster's own DNS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterDns {
    /// Its Service.
    pub service: Arc<Service>,
    /// The Pods that the Service selects.
    #[serde(default)]
    pub pods: Vec<Arc<Pod>>,
    /// Pods of NodeLocal DNSCache, which answer the Pods of their node in its stead.
    #[serde(default)]
    pub caches: Vec<Arc<Pod>>,
    /// NetworkPolicies of its namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// The ConfigMap of its Corefile, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// The domain of the cluster's names by its own configuration (a Corefile), where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// Plural of the resource, for example networkpolicies.
    pub resource: String,
    /// The right that is missing, or what else went wrong.
    pub why: String,
}

/// Whether nothing that an agent tried has failed, and no rule is missing.
pub(crate) fn is_well(seen: &NodeFacts) -> bool {
    seen.probes_failed == 0 && seen.rules.as_ref().is_none_or(|rules| rules.gaps.is_empty())
}

impl NodeReport {
    /// Whether the agent counts as alive.
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        self.alive_until.is_some_and(|until| until > now)
    }
}

/// The item of a name. The order of lists means nothing, but the inventory has its thousands of nodes by name.
fn named<'a, T>(items: &'a [T], name: &str, name_of: impl Fn(&T) -> &str) -> Option<&'a T> {
    match items.binary_search_by(|item| name_of(item).cmp(name)) {
        Ok(at) => items.get(at),
        Err(_) => items.iter().find(|item| name_of(item) == name),
    }
}

impl Facts {
    /// Facts about a Service of which nothing is known yet.
    #[must_use]
    pub fn new(now: Timestamp, namespace: impl Into<String>, spec: ServiceDiagnosisSpec) -> Self {
        Self {
            now,
            namespace: namespace.into(),
            spec,
            not_ready_since: None,
            previous: None,
            only_endpoints_differ: false,
            are_probes_withheld: false,
            has_no_agents: false,
            unanswered_since: None,
            service: None,
            other_services: Vec::new(),
            selected_elsewhere: Vec::new(),
            chained_services: Vec::new(),
            namesakes: Vec::new(),
            saved_objects: SavedObjects::default(),
            slices: Vec::new(),
            slices_gone_at: None,
            endpoints_of_services: Vec::new(),
            pods: Vec::new(),
            deployments: Vec::new(),
            replica_sets: Vec::new(),
            stateful_sets: Vec::new(),
            client_namespace: None,
            policies: Vec::new(),
            namespaces: Vec::new(),
            cluster_dns: None,
            cluster_nodes: Vec::new(),
            events: Vec::new(),
            service_addresses: Vec::new(),
            other_policy_kinds: Vec::new(),
            unreadable: Vec::new(),
            nodes: Vec::new(),
            refresh: String::new(),
        }
    }

    /// When the endpoints will have been unchanged for so long; None where no EndpointSlice says when it changed.
    #[must_use]
    pub fn endpoints_settle_at(&self, within: SignedDuration) -> Option<Timestamp> {
        let changed = self.slices.iter().filter_map(|s| s.changed_at()).max()?;
        // The API server's clock may be ahead of ours.
        Some(later(changed.min(self.now), within))
    }

    /// The Node of a name.
    pub(crate) fn cluster_node(&self, name: &str) -> Option<&Node> {
        named(&self.cluster_nodes, name, |node| node.name()).map(AsRef::as_ref)
    }

    /// What the agent of a node was asked and answered.
    pub(crate) fn report_of(&self, node: &str) -> Option<&NodeReport> {
        named(&self.nodes, node, |report| &report.name)
    }

    /// Whether an agent has yet to answer what it is asked.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        let mut asked = self.nodes.iter().filter_map(|n| n.probe.as_ref());
        asked.any(|probe| !probe.is_current)
    }

    /// Whether all agents have answered what they were asked, and nothing failed.
    #[must_use]
    pub fn is_answered_well(&self) -> bool {
        let mut asked = self.nodes.iter().filter_map(|n| n.probe.as_ref());
        asked.all(|probe| probe.is_current && probe.facts.as_deref().is_some_and(is_well))
    }

    /// The Pods that the Service's selector matches and that have not ended, by name.
    #[must_use]
    pub fn selected_pods(&self) -> Vec<&Pod> {
        let Some(service) = self.service.as_deref().filter(|s| s.has_selector()) else {
            return Vec::new();
        };
        let mut pods: Vec<&Pod> = self
            .pods
            .iter()
            .map(Arc::as_ref)
            .filter(|p| matches_labels(&service.spec.selector, p.labels()) && !p.has_ended())
            .collect();
        pods.sort_by(|a, b| a.name().cmp(b.name()));
        pods
    }

    /// Why a resource could not be read, if so.
    #[must_use]
    pub fn why_unreadable(&self, resource: &str) -> Option<&str> {
        self.unreadable
            .iter()
            .filter(|u| u.resource == resource)
            .map(|u| u.why.as_str())
            .min()
    }
}
