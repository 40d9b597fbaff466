//! Evidence that was collected by hand.

pub mod text;
