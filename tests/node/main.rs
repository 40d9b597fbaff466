//! What the agent reads on a node, from real kernel state in network namespaces of the tests' own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod asked;
mod captures;
mod commands;
mod complete;
mod deletions;
mod dials;
mod droppers;
mod drops;
mod environment;
mod kube_proxy;
mod losses;
mod names;
mod namespace;
mod owners;
mod packet_size;
mod rendered;
mod robustness;
mod rounds;
mod test_cluster;
mod traffic;
