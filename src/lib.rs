//! Why does this Kubernetes Service not work? See `README.md`.

#![forbid(unsafe_code)]

pub mod agent;
pub mod bundle;
pub mod check;
pub mod client;
pub mod collect;
pub mod controller;
pub mod report;
pub mod served;
mod serving;

pub use svcdiag_api as api;
pub use svcdiag_engine as diagnosis;
pub use svcdiag_engine::inventory;
pub use svcdiag_formats as formats;
pub use svcdiag_kube_proxy as proxy;
pub use svcdiag_netns as netns;
pub use svcdiag_objects as objects;
