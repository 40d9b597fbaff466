//! What operating systems do in different ways: opening the files of others, keeping one's own private, and how a
//! program is asked to end.
//!
//! `unix` and `windows` have the same items, so that this is the one place that asks which of them this is. Only what runs on
//! a node is limited to Linux; `src/lib.rs` and `src/main.rs` leave it out elsewhere.

#[cfg(not(windows))]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use unix as this;
#[cfg(windows)]
use windows as this;

pub use this::Termination;
pub(crate) use this::{
    END_OF_INPUT, open_without_following, open_without_waiting, private_directory, private_file, special,
};

#[cfg(test)]
mod tests;
