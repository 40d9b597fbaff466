//! The tracepoint and the network stack of the kernel at hand: real faults between network namespaces, and what must
//! not be taken for one. As root (`hack/as-root`): each test makes namespaces of its own and contacts nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod bridge;
mod classifier;
mod expected;
mod faults;
mod lookalikes;
mod network;
mod sightings;
mod unavailable;
