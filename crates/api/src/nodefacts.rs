//! What an agent observed on its node: facts, never verdicts.
//!
//! A dial counts as failed only if every attempt of it failed, the endpoint was still ready afterwards,
//! and it failed again at least three seconds later: the agent records nothing else as a failure.
//! What could not be probed is listed in `problems` and says nothing about the Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeadEndRule, Tunnel, bounds};

mod arrivals;
mod departures;
mod dials;
mod droppers;
mod drops;
mod kube_proxy;
mod losses;
mod names;
mod neighbours;
mod node_ports;
mod packet_sizes;
mod rules;

pub use arrivals::{Arrivals, Arrived, Left, WatchState};
pub use departures::{Departure, DirectDial};
pub use dials::{Answer, DialCount, DialFailure, DialPath, Hairpin, ListeningSocket, PodListeners};
pub use droppers::{Dropper, DropperEvidence, FilterFamily, FilterHook, FilterTool};
pub use drops::{Carrier, DropCause, DropPlace, PacketDrop};
pub use kube_proxy::{KubeProxy, PortState, RunsAs};
pub use losses::{LossCounter, LossCounterName, LossyPath, PathLoss};
pub use names::{CLibrary, DnsServer, Lookup, LookupResult, Resolver};
pub use neighbours::WrongNeighbour;
pub use node_ports::OtherNodePort;
pub use packet_sizes::{LinkMtu, LinkRole, PacketSize};
pub use rules::{GapKind, RuleGap, Rules, StaleConnection};

/// What an agent observed on its node for one diagnosis.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Number of probes in the round.
    #[serde(default)]
    pub probes_made: u32,
    /// Number of probes in the round that failed.
    #[serde(default)]
    pub probes_failed: u32,
    /// EndpointSlices that the facts were compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub slices: Vec<SliceVersion>,
    /// Dials made and failed, by origin, path and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub dials: Vec<DialCount>,
    /// Dials that failed; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failures: Vec<DialFailure>,
    /// How packets of some of these left the node that were sent through the Service to other nodes; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub departures: Vec<Departure>,
    /// Endpoints' Pods of this node that did not answer, and whose packets are sent to another link-layer address than the
    /// Pod's own; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub wrong_neighbours: Vec<WrongNeighbour>,
    /// Node ports of other nodes that did not accept a connection; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub other_node_ports: Vec<OtherNodePort>,
    /// Packets of dials that failed, dropped on this node while the dials were repeated; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub drops: Vec<PacketDrop>,
    /// What was seen here of the packets of clients on other nodes, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
    /// Packets of those clients that the node, or Pods of its endpoints, dropped meanwhile; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub arrival_drops: Vec<PacketDrop>,
    /// What was seen here of the packets of this node's clients while their failed dials were repeated; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub left: Vec<Left>,
    /// The `repeat` of the NodeProbe, if the failed dials were repeated for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 132), regex(pattern = bounds::VERSIONS))]
    pub repeated: String,
    /// Paths on which packets are lost at times; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub losses: Vec<PathLoss>,
    /// Paths to other nodes on which packets of full size are lost, and smaller ones are not; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub packet_sizes: Vec<PacketSize>,
    /// Listening sockets in Pods of the node that refused a dial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub listeners: Vec<PodListeners>,
    /// How the client Pods of the node resolve names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub resolvers: Vec<Resolver>,
    /// DNS servers that were queried individually.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub dns_servers: Vec<DnsServer>,
    /// kube-proxy on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<KubeProxy>,
    /// The rules on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Pods of the node that dialled themselves through the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub hairpins: Vec<Hairpin>,
    /// Pods, as namespace/name, whose own rules redirect their connections to a proxy next to them (REDIRECT or
    /// TPROXY in nat OUTPUT): the results of their dials come from that proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::pods")]
    pub intercepted: Vec<String>,
    /// UDP conntrack entries of the Service that lead to Pods that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub stale_connections: Vec<StaleConnection>,
    /// Settings of the node that can explain lost packets.
    #[serde(default)]
    pub settings: NodeSettings,
    /// Links of the node that may carry Pods' packets to other nodes; absent if they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub tunnels: Option<Vec<Tunnel>>,
    /// What could not be probed or read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::problems")]
    pub problems: Vec<String>,
}

/// An EndpointSlice as it was during the round.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SliceVersion {
    /// Its name.
    #[schemars(length(max = 253), regex(pattern = bounds::NAME))]
    pub name: String,
    /// Its metadata.resourceVersion.
    #[schemars(length(max = 64), regex(pattern = bounds::VERSION))]
    pub resource_version: String,
}

/// Network settings of a node; absent means unknown.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// net.ipv4.ip_forward: whether the node forwards IPv4 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_forwarding: Option<bool>,
    /// net.ipv6.conf.all.forwarding: whether the node forwards IPv6 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_forwarding: Option<bool>,
    /// net.bridge.bridge-nf-call-iptables: whether packets between ports of a bridge pass through rules. Absent without br_netfilter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_netfilter: Option<bool>,
    /// Whether the FORWARD chain of iptables drops packets that no rule accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_drops: Option<bool>,
    /// Rules of iptables that drop or reject every forwarded, outgoing or incoming packet; read only if dials failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub dead_ends: Vec<DeadEndRule>,
    /// Whether the conntrack table is full, or within one percent of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_full: Option<bool>,
    /// Whether the node dropped packets during the round because they arrived on another interface than their replies would leave by (rp_filter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path_drops: Option<bool>,
}
