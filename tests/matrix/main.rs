//! The fault matrix: every row of the catalogue that needs a node agent, on real kernel state, with the
//! real binary. Rows that touch the rules run in every proxy mode.
//!
//! Each worker has a local cluster of its own in one mode and runs one scenario after the other on it: break,
//! wait for the verdict, fix, wait until all is well again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

// Tests run in alphabetical order, two at a time: the catalogue takes as long as all others, so it has to begin first.
mod catalogue;
mod chaos;
mod check;
mod ends;
mod hairpin;
mod harness;
mod outages;
mod remedies;
mod rest;
mod rollouts;
mod size;
