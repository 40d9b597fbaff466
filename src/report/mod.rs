//! Printing of a diagnosis, and the exit codes: the same for a cluster and for a bundle.

mod answer;
mod columns;
#[cfg(test)]
mod fixtures;
mod html;
mod junit;
mod path;
mod service_name;
mod tree;

pub use answer::{Answer, Output, Printing, write};
pub(crate) use answer::{junit, list, object, serialized};
pub(crate) use columns::columns;
pub(crate) use html::html;
pub use path::{Hop, Place, State, hops};
pub(crate) use service_name::service_name;
pub(crate) use tree::root_cause;
pub use tree::{Style, printable, render};

/// Why an answer could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be written.
    #[error("could not write the answer: {0}")]
    Output(#[from] std::io::Error),
    /// It could not be serialized.
    #[error("could not write the answer as {0:?}: {1}")]
    Format(Output, String),
}
