//! The kind between controller and node agent: what to probe on one node, and what was observed there.
//!
//! NodeProbe is to the agent what Pod is to the kubelet. It carries facts, never verdicts.

#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its visibility, to where nobody reaches it"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    NodeFacts, PortRef, Probe, ProbeArrivals, ProbeDns, ProbeNode, ProbeOtherNode, ProbePath, ProbeService,
    ProbeSubset, SliceVersion, bounds,
};

/// What the agent of one node probes for one diagnosis.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "svcdiag.dev",
    version = "v1alpha1",
    kind = "NodeProbe",
    plural = "nodeprobes",
    shortname = "nprobe",
    namespaced,
    status = "NodeProbeStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    doc = "NodeProbe asks the agent of one node to probe a Service, and holds the facts that the agent reports. The svcdiag controller writes it; a ServiceDiagnosis owns it.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Diagnosis", type_ = "string", json_path = ".spec.diagnosis.name"),
    printcolumn(name = "Observed", type_ = "date", json_path = ".status.observedTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeProbeSpec {
    /// Node whose agent carries out the probe. Immutable.
    #[schemars(schema_with = "bounds::node_name")]
    pub node_name: String,

    /// The ServiceDiagnosis this probe serves.
    pub diagnosis: DiagnosisRef,

    /// The Service, in the same namespace.
    #[schemars(schema_with = "bounds::service_name")]
    pub service_name: String,

    /// Numbers or names of the Service ports to probe. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ports")]
    pub ports: Vec<PortRef>,

    /// Pause between rounds, in seconds.
    #[schemars(range(min = 10, max = 86400))]
    pub interval_seconds: u32,

    /// How single probes are made.
    #[serde(default)]
    pub probe: Probe,

    /// Domain of the cluster's DNS names as clients have it. Default: taken from their resolv.conf, or else cluster.local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::cluster_domain")]
    pub cluster_domain: Option<String>,

    /// Cluster DNS. Default: the cluster has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_dns: Option<ProbeDns>,

    /// This node.
    #[serde(default)]
    pub node: ProbeNode,

    /// The Service. This is all that the agent knows of it.
    #[serde(default)]
    pub service: ProbeService,

    /// The Service's endpoints that receive traffic. The agent dials no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub subsets: Vec<ProbeSubset>,

    /// The EndpointSlices that the subsets were made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub slices: Vec<SliceVersion>,

    /// Whether the Service and its endpoints may be dialled from the node's own network namespace. They may
    /// not if an endpoint's address does not belong to its running Pod, because a node can reach more than a Pod.
    #[serde(default)]
    pub from_node: bool,

    /// Other nodes whose node ports of the Service are dialled from this one, to connect only. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub other_nodes: Vec<ProbeOtherNode>,

    /// Paths to other nodes on which packets of full size are tried. Neither end is isolated by a policy. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub full_size_paths: Vec<ProbePath>,

    /// Dials of clients on other nodes to watch here. No part of the question: answers to it stay. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<ProbeArrivals>,

    /// Changes when failed dials are to be repeated at once, since other nodes watch what arrives: the ids of their
    /// watches, with commas between them. No part of the question either.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 132))]
    pub repeat: String,

    /// Client Pods on this node. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub clients: Vec<ProbePod>,

    /// Pods on this node that are endpoints of the Service. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub endpoints: Vec<ProbePod>,

    /// Changes when the agent should start a new round at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub revision: String,
}

/// A ServiceDiagnosis in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosisRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What an agent needs to know about a Pod, so that it needs no permission to read Pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbePod {
    /// Name of the Pod.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Pod.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// UID of the Pod, or for a static Pod the hash of its manifest; its processes are found by it.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Addresses of the Pod.
    #[serde(default, rename = "ips")]
    #[schemars(schema_with = "bounds::ips")]
    pub ips: Vec<String>,
    /// Whether the Pod uses the network namespace of its node. Default: false.
    #[serde(default)]
    pub host_network: bool,
    /// Whether the Pod is not ready but may still be published as an endpoint. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_ready: bool,
    /// Runtime class of the Pod, for example one that runs it in a virtual machine. Default: the default runtime of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class: Option<String>,
}

/// What the agent reports.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeProbeStatus {
    /// metadata.generation that the facts are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Digest of the question that the facts answer: the spec without what is no part of it. They stand for as long as
    /// that does not change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub observed_question: String,
    /// When the facts last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<Time>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub agent_version: Option<String>,
    /// The facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<NodeFacts>,
}
