//! The node agent: facts from the kernel of one node.

pub mod dial;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod pods;
pub mod sockets;
mod sockopt;
