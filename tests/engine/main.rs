//! The engine on Facts: every row of the fault catalogue that the API alone can judge, its healthy
//! twins, and the properties that hold for all Facts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod policies;
mod properties;
mod report;
mod timing;
mod twins;
mod walkthrough;
