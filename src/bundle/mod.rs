//! What was collected from a cluster and its nodes, read without them.

pub mod rules;
