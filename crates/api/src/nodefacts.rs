//! What an agent saw on its node: facts, never verdicts.
//!
//! A dial counts as failed only if every attempt of it failed, the endpoint was still ready afterwards,
//! and a second look at least three seconds later failed as well: the agent writes nothing else down as
//! a failure. What could not be tried stands in `problems` and says nothing about the Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeadEndRule, Tunnel, bounds, string_enum};

/// What an agent saw on its node for one diagnosis.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Probes that were made in the round.
    #[serde(default)]
    pub probes_made: u32,
    /// Probes of the round that failed.
    #[serde(default)]
    pub probes_failed: u32,
    /// EndpointSlices the facts were compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub slices: Vec<SliceVersion>,
    /// How many dials were made and failed, by origin, way and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub dials: Vec<DialCount>,
    /// Dials that failed; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failures: Vec<DialFailure>,
    /// What listens in Pods of the node that refused a dial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub listeners: Vec<PodListeners>,
    /// How the client Pods of the node look up names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub resolvers: Vec<Resolver>,
    /// DNS servers that were asked one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub dns_servers: Vec<DnsServer>,
    /// kube-proxy of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<KubeProxy>,
    /// The rules of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Pods of the node that dialled themselves through the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub hairpins: Vec<Hairpin>,
    /// Pods, as namespace/name, whose own rules send their connections to a proxy beside them (REDIRECT or
    /// TPROXY in nat OUTPUT): what their sockets say is said by that proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::pods")]
    pub intercepted: Vec<String>,
    /// Tracked UDP connections to the Service that lead to Pods that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub stale_connections: Vec<StaleConnection>,
    /// Settings of the node that explain lost packets.
    #[serde(default)]
    pub settings: NodeSettings,
    /// Links of the node by which Pods' packets may go to other nodes; absent where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub tunnels: Option<Vec<Tunnel>>,
    /// What could not be looked at, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::problems")]
    pub problems: Vec<String>,
}

/// An EndpointSlice at the moment of the look.
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
    /// Which way a dial took.
    DialPath {
        /// To an endpoint, past the Service.
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
        /// Somebody took the connection; over UDP: nobody refused the datagram.
        Accepted,
        /// The other end refused it: nobody listens there.
        Refused,
        /// Something on the way refused it: a rule that rejects.
        Rejected,
        /// There is no way there.
        Unreachable,
        /// Nobody took the connection in time.
        TimedOut,
        /// Somebody took the connection and reset it instead of answering.
        Reset,
        /// Somebody took the connection, and no answer came in time.
        NoAnswer,
        /// An answer, but not one with an expected HTTP status.
        Unexpected,
    }
}

/// How many dials were made and failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DialCount {
    /// The client Pod that dialled, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Which way.
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
    /// Dials that were made.
    pub made: u32,
    /// Dials that failed.
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
    /// Which way.
    pub path: DialPath,
    /// The Service port, as number/protocol.
    #[schemars(length(max = 16), regex(pattern = bounds::PORT))]
    pub port: String,
    /// Address and port that were dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// The endpoint that should have answered: the target itself, or what conntrack showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: Option<String>,
    /// Whether the endpoint is on this node; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_node: Option<bool>,
    /// Whether the client and the endpoint are ports of one bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_bridge: bool,
    /// How it ended.
    pub answer: Answer,
    /// More about it, for example the HTTP status or who rejected it.
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

/// What listens in a Pod.
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
    /// Sockets that listen, as protocol and address; at most 32.
    #[schemars(length(max = 32))]
    pub sockets: Vec<ListeningSocket>,
}

/// A socket that listens.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListeningSocket {
    /// TCP or UDP.
    #[schemars(length(max = 4), regex(pattern = bounds::PROTOCOL))]
    pub protocol: String,
    /// Address; 0.0.0.0 and :: stand for every one.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub address: String,
    /// Port.
    pub port: u16,
}

string_enum! {
    /// The C library of a client, which decides how it looks up names.
    CLibrary {
        /// The GNU C library.
        Glibc,
        /// musl.
        Musl,
        /// None, or one that is not known; resolves as the GNU C library does.
        Unknown,
    }
}

string_enum! {
    /// How a look-up ended.
    LookupResult {
        /// The name has addresses.
        Found,
        /// There is no such name.
        NotFound,
        /// No server could or would answer.
        Failed,
        /// No server answered in time.
        TimedOut,
        /// What was looked up says nothing of what clients find: the program that did it does not search.
        Unclear,
    }
}

/// How a client Pod looks up names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    /// The Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// Its name servers.
    #[schemars(schema_with = "bounds::ips")]
    pub servers: Vec<String>,
    /// Suffixes that are tried.
    #[schemars(schema_with = "bounds::search")]
    pub search: Vec<String>,
    /// Names with so many dots are first tried as they are.
    pub ndots: u8,
    /// Whether it asks its servers in turn (options rotate), not always the first one first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotate: bool,
    /// The C library of its image.
    pub c_library: CLibrary,
    /// Whether a process of the Pod was started with the Service's short name, without the namespace, in
    /// its arguments or environment: evidence that the client uses that name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_short_name: bool,
    /// The Service's names as this client resolves them, shortest first, and last kubernetes.default.
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
    /// Why no server could answer, as the servers say it, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The full name that the addresses are of: the name with the suffix of the search list that led there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = bounds::DOMAIN))]
    pub found_as: Option<String>,
    /// The addresses found; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::addresses")]
    pub addresses: Vec<String>,
    /// How long the answer stays true, in seconds: resolvers on the way may give an older one as long.
    #[serde(default)]
    pub ttl_seconds: u32,
}

/// A DNS server that was asked for the Service's full name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DnsServer {
    /// The client Pod that asked, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Its address.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub server: String,
    /// Whether it is an endpoint of cluster DNS, asked past the Service of cluster DNS.
    #[serde(default)]
    pub endpoint: bool,
    /// How the question for kubernetes.default ended.
    pub control: LookupResult,
    /// How the question for the Service ended.
    pub result: LookupResult,
    /// Why it could not answer one of them, as it says it, for example SERVFAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = bounds::CODE))]
    pub code: Option<String>,
    /// The domain in which it has the cluster's names, where that is not the domain of the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = bounds::DOMAIN))]
    pub domain: Option<String>,
}

/// kube-proxy of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxy {
    /// The mode it says it is in, else the one its rules are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub mode: Option<String>,
    /// Its program, or the one that carries it; absent when none runs in the node's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub process: Option<String>,
    /// What does its work in its stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub replacement: Option<String>,
    /// Whether the processes of the node could not be listed, so that an absent one proves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub processes_unread: bool,
    /// What livez on port 10256 said.
    #[serde(default)]
    pub livez: PortState,
    /// What port 10249 said.
    #[serde(default)]
    pub metrics: PortState,
    /// How its process is run; absent where no process is there or that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_as: Option<RunsAs>,
    /// The unit of systemd that its process belongs to, where it is in no Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = bounds::WORD))]
    pub unit: Option<String>,
    /// The name that it takes its Node to have, where that is not the Node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Changes have waited for more than 60 s, and no rules were written in between.
    #[serde(default)]
    pub not_syncing: bool,
    /// Why writing rules failed, by its counters of failures or by its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub sync_error: Option<String>,
    /// Requests to the API server failed in at least three samples over more than 60 s, and none was answered.
    #[serde(default)]
    pub api_unreachable: bool,
    /// What the API server does not allow it: a verb and a resource, as in `list endpointslices`; where only its
    /// counters tell, `?`.
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
        /// By systemd, on its own or as a part of another program.
        Unit,
    }
}

string_enum! {
    /// What a port said.
    PortState {
        /// It is well.
        Ok,
        /// It says that it is not.
        Failing,
        /// It takes the connection and says nothing.
        Silent,
        /// Nobody listens.
        Closed,
    }
}

#[expect(clippy::derivable_impls, reason = "string_enum! has no place for #[default]")]
impl Default for PortState {
    fn default() -> Self {
        Self::Closed
    }
}

/// The rules of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// How the rules are laid out: nftables, iptables (by the nf_tables backend), iptables-legacy or ipvs.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub layout: String,
    /// Service ports that were compared, counted for each IP family.
    pub compared: u32,
    /// Differences that a second look confirmed; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub gaps: Vec<RuleGap>,
    /// Other rules that hold the Service's addresses too: their layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub conflict: Option<String>,
}

string_enum! {
    /// How the rules differ from what the EndpointSlices ask for.
    GapKind {
        /// Nothing takes the packets to an address of the Service to its endpoints.
        Missing,
        /// The rules leave out an endpoint.
        EndpointMissing,
        /// The rules lead to an endpoint that is gone.
        EndpointStale,
        /// The rules hold an endpoint and send no new connection to it (ipvs weight 0).
        EndpointDrained,
        /// The rules hold an endpoint that is gone for clients that affinity keeps there, and send nobody else to it
        /// (ipvs weight 0).
        EndpointStuck,
        /// Nothing takes the packets to the node port to the endpoints.
        NodePortMissing,
        /// The same, and another process of the node has the port.
        NodePortInUse,
        /// Session affinity, source ranges or the refusal without endpoints are not as asked for.
        Incomplete,
    }
}

/// A difference between the rules and what the EndpointSlices ask for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RuleGap {
    /// What kind of difference.
    pub kind: GapKind,
    /// The address or node port it is about.
    #[schemars(length(max = 80), regex(pattern = bounds::DESTINATION))]
    pub destination: String,
    /// The endpoint it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: Option<String>,
    /// What is missing or too much, in words.
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
    /// How the dial to itself ended; absent where no dial came back to the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The node's end of the Pod's link, where it is a port of a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub bridge_port: Option<String>,
    /// Whether the Pod's bridge port sends packets back; absent without a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hairpin_mode: Option<bool>,
    /// Whether the rules give the Pod's packets to itself another source; absent where not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masqueraded: Option<bool>,
}

/// A tracked UDP connection that leads to a Pod that is gone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StaleConnection {
    /// The Service's address.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub destination: String,
    /// Where its packets go.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: String,
    /// Who sends them.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub source: String,
}

/// Settings of a node's network; absent means not known.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// net.ipv4.ip_forward: whether the node forwards IPv4 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_forwarding: Option<bool>,
    /// net.ipv6.conf.all.forwarding: whether the node forwards IPv6 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_forwarding: Option<bool>,
    /// net.bridge.bridge-nf-call-iptables: whether rules see packets between ports of a bridge. Absent without br_netfilter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_netfilter: Option<bool>,
    /// Whether the FORWARD chain of iptables drops what no rule accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_drops: Option<bool>,
    /// Rules of iptables at which every packet ends that is forwarded, sent or taken; looked for where dials failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub dead_ends: Vec<DeadEndRule>,
    /// Whether the table of tracked connections is full, or within a hundredth of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_full: Option<bool>,
    /// Whether the node dropped packets of the round for coming in by another way than their answers would leave (rp_filter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path_drops: Option<bool>,
}
