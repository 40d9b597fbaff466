//! stub
use super::super::{Facts, Finding};
use crate::api::Reason;
pub(super) fn endpoints_reachable(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
pub(super) fn kube_proxy_healthy(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
pub(super) fn proxy_rules_present(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
pub(super) fn proxy_forwards(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
pub(super) fn service_reachable(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
pub(super) fn hairpin_ok(_: &Facts) -> Finding { Finding::unknown(Reason::NoVantagePoint, "") }
