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

string_enum! {
    /// A counter of the kernel for packets that it dropped.
    LossCounterName {
        /// Packets that conntrack dropped because their entry collided with another one (insert_failed).
        ConntrackInsertFailed,
        /// Packets that conntrack dropped because its table was full (drop).
        ConntrackTableFull,
        /// Entries that conntrack removed to make room in its full table (early_drop).
        ConntrackEarlyDrop,
        /// UDP packets that were dropped for a wrong checksum (InCsumErrors).
        UDPChecksumErrors,
        /// UDP packets that were dropped because a socket's receive buffer was full (RcvbufErrors).
        UDPReceiveBufferErrors,
        /// TCP connections that an accept queue had no room for (ListenOverflows).
        ListenOverflows,
    }
}

/// A counter of the kernel that rose in most rounds that lost packets on a path, and by no less than was lost. But for
/// ConntrackTableFull it also rose in at most half of the other rounds, of which there were at least three, and at most half
/// as fast there. What was reported once stays on somewhat less.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LossCounter {
    /// The Pod in whose network it counts, as namespace/name; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: Option<String>,
    /// The counter.
    pub counter: LossCounterName,
    /// By how much it rose in those rounds.
    pub rose: u32,
    /// In how many rounds.
    pub rounds: u32,
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
    /// Counters of the kernel that rose with the losses; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub counters: Vec<LossCounter>,
}
