//! What stands in the way of Pods' packets between nodes: links that take them there, rules that do not let them
//! through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bounds, macros::string_enum};

string_enum! {
    /// How a tunnel encapsulates packets.
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

/// A network link that is up and carries packets to other nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Its name on the node.
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub name: String,
    /// How it encapsulates packets.
    pub kind: TunnelKind,
    /// The UDP port that it sends to; absent if it has none or the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A firewall rule that drops or rejects every packet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct DeadEndRule {
    /// The built-in chain where packets enter: FORWARD, INPUT or OUTPUT.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub hook: String,
    /// The chain that contains the rule.
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub chain: String,
    /// Whether it rejects packets (REJECT) instead of dropping them (DROP).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rejects: bool,
}
