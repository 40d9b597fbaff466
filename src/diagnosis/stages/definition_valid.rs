//! stub
use super::super::{Facts, Finding};
use crate::api::Reason;
pub(super) fn judge(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
