//! Why does this Kubernetes Service not work? See `README.md`.

pub mod agent;
pub mod api;
pub mod bundle;
pub mod check;
pub mod client;
pub mod collect;
pub mod controller;
pub mod diagnosis;
pub mod inventory;
pub mod objects;
pub mod printable;
pub mod proxy;
pub mod served;
mod serving;
