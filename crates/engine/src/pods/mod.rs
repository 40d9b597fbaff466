//! The Pods of the Service's namespace: their state, their nodes, what was said of them.

pub(crate) mod behind_endpoints;
pub(crate) mod events;
pub(crate) mod node;
pub(crate) mod restart;
pub(crate) mod shared_addresses;
pub(crate) mod state;
