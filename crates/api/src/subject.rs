//! What an agent has to know of a Service, so that it needs no right to read Services and EndpointSlices.
//!
//! It is cut down to what decides about dials and about the rules of the node, and the endpoints are put
//! together by what they have in common, so that a Service with thousands of them still makes a small object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IpFamily, Open, Protocol, bounds};

/// Most addresses of endpoints that a NodeProbe carries: 10,000 are 160 KiB in IPv4 and 400 KiB in IPv6.
pub const MAX_ADDRESSES: usize = 10_000;

/// Most ports, addresses and source ranges of a Service that a NodeProbe carries.
pub const MAX_OF_A_SERVICE: usize = 1_000;

/// Most endpoints of cluster DNS that are asked one by one.
pub const MAX_DNS_ENDPOINTS: usize = 32;

/// A Service, as far as agents need to know it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeService {
    /// Its own addresses; "None" for a headless Service.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::cluster_ips")]
    pub cluster_ips: Vec<String>,
    /// IP families in order: IPv4, IPv6 or both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::families")]
    pub ip_families: Vec<Open<IpFamily>>,
    /// Its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub ports: Vec<ProbeServicePort>,
    /// spec.externalIPs. They are checked in the rules and never dialled.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::many_ips")]
    pub external_ips: Vec<String>,
    /// Addresses of load balancers whose packets the nodes accept. They are checked in the rules and never dialled.
    #[serde(default, rename = "loadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::many_ips")]
    pub load_balancer_ips: Vec<String>,
    /// Source ranges that load balancers admit. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::networks")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Local or Cluster, for traffic from inside the cluster. Default: Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub internal_traffic_policy: Option<String>,
    /// Local or Cluster, for traffic from outside. Default: Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub external_traffic_policy: Option<String>,
    /// ClientIP or None. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub session_affinity: Option<String>,
    /// Target of an ExternalName Service. It is resolved from clients and never dialled.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub external_name: Option<String>,
    /// Whether kube-proxy writes no rules for it: an ExternalName Service, or one that another proxy handles. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_rules: bool,
    /// Whether it has more ports, addresses or endpoints than fit here; the node's rules are then not
    /// compared. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// When the Service or one of its EndpointSlices last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_time: Option<Time>,
}

/// A port of a Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeServicePort {
    /// Name. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub name: String,
    /// TCP, UDP or SCTP.
    #[schemars(with = "String", length(max = 16))]
    pub protocol: Open<Protocol>,
    /// Port on the Service's addresses.
    pub port: i32,
    /// Port on the nodes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// Endpoints of a Service that differ only in their address.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSubset {
    /// Their ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub ports: Vec<ProbeEndpointPort>,
    /// Whether they are on this node. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// Whether they are terminating but still serving. Default: false, they are ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminating: bool,
    /// Whether their hints assign them to this node. Default: no such hints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_node: Option<bool>,
    /// Whether their hints assign them to the zone of this node. Default: no such hints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_zone: Option<bool>,
    /// Their addresses.
    #[schemars(schema_with = "bounds::endpoint_addresses")]
    pub addresses: Vec<String>,
}

/// A port of endpoints.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct ProbeEndpointPort {
    /// Name of the Service port. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub name: String,
    /// TCP, UDP or SCTP.
    #[schemars(with = "String", length(max = 16))]
    pub protocol: Open<Protocol>,
    /// Port on the endpoints.
    pub port: u16,
}

/// Cluster DNS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeDns {
    /// Addresses of its Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ips")]
    pub addresses: Vec<String>,
    /// Its ready Pods, as address and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::dns_endpoints")]
    pub endpoints: Vec<String>,
}

/// The node, as far as its agent needs to know it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeNode {
    /// Addresses by which the cluster reaches it.
    #[serde(default, rename = "ips", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ips")]
    pub ips: Vec<String>,
    /// Its zone. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub zone: Option<String>,
}

/// A path to a Pod on another node, on which the agent tries packets of full size.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbePath {
    /// A client Pod on this node, as namespace/name.
    #[schemars(length(min = 1, max = 317))]
    pub from: String,
    /// Address of an endpoint's Pod.
    #[schemars(length(min = 1, max = 45))]
    pub to: String,
    /// The node of that Pod.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
}

/// Another node, whose node ports the agent dials.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeOtherNode {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Addresses by which the cluster reaches it.
    #[serde(rename = "ips")]
    #[schemars(schema_with = "bounds::ips")]
    pub ips: Vec<String>,
}

/// Dials of clients on other nodes whose packets the agent watches on its own node, while those nodes repeat the dials. They
/// have failed, and whether their packets arrive says where they are lost.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeArrivals {
    /// Another one asks for another watch.
    #[schemars(length(min = 1, max = 32))]
    pub token: String,
    /// The dials.
    #[schemars(length(max = 8))]
    pub dials: Vec<ProbeArrival>,
    /// The id of the watch during which the clients have dialled, so that it ends. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub ended: String,
}

/// A dial of a client on another node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct ProbeArrival {
    /// The client Pod, as namespace/name.
    #[schemars(length(min = 1, max = 317))]
    pub from: String,
    /// Its node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Addresses of that node.
    #[serde(default, rename = "nodeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ips")]
    pub node_ips: Vec<String>,
    /// The Pod's address.
    #[schemars(length(min = 1, max = 45))]
    pub ip: String,
    /// Protocol of the dial.
    pub protocol: Protocol,
    /// Address and port of the endpoint, whose Pod is on this node.
    #[schemars(length(min = 1, max = 64))]
    pub endpoint: String,
}
