//! A pocket Kubernetes cluster for the demo and the tests.
//!
//! It exists to put a real HTTP API (and, later, real kernel state) in front of the real
//! binary, and knows nothing of svcdiag but its CRDs and its command lines.

pub mod apiserver;
