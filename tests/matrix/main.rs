//! The fault matrix: every row of the catalogue that needs a node agent, on real kernel state, with the
//! real binary. Rows that touch the rules run in every proxy mode.
//!
//! Each lane has a local cluster of its own in one mode and plays one act after the other on it: break,
//! wait for the verdict, mend, wait until all is well again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod acts;
mod agents;
mod hairpin;
mod lane;
mod remedies;
mod rest;
mod rollouts;
mod size;
