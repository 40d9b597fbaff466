//! Packets that are lost for their size.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{TunnelKind, bounds, macros::string_enum};

string_enum! {
    /// What a link is to the packets of a Pod.
    LinkRole {
        /// The Pod's own link.
        Pod,
        /// The bridge that it is connected to.
        Bridge,
        /// A tunnel to other nodes.
        Tunnel,
        /// The link with the node's own address.
        Uplink,
    }
}

/// A path between two Pods on which packets of full size are lost and nobody says so by ICMP, while smaller ones arrive:
/// several of either kind in turn.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PacketSize {
    /// The client Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: String,
    /// Address of the endpoint's Pod.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub to: String,
    /// Size of the largest IP packet that arrived, in bytes; every network takes 1280.
    #[schemars(range(min = 1280))]
    pub passes: u16,
    /// Size of the IP packets that were lost, in bytes: as large as those that TCP sends on this path.
    pub fails: u16,
    /// Links on the client's node that such packets may take, with their MTUs; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub links: Vec<LinkMtu>,
}

/// A link and its MTU.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct LinkMtu {
    /// What it is to the packets of the Pod.
    pub role: LinkRole,
    /// Its name.
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub name: String,
    /// Size of the largest IP packet that it takes, in bytes.
    pub mtu: u32,
    /// How it encapsulates packets, if it is a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelKind>,
}
