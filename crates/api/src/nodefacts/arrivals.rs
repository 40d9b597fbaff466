//! What two nodes saw of the packets of a dial that is lost between them: the endpoint's node of those that arrive, and the
//! client's of those that leave.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Carrier;
use crate::{Protocol, bounds, macros::string_enum};

string_enum! {
    /// How far a watch has got.
    WatchState {
        /// It goes on: clients may dial.
        Watching,
        /// It ended after the clients had dialled.
        Ended,
        /// It ended before the clients were known to have dialled, or could not begin: nothing is known.
        Failed,
    }
}

/// What a node saw of packets from other nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Arrivals {
    /// The token of the watch that was asked for.
    #[schemars(length(max = 32), regex(pattern = bounds::VERSION))]
    pub token: String,
    /// What this watch is told from others by: if the agent begins anew, it is another one.
    #[schemars(length(max = 32), regex(pattern = bounds::VERSION))]
    pub id: String,
    /// How far it has got.
    pub state: WatchState,
    /// What was seen of each dial by the last watch that ended, which may be an earlier one; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub dials: Vec<Arrived>,
}

/// What a node saw of the packets of one dial, which includes those that the kernel sent again.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Arrived {
    /// The client Pod on another node, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: String,
    /// Protocol of the dial.
    pub protocol: Protocol,
    /// Address and port of the endpoint.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: String,
    /// Packets from the client's address that came in by one interface of the node, or straight by one of the endpoint's
    /// Pod: of all interfaces the most. Of TCP those that open a connection, as all that is counted here.
    pub arrived: u32,
    /// That interface of the node; absent if none came in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub interface: Option<String>,
    /// Whether the node's route to the client leads through no tunnel that the kernel knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// The packets that carry those of the client's node, if the node's route to the client leads through a tunnel over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// How many of them came in, whatever they carried.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carried: u32,
    /// Packets of the answer that the endpoint's Pod sent.
    pub answered: u32,
    /// Packets of the answer that were to leave the node by one interface, behind all rules: of all interfaces the most.
    pub returned: u32,
    /// That interface; absent if none left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub return_interface: Option<String>,
}

/// What a client's node saw of the packets of one lost dial while it was repeated. Of TCP those that open a connection.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The client Pod on this node, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: String,
    /// Protocol of the dial.
    pub protocol: Protocol,
    /// Address and port of the endpoint on another node.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: String,
    /// Packets from the client's address that were to leave the node by one interface, behind all rules: of all interfaces
    /// the most. What a tunnel carries is counted at the tunnel's link.
    pub sent: u32,
    /// That interface; absent if its name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub interface: Option<String>,
    /// Packets of the answer that came in by one interface, before all rules: of all interfaces the most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers: u32,
    /// That interface; absent if none came in, or its name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub answer_interface: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}
