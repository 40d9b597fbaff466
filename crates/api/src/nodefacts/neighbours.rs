//! Pods that others look for at the wrong link-layer address.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounds;

/// An endpoint's Pod whose packets are sent to another link-layer address than its own: another host answers ARP (or neighbour
/// discovery) for its IP address, or the entry of the neighbour table is out of date.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WrongNeighbour {
    /// The client Pod that sends them there, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// The endpoint's Pod, as namespace/name.
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub pod: String,
    /// Its IP address that the packets are for.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub ip: String,
    /// The link-layer address that they are sent to.
    #[schemars(length(max = 17), regex(pattern = bounds::LINK_ADDRESS))]
    pub sent_to: String,
    /// The link-layer address of the Pod's interface that has the IP address.
    #[schemars(length(max = 17), regex(pattern = bounds::LINK_ADDRESS))]
    pub own: String,
}
