//! Why does this Kubernetes Service not work? See `README.md`.

pub mod api;
pub mod check;
pub mod diagnosis;
pub mod objects;
