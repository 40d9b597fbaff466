//! The engine on Facts: every row of the fault catalogue, by the API alone and by what agents saw, its healthy
//! twins, and the properties that hold for all Facts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod agents;
mod answers;
mod blame;
mod commands;
mod data_path;
mod data_path_twins;
mod families;
mod faults;
mod hints;
mod hostile;
mod kube_proxy;
mod local_policies;
mod other_policies;
mod plan;
mod pods;
mod policies;
mod policy_mismatch;
mod ports;
mod properties;
mod report;
mod rollouts;
mod selectorless;
mod selectors;
mod silence;
mod subject;
mod timing;
mod twins;
mod walkthrough;
