//! Node and Namespace.

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{Object, null_is_default};

/// A Node.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Node")]
pub struct Node {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NodeSpec,
    /// What there is.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: NodeStatus,
}

/// NodeSpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// Ranges that the Pods of the node get their addresses from, where the cluster assigns them.
    #[serde(
        rename = "podCIDRs",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pod_cidrs: Vec<String>,
    /// The first of them, where only that is written.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
}

/// NodeStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Conditions of the node.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodeCondition>,
    /// Addresses of the node.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<NodeAddress>,
    /// Versions of its programs.
    #[serde(
        rename = "nodeInfo",
        deserialize_with = "null_is_default",
        skip_serializing_if = "NodeInfo::is_empty"
    )]
    pub node_info: NodeInfo,
}

/// Versions of a node's programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeInfo {
    /// Version of the kubelet.
    pub kubelet_version: String,
}

impl NodeInfo {
    fn is_empty(&self) -> bool {
        self.kubelet_version.is_empty()
    }
}

/// A condition of a node. Its heartbeat is left out: it changes without anything having changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeCondition {
    /// Ready, MemoryPressure, ...
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, for programs.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname, ...
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

impl Node {
    /// Label that names the zone a node is in.
    const ZONE_LABEL: &'static str = "topology.kubernetes.io/zone";

    /// The node's Ready condition, which the node controller sets to Unknown when the kubelet is silent.
    #[must_use]
    pub fn ready(&self) -> Option<&NodeCondition> {
        self.status.conditions.iter().find(|c| c.type_ == "Ready")
    }

    /// The zone that the node is in.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.labels().get(Self::ZONE_LABEL).map(String::as_str)
    }

    /// All its addresses.
    #[must_use]
    pub fn ips(&self) -> Vec<std::net::IpAddr> {
        let addresses = self.status.addresses.iter();
        addresses.filter_map(|a| a.address.parse().ok()).collect()
    }

    /// Its version of Kubernetes as images are tagged with it: `v1.36.2`, also where a distribution adds to it.
    #[must_use]
    pub fn kubernetes_version(&self) -> Option<&str> {
        let version = self.status.node_info.kubelet_version.as_str();
        let end = version.find(['+', '-']).unwrap_or(version.len());
        let tag = version.get(..end)?;
        let mut numbers = tag.strip_prefix('v')?.split('.');
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (numbers.clone().count() == 3 && numbers.all(is_number)).then_some(tag)
    }

    /// The ranges that the Pods of the node get their addresses from, where the cluster assigns them.
    #[must_use]
    pub fn pod_ranges(&self) -> Vec<ipnet::IpNet> {
        let all = self.spec.pod_cidrs.iter().chain(&self.spec.pod_cidr);
        all.filter_map(|range| range.parse().ok()).collect()
    }

    /// The addresses under which the cluster reaches the node; it serves node ports there.
    #[must_use]
    pub fn internal_ips(&self) -> Vec<std::net::IpAddr> {
        self.status
            .addresses
            .iter()
            .filter(|a| a.type_ == "InternalIP")
            .filter_map(|a| a.address.parse().ok())
            .collect()
    }
}

/// A Namespace.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Namespace")]
pub struct Namespace {
    /// Metadata.
    pub metadata: ObjectMeta,
}

/// Whether the owner of a Namespace lends its Pods as clients to the diagnoses of another one.
#[must_use]
pub fn grants_clients_to(namespace: &Namespace, other: &str) -> bool {
    let granted = namespace
        .annotation(svcdiag_api::CLIENTS_FOR_ANNOTATION)
        .unwrap_or_default();
    granted.split(',').any(|name| name.trim() == other)
}
