//! iptables mode.
use super::{Cluster, NodeView, Script};
pub struct Backend;
pub const NF_TABLES: Backend = Backend;
pub const LEGACY: Backend = Backend;
pub fn rules(_backend: &Backend, _cluster: &Cluster, _node: &NodeView) -> Vec<Script> {
    Vec::new()
}
pub fn cleanup(_backend: &Backend) -> Vec<Script> {
    Vec::new()
}
