//! The engine on Facts: every row of the fault catalogue, by the API alone and by what agents saw, its healthy
//! twins, and the properties that hold for all Facts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod agents;
mod answers;
mod blame;
mod data_path;
mod data_path_twins;
mod families;
mod faults;
mod hints;
mod plan;
mod pods;
mod policies;
mod ports;
mod properties;
mod report;
mod selectors;
mod silence;
mod subject;
mod timing;
mod twins;
mod walkthrough;
