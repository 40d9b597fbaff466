//! What was collected from clusters and nodes, read without them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod branches;
mod captured;
#[path = "../node/captures.rs"]
#[allow(dead_code, reason = "tests/node uses the rest")]
mod captures;
mod contradictory;
mod headless;
mod hostile;
mod kube_proxy;
mod misleading;
#[path = "../node/namespace.rs"]
#[allow(dead_code, reason = "tests/node uses the rest")]
mod namespace;
mod output;
#[path = "../node/owners.rs"]
#[allow(dead_code, reason = "tests/node uses the rest")]
mod owners;
mod page;
mod paste;
mod reports;
mod rules;
