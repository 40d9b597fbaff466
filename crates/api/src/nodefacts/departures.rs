//! How the packets of lost dials through the Service left the node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Answer, bounds};

/// The source addresses of a TCP connection through the Service that got no answer from another node, from the node's
/// conntrack. What a node masquerades, and with which address, decides by which way answers come back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Departure {
    /// The client Pod that dialled, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Address and port of the Service that were dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// The endpoint that the packets were sent to.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: String,
    /// The source address with which the client sent them.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub source: String,
    /// The source address with which they left the node: another one if the node masqueraded them.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub left_as: String,
    /// The node's own dial of the endpoint, bypassing the Service; absent if the node did not make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<DirectDial>,
}

/// A dial of an endpoint from the node itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DirectDial {
    /// How it ended.
    pub answer: Answer,
    /// The source address that the kernel chose for it.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub source: String,
}
