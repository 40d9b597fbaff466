//! What stands in the way of Pods' packets between nodes: links that take them there, rules that do not let them
//! through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bounds, string_enum};

string_enum! {
    /// How a tunnel wraps packets.
    TunnelKind {
        /// VXLAN, over UDP.
        Vxlan,
        /// Geneve, over UDP.
        Geneve,
        /// WireGuard, over UDP.
        WireGuard,
        /// IP in IP, IP protocol 4.
        Ipip,
        /// GRE, IP protocol 47.
        Gre,
    }
}

/// A link that is up and takes packets to other nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Its name on the node.
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub name: String,
    /// How it wraps packets.
    pub kind: TunnelKind,
    /// The UDP port that it sends to; absent without one, or where the kernel does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A rule of a firewall at which every packet ends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct DeadEndRule {
    /// The chain that packets come in by: FORWARD, INPUT or OUTPUT.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub hook: String,
    /// The chain whose rule it is.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub chain: String,
    /// Whether it tells the sender (REJECT); else the packet vanishes (DROP).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rejects: bool,
}
