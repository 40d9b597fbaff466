//! What an API server serves beyond what every cluster has: kinds that need not be installed.

mod policies;
mod schema;

use kube::core::Status;

pub use policies::{POLICY_KINDS, policy_kind, policy_kinds};
pub use schema::schemas;

/// Whether a list, a watch or a request for what a group serves was refused because the API server does not
/// serve such a thing. For a group that is not installed it answers `404 page not found` in plain text, for
/// one of its own a Status. The client makes a Status of the text, too, but with a reason of its own, so that
/// `is_not_found` does not hold: only the code says what it is.
#[must_use]
pub fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_absent(status))
}

/// Whether what a request is about is not there: the object, its namespace, or its kind.
#[must_use]
pub fn is_absent(status: &Status) -> bool {
    status.code == 404
}

/// Whether a write was refused because what it is about has gone, or its Namespace is being deleted.
#[must_use]
pub fn is_going(refusal: &Status) -> bool {
    let mut causes = refusal.details.iter().flat_map(|d| &d.causes);
    is_absent(refusal) || causes.any(|c| c.reason == "NamespaceTerminating")
}

/// Whether a write was refused for what the installed CRD does not know. An unknown field in an apply is an error
/// of the server's own (500) that only its words tell from others; an unknown value of an enum is Invalid (422).
#[must_use]
pub fn is_of_schema(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 422 || status.code == 500 && status.message.contains("field not declared in schema"))
}
