//! The path of a packet from a client to an endpoint, hop by hop, with the hop that is broken.
//!
//! [`hops`] turns a Diagnosis into a list of hops; `text` writes it as a line, `html/svg.rs` draws it. A hop says no more than
//! the stages that are about it: one that is not known is [`State::Unknown`], and one that the Service does not have (a
//! headless Service has no address) is left out.

mod hops;
mod labels;
#[cfg(test)]
mod tests;
mod text;

use crate::api::{ConditionType, Reason};

pub use hops::hops;
pub(super) use text::line;

/// Something that a packet passes on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Which one.
    pub place: Place,
    /// Its name or address, as far as it was observed.
    pub label: String,
    /// What is known of it.
    pub state: State,
}

/// The kinds of hops, in the order in which a packet passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Who connects: a client Pod, or a node where there is none.
    Client,
    /// Cluster DNS, from which the client has the address.
    Dns,
    /// The address of the Service.
    Service,
    /// What turns that address into one of an endpoint: the rules of kube-proxy.
    Proxy,
    /// A Pod that answers.
    Endpoint,
    /// The way of a Pod back to itself. Only where it is broken: no other packet takes it.
    Hairpin,
}

/// What is known of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was checked, and no fault was found in it. A client is there.
    Passed,
    /// A stage that is about it is False.
    Broken {
        /// The stage.
        stage: ConditionType,
        /// Its reason.
        reason: Reason,
    },
    /// Dials of it fail, or are not judged, and a later hop is broken.
    BrokenFurtherOn,
    /// It is not known: nobody has checked it, or what was seen decides nothing.
    Unknown,
}
