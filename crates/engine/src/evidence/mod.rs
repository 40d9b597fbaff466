//! What the agents' reports prove.

pub(crate) mod dials;
pub(crate) mod explaining;
pub(crate) mod listening;
pub(crate) mod passing;
pub(crate) mod paths;
pub(crate) mod proxies;
pub(crate) mod reports;
pub(crate) mod targets;
