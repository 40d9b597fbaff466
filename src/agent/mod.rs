//! The node agent: facts from the kernel of one node.

pub mod dial;
pub mod dns;
pub mod kubeproxy;
pub mod links;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod pods;
pub mod resolv;
pub mod rootfs;
pub mod settings;
pub mod sockets;
mod sockopt;
