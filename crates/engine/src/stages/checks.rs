//! What stages begin with: whether their question arises at all.
//!
//! A stage is a list of named checks. Each is a function whose name says what it finds; the first one that finds
//! something answers for the stage, so the order of a list is the precedence. The lists of a stage are constants at the
//! top of its file: first checks of the Evidence, then of what the stage has made of it.

use crate::{Finding, applicable, evidence::Evidence};

/// A check of the Evidence: the answer of the stage, if it finds what it is named after.
pub(super) type Check = fn(&Evidence<'_>) -> Option<Finding>;

/// There is no Service.
pub(super) fn no_service(evidence: &Evidence<'_>) -> Option<Finding> {
    let is_missing = evidence.service.is_none();
    is_missing.then(|| Finding::not_applicable("There is no Service."))
}

/// kube-proxy has nothing to do with the Service.
pub(super) fn not_proxied(evidence: &Evidence<'_>) -> Option<Finding> {
    applicable::not_proxied(evidence.facts)
}

/// The Service has no address of its own.
pub(super) fn without_address(evidence: &Evidence<'_>) -> Option<Finding> {
    applicable::without_address(evidence.facts)
}
