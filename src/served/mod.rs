//! What an API server serves beyond what every cluster has: kinds that need not be installed.

mod policies;

pub use policies::{POLICY_KINDS, policy_kind, policy_kinds};

/// Whether a list, a watch or a request for what a group serves was refused because the API server does not
/// serve such a thing. For a group that is not installed it answers `404 page not found` in plain text, for
/// one of its own a Status; in both cases the client makes a Status of it, with the code.
#[must_use]
pub fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
