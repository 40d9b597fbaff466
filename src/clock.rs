//! The clock of the controller and the command line. What judges is given the time as a value.

use jiff::Timestamp;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the clock")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
