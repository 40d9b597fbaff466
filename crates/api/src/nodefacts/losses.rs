//! Packets that are lost at times, though what they are for works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, macros::string_enum};

string_enum! {
    /// A path on which packets are lost at times.
    LossyPath {
        /// To endpoints on the same node, bypassing the Service.
        SameNode,
        /// To endpoints on other nodes, bypassing the Service.
        OtherNode,
        /// To the Service's own addresses.
        Service,
        /// To DNS servers.
        DNS,
    }
}

/// A path on which several rounds have lost packets: at least one of fifty tries, in at least three rounds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PathLoss {
    /// The client Pod, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// The path.
    pub path: LossyPath,
    /// TCP connections made, or DNS questions asked, over the last rounds.
    pub tries: u32,
    /// How many of them needed a second SYN, or got no answer.
    pub lost: u32,
}
