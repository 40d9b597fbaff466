//! What support engineers paste: output of commands and logs, as text.
//!
//! One module per form; each turns text into a small value and does no IO. Lines that are not understood
//! are passed over, since people paste prompts, comments and halves of lines. A text of which nothing is
//! understood is a [`ParseError`], never a good sign. [`prompt`] cuts a text into commands and outputs.

pub mod error;
pub mod prompt;
pub mod ps;

pub use error::ParseError;
