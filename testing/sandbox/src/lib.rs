//! A local Kubernetes cluster for the demo and the tests.
//!
//! It exists to put a real HTTP API and real kernel state in front of the real binary, and knows
//! nothing of svcdiag but its CRDs and its command lines.
//!
//! [`cluster::Cluster`] starts an API server and the stand-in [`controllers`] around it, and, if asked
//! to, nodes and Pods in the [`kernel`] with the rules that a [`proxy`] writes; a
//! [`faults::Fixture`] puts the walk-through of "Debug Services" into a namespace; the
//! [`faults`] break it in the ways the catalogue lists and fix it again.
#![allow(
    clippy::disallowed_methods,
    reason = "it makes namespaces, runs programs and lives by the machine's clock"
)]

pub mod cluster;
pub mod controllers;
pub mod error;
pub mod faults;
pub mod kernel;
pub mod kubectl;
pub mod proxy;
pub mod svcdiag;
pub mod workload;
