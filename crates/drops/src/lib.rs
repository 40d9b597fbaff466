//! Who dropped the packets of some dials, by the kernel's tracepoint `skb:kfree_skb`.
//!
//! A dial that times out does not say why; the kernel knows. [`Kernel::read`] learns once what this kernel calls its
//! reasons and where its structs keep what matters (`btf.rs`). [`Watch::start`] assembles a program for the packets of
//! these dials (`program.rs`), at most [`MAX_FILTERS`] kinds of packets, and attaches it; [`Watch::stop`] detaches it
//! and returns what was dropped. [`explain`] says what a drop means. [`Sightings`] count in the same way where packets
//! come in and go out, for dials of other nodes: whether they arrive, and whether answers leave.
//!
//! At rest nothing is loaded. Unrelated packets are compared with immediate values and go no further; a watch counts
//! at most [`MAX_DROPS`] different drops in memory that is allocated when it starts.

#![forbid(unsafe_code)]

mod btf;
mod cause;
mod kernel;
mod program;
mod record;
mod sightings;
mod unavailable;
mod watch;

use std::net::SocketAddr;

use svcdiag_kube_proxy::Protocol;

pub use self::{
    cause::explain,
    kernel::{Kernel, Paths},
    sightings::{Seen, Sighting, Sightings},
    unavailable::Unavailable,
    watch::{MAX_DROPS, MAX_FILTERS, Watch},
};

/// Protocol, sender and receiver of a packet. In a filter, port 0 stands for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The protocol.
    pub protocol: Protocol,
    /// Who sends it.
    pub source: SocketAddr,
    /// For whom it is.
    pub destination: SocketAddr,
}

/// Which of a dial's packets a filter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leg {
    /// From the client to the address that it dials, before translation.
    ToService,
    /// From the client to the endpoint, after translation.
    ToEndpoint,
    /// From an address of the node to the endpoint, after masquerading.
    FromNode,
    /// From the endpoint back to the client.
    Answer,
}

/// Packets to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What they are for the dial.
    pub leg: Leg,
    /// What they look like.
    pub tuple: Tuple,
}

/// A network interface, by what its own namespace calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// Packets of a dial that were dropped at the same place for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drop {
    /// Which filter they matched.
    pub leg: Leg,
    /// Sender and receiver, when they were dropped.
    pub tuple: Tuple,
    /// The kernel's name of the reason, such as `NETFILTER_DROP`.
    pub reason: String,
    /// The function that dropped them, unless the kernel has no names for its functions.
    pub location: Option<String>,
    /// The interface that they had come in by or were to go out by; none once a socket had them.
    pub interface: Option<Interface>,
    /// The inode of the network namespace that dropped them; none where the packet no longer said.
    pub namespace: Option<u32>,
    /// How many.
    pub count: u64,
}
