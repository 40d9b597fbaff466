//! What an agent observed on its node: facts, never verdicts.
//!
//! A dial counts as failed only if every attempt of it failed, the endpoint was still ready afterwards,
//! and it failed again at least three seconds later: the agent records nothing else as a failure.
//! What could not be probed is listed in `problems` and says nothing about the Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeadEndRule, Tunnel, bounds, macros::string_enum};

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

string_enum! {
    /// The path of a dial.
    DialPath {
        /// To an endpoint directly, bypassing the Service.
        Endpoint,
        /// To an address of the Service.
        Service,
        /// To a node port of the Service, on the node.
        NodePort,
    }
}

string_enum! {
    /// How a dial ended.
    Answer {
        /// The connection was accepted; over UDP, the datagram was not refused.
        Accepted,
        /// The other end refused it: nothing listens there.
        Refused,
        /// Something on the path refused it: a rule that rejects.
        Rejected,
        /// There is no route.
        Unreachable,
        /// The connection was not accepted in time.
        TimedOut,
        /// The connection was accepted and reset instead of answered.
        Reset,
        /// The connection was accepted, but no response came in time.
        NoAnswer,
        /// A response without an expected HTTP status.
        Unexpected,
    }
}

/// Number of dials made and failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DialCount {
    /// The client Pod that dialled, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// The path.
    pub path: DialPath,
    /// The Service port, as number/protocol.
    #[schemars(length(max = 16), regex(pattern = bounds::PORT))]
    pub port: String,
    /// IPv4 or IPv6.
    #[schemars(length(max = 4), regex(pattern = bounds::FAMILY))]
    pub family: String,
    /// Whether the endpoints dialled are on this node; absent for dials to a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_node: Option<bool>,
    /// Dials made.
    pub made: u32,
    /// Dials failed.
    pub failed: u32,
}

/// A dial that failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DialFailure {
    /// The client Pod that dialled, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// The path.
    pub path: DialPath,
    /// The Service port, as number/protocol.
    #[schemars(length(max = 16), regex(pattern = bounds::PORT))]
    pub port: String,
    /// Address and port dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// The endpoint that should have answered: the target itself, or what conntrack showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: Option<String>,
    /// Whether the endpoint is on this node; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_node: Option<bool>,
    /// Whether the client and the endpoint are on the same bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_bridge: bool,
    /// How it ended.
    pub answer: Answer,
    /// More about it, for example the HTTP status or the address that rejected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub detail: Option<String>,
}

impl DialFailure {
    /// How the dial ended. Agents of version 0.1 call it unexpected where a request was not answered at all.
    #[must_use]
    pub fn outcome(&self) -> Answer {
        let is_silence = |detail: &str| detail.starts_with("no answer");
        match self.answer {
            Answer::Unexpected if self.detail.as_deref().is_some_and(is_silence) => Answer::NoAnswer,
            answer => answer,
        }
    }
}

/// Listening sockets of a Pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodListeners {
    /// The Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// Its addresses.
    #[serde(rename = "ips")]
    #[schemars(schema_with = "bounds::ips")]
    pub ips: Vec<String>,
    /// Listening sockets; at most 32.
    #[schemars(length(max = 32))]
    pub sockets: Vec<ListeningSocket>,
}

/// A listening socket.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListeningSocket {
    /// TCP or UDP.
    #[schemars(length(max = 4), regex(pattern = bounds::PROTOCOL))]
    pub protocol: String,
    /// Address; 0.0.0.0 and :: mean all addresses.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub address: String,
    /// Port.
    pub port: u16,
}

string_enum! {
    /// The C library of a client, which decides how it resolves names.
    CLibrary {
        /// The GNU C library.
        Glibc,
        /// musl.
        Musl,
        /// None or unknown; resolves names as the GNU C library does.
        Unknown,
    }
}

string_enum! {
    /// How a lookup ended.
    LookupResult {
        /// The name has addresses.
        Found,
        /// There is no such name.
        NotFound,
        /// No server could answer, or none was willing to.
        Failed,
        /// No server answered in time.
        TimedOut,
        /// The lookup does not show what clients find: the program does not use the search list.
        Unclear,
    }
}

/// How a client Pod resolves names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    /// The Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// Its name servers.
    #[schemars(schema_with = "bounds::ips")]
    pub servers: Vec<String>,
    /// Suffixes of the search list.
    #[schemars(schema_with = "bounds::search")]
    pub search: Vec<String>,
    /// Names with at least this many dots are tried as they are first.
    pub ndots: u8,
    /// Whether it rotates through its servers (options rotate) instead of always starting with the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotate: bool,
    /// The C library of its image.
    pub c_library: CLibrary,
    /// Whether a process of the Pod was started with the Service's short name, without the namespace, in
    /// its arguments or environment: evidence that the client uses that name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_short_name: bool,
    /// The Service's names as this client resolves them, shortest first; kubernetes.default comes last.
    #[schemars(length(max = 8))]
    pub lookups: Vec<Lookup>,
}

/// A name as a client resolves it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// The name as a user writes it.
    #[schemars(length(max = 253), regex(pattern = bounds::DOMAIN))]
    pub name: String,
    /// How it ended.
    pub result: LookupResult,
    /// Error code of the servers if none could answer, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The full name that the addresses belong to: the name with the suffix of the search list that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = bounds::DOMAIN))]
    pub found_as: Option<String>,
    /// The addresses found; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::addresses")]
    pub addresses: Vec<String>,
    /// How long the answer is valid, in seconds; caching resolvers may return an older answer for that long.
    #[serde(default)]
    pub ttl_seconds: u32,
}

/// A DNS server that was queried for the Service's full name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DnsServer {
    /// The client Pod that queried it, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Its address.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub server: String,
    /// Whether it is an endpoint of cluster DNS, queried directly instead of through the Service.
    #[serde(default)]
    pub endpoint: bool,
    /// How the query for kubernetes.default ended.
    pub control: LookupResult,
    /// How the query for the Service ended.
    pub result: LookupResult,
    /// Error code if it could not answer one of them, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The domain in which it serves the cluster's names, if that is not the domain of the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = bounds::DOMAIN))]
    pub domain: Option<String>,
}

/// kube-proxy on a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxy {
    /// The mode that it reports, or else the mode of its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub mode: Option<String>,
    /// Name of its process, or of the process that embeds it; absent if none runs in the node's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub process: Option<String>,
    /// What replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub replacement: Option<String>,
    /// Whether the processes of the node could not be listed, so that a missing one proves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub processes_unread: bool,
    /// State of /livez on port 10256.
    #[serde(default)]
    pub livez: PortState,
    /// State of port 10249.
    #[serde(default)]
    pub metrics: PortState,
    /// How its process is run; absent if there is no process or this is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_as: Option<RunsAs>,
    /// The systemd unit that its process belongs to, if it does not run in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = bounds::WORD))]
    pub unit: Option<String>,
    /// The name under which it looks for its Node, if that is not the Node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Changes have been pending for more than 60 s, and no rules were written meanwhile.
    #[serde(default)]
    pub not_syncing: bool,
    /// Why it failed to write rules, according to its failure counters or its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub sync_error: Option<String>,
    /// Requests to the API server failed in at least three samples over more than 60 s, and none was answered.
    #[serde(default)]
    pub api_unreachable: bool,
    /// What the API server does not allow it: a verb and a resource, as in `list endpointslices`; `?` if only its
    /// counters show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub denied: Option<String>,
}

string_enum! {
    /// How kube-proxy is run.
    RunsAs {
        /// In a Pod.
        Pod,
        /// In a static Pod: the kubelet runs it from a file of the node.
        StaticPod,
        /// By systemd, on its own or as part of another program.
        Unit,
    }
}

string_enum! {
    /// State of a port.
    PortState {
        /// It reports healthy.
        Ok,
        /// It reports unhealthy.
        Failing,
        /// It connects but times out.
        Silent,
        /// Nothing listens.
        Closed,
    }
}

#[expect(clippy::derivable_impls, reason = "string_enum! has no place for #[default]")]
impl Default for PortState {
    fn default() -> Self {
        Self::Closed
    }
}

/// The rules on a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Layout of the rules: nftables, iptables (nf_tables backend), iptables-legacy or ipvs.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub layout: String,
    /// Number of Service ports compared, counted per IP family.
    pub compared: u32,
    /// Differences that a second sample confirmed; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub gaps: Vec<RuleGap>,
    /// Layout of other rules that also match the Service's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub conflict: Option<String>,
}

string_enum! {
    /// How the rules differ from the EndpointSlices.
    GapKind {
        /// No rule sends packets for an address of the Service to its endpoints.
        Missing,
        /// An endpoint is missing from the rules.
        EndpointMissing,
        /// The rules lead to an endpoint that is gone.
        EndpointStale,
        /// The rules have an endpoint but send no new connections to it (ipvs weight 0).
        EndpointDrained,
        /// The rules keep an endpoint that is gone for clients with session affinity, and send no others to it
        /// (ipvs weight 0).
        EndpointStuck,
        /// No rule sends packets for the node port to the endpoints.
        NodePortMissing,
        /// The same, and another process on the node uses the port.
        NodePortInUse,
        /// Session affinity, source ranges or the rejection without endpoints are not as specified.
        Incomplete,
    }
}

/// A difference between the rules and the EndpointSlices.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RuleGap {
    /// Kind of difference.
    pub kind: GapKind,
    /// The address or node port concerned.
    #[schemars(length(max = 80), regex(pattern = bounds::DESTINATION))]
    pub destination: String,
    /// The endpoint concerned, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: Option<String>,
    /// What is missing or superfluous.
    #[schemars(length(max = 256))]
    pub detail: String,
}

/// A Pod that dialled itself through the Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Hairpin {
    /// The Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// The Service address that was dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// How the dial to itself ended; absent if no dial came back to the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The node's end of the Pod's link, if it is a bridge port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub bridge_port: Option<String>,
    /// Whether the Pod's bridge port sends packets back (hairpin mode); absent without a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hairpin_mode: Option<bool>,
    /// Whether the rules masquerade the Pod's packets to itself; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masqueraded: Option<bool>,
}

/// A UDP conntrack entry that leads to a Pod that is gone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StaleConnection {
    /// The Service's address.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub destination: String,
    /// Where its packets go.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: String,
    /// Where they come from.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub source: String,
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
