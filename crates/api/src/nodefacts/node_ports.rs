//! Node ports of other nodes, dialled as somebody outside the cluster would.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Answer, PortProtocol, bounds};

/// A node port of the Service on another node, dialled from this node's own network.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OtherNodePort {
    /// The other node.
    #[schemars(length(max = 253), regex(pattern = bounds::NAME))]
    pub node: String,
    /// The Service port, as number/protocol.
    #[schemars(with = "String", length(max = 16), regex(pattern = bounds::PORT))]
    pub port: PortProtocol,
    /// Address and node port dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// How the dial ended; where it failed, how a second one did at least three seconds later.
    pub answer: Answer,
}
