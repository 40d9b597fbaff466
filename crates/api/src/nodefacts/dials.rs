//! Dials of endpoints and of the Service: how many were made, which failed and how, and what was listening.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{IpFamily, Open, PortProtocol, Protocol, bounds, macros::string_enum};

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
    #[schemars(with = "String", length(max = 16), regex(pattern = bounds::PORT))]
    pub port: PortProtocol,
    /// IPv4 or IPv6.
    #[schemars(with = "String", length(max = 4), regex(pattern = bounds::FAMILY))]
    pub family: IpFamily,
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
    #[schemars(with = "String", length(max = 16), regex(pattern = bounds::PORT))]
    pub port: PortProtocol,
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
    #[schemars(with = "String", length(max = 4), regex(pattern = bounds::PROTOCOL))]
    pub protocol: Open<Protocol>,
    /// Address; 0.0.0.0 and :: mean all addresses.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub address: String,
    /// Port.
    pub port: u16,
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
