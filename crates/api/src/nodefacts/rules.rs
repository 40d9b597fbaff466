//! The rules on the node, held against the EndpointSlices, and the connections that outlived them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, macros::string_enum};

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
