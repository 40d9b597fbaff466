//! The real binary on a real HTTP API: the embedded server, or the etcd and kube-apiserver that
//! `KUBEBUILDER_ASSETS` names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod agents;
mod bundle;
mod check;
mod commands;
mod controller;
mod diagnoses;
mod disturbances;
mod election;
mod faults;
mod harness;
mod kubectl;
mod open_reports;
mod remedies;
mod rights;
mod routes;
