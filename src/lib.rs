//! Why does this Kubernetes Service not work? See `README.md`.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod check;
mod clock;
pub mod cluster;
pub mod collect;
pub mod completion;
pub mod controller;
pub mod diagnoses;
pub mod explain;
pub mod man;
pub mod report;
pub mod system;
pub mod version;

pub use svcdiag_api as api;
pub use svcdiag_client as client;
pub use svcdiag_engine as engine;
pub use svcdiag_engine::inventory;
pub use svcdiag_formats as formats;
pub use svcdiag_kube_proxy as kube_proxy;
pub use svcdiag_objects as objects;

/// What runs on a node, and only there.
#[cfg(target_os = "linux")]
pub use {svcdiag_agent as agent, svcdiag_netns as netns};
