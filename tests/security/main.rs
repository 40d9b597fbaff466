//! Attacks: what tenants, hostile Pods and whoever answers a dial try, each in a file of its own. What holds against
//! them stands in docs/security.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod agent;
mod amplification;
mod documented;
mod endless_answers;
mod flipped_slices;
mod hostile_archives;
mod huge_processes;
mod idle_connections;
mod memory;
#[path = "../node/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests of the node, which use all of it")]
mod namespace;
mod planted_secrets;
mod privileges;
mod seccomp;
mod tangled_rules;
#[path = "../node/test_cluster.rs"]
#[allow(dead_code, reason = "shared with the tests of the node, which use all of it")]
mod test_cluster;
