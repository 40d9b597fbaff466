//! Times that may lie outside of what a timestamp holds.

use jiff::{SignedDuration, Timestamp};

/// A time that far in the future; the end of time where there is none.
pub(crate) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
