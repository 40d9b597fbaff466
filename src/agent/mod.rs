//! The node agent: facts from the kernel of one node.

pub mod netfilter;
pub mod netlink;
mod sockopt;
