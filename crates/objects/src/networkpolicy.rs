//! NetworkPolicy.

use k8s_openapi::{api::networking::v1 as networking, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{IntOrString, LabelSelector, Open, Protocol, null_is_default};

/// A NetworkPolicy.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "networking::NetworkPolicy")]
pub struct NetworkPolicy {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NetworkPolicySpec,
}

/// NetworkPolicySpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Pods of the policy's namespace that it isolates.
    #[serde(deserialize_with = "null_is_default")]
    pub pod_selector: LabelSelector,
    /// What may come in.
    #[serde(deserialize_with = "null_is_default")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(deserialize_with = "null_is_default")]
    pub egress: Vec<EgressRule>,
    /// Ingress, Egress or both. Absent: Ingress, and Egress if there is an egress rule.
    #[serde(deserialize_with = "null_is_default")]
    pub policy_types: Vec<String>,
}

/// Admits what comes from any of `from` (from everywhere when empty) to any of `ports` (all when empty).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Peers.
    #[serde(deserialize_with = "null_is_default")]
    pub from: Vec<Peer>,
    /// Ports of the selected Pod.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<PolicyPort>,
}

/// Admits what goes to any of `to` (to everywhere when empty) on any of `ports` (all when empty).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// Peers.
    #[serde(deserialize_with = "null_is_default")]
    pub to: Vec<Peer>,
    /// Ports of the peer.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<PolicyPort>,
}

/// A peer: Pods by their labels and those of their Namespace, or a block of addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Labels of the Pods; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Labels of their Namespaces; the policy's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; excludes the selectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// The block, for example 10.0.0.0/8.
    pub cidr: String,
    /// Parts of it that are left out.
    #[serde(deserialize_with = "null_is_default")]
    pub except: Vec<String>,
}

/// Ports that a rule admits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: Open<Protocol>,
    /// Number or name; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Last number of a range that begins with `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i32>,
}
