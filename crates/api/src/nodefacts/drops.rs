//! Packets of failed dials that the kernel of a node dropped, and why it says it did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Dropper;
use crate::{Protocol, bounds, macros::string_enum};

string_enum! {
    /// Why packets were dropped.
    DropCause {
        /// A rule or a policy of nftables or iptables, or conntrack.
        Firewall,
        /// The node, or one of its interfaces, does not forward packets.
        ForwardingDisabled,
        /// There is no route to the receiver.
        NoRoute,
        /// The packets came in by another interface than the one to which the route to their sender leads (rp_filter).
        ReversePathFilter,
        /// The bridge does not send packets back by the port that they came from (hairpin mode is off).
        HairpinPortOff,
        /// A Pod got packets with its own address as their source: they were not masqueraded.
        HairpinNotMasqueraded,
        /// The client got the answer from the endpoint instead of the Service's address, and refused it.
        AnswerNotTranslated,
        /// The queue of connections that the application has not accepted yet is full.
        AcceptQueueFull,
        /// The checksum of the packets is wrong.
        BadChecksum,
        /// The packets are larger than the MTU of the next link, and may not be fragmented.
        TooBig,
        /// An eBPF program at tc, XDP or a cgroup.
        TrafficControl,
        /// Nobody answers for the receiver's address on its link (ARP or neighbour discovery).
        NeighbourFailed,
    }
}

string_enum! {
    /// Whose network namespace dropped packets.
    DropPlace {
        /// The node's.
        Node,
        /// That of the Pod that dialled.
        Client,
        /// That of the endpoint's Pod.
        Endpoint,
    }
}

/// Packets of a failed dial that were dropped at one place for one reason while the dial was repeated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct PacketDrop {
    /// The client Pod that dialled, as namespace/name; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = bounds::KEY))]
    pub from: Option<String>,
    /// Protocol of the dial. Default: TCP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// Address and port dialled.
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub target: String,
    /// The endpoint that the packets were for, or came from; absent if they were not translated yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = bounds::ADDRESS))]
    pub endpoint: Option<String>,
    /// Whether they were on their way back to the client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers: bool,
    /// Why they were dropped.
    pub cause: DropCause,
    /// Whose network namespace dropped them.
    pub place: DropPlace,
    /// The interface that they had come in by, or were to leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), regex(pattern = bounds::WORD))]
    pub interface: Option<String>,
    /// The kernel's name of the reason, for example NETFILTER_DROP, or of the counter that rose.
    #[schemars(length(max = 64), regex(pattern = bounds::WORD))]
    pub reason: String,
    /// The function of the kernel that dropped them; absent if the kernel has no names for its functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = bounds::WORD))]
    pub function: Option<String>,
    /// Where these are packets of a tunnel between two nodes, which carries those of the dial: between which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// Number of packets.
    pub packets: u32,
    /// The rule or policy of a firewall that dropped them, or those that may have; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub droppers: Vec<Dropper>,
}

/// UDP packets between two nodes, which carry those of Pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Carrier {
    /// Address of the node that sends them.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub from: String,
    /// Address of the node that they are for.
    #[schemars(length(max = 45), regex(pattern = bounds::IP))]
    pub to: String,
    /// The port that they are for.
    pub port: u16,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}
