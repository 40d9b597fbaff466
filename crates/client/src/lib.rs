//! Access to an API server: clients for long-running programs, the meaning of errors, and what is served.

#![forbid(unsafe_code)]

mod errors;
mod long_running;
mod policy_kinds;
pub mod routes;
mod schema;

pub use errors::{is_absent, is_going, is_not_served, is_of_schema, is_outage};
pub use long_running::{Pauses, for_long_runs};
pub use policy_kinds::policy_kinds;
pub use schema::schemas;
