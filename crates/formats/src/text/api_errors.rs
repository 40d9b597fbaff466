//! Errors of kube-proxy's way to the API server, and signs that it works.
//!
//! Source: client-go's tools/cache/reflector.go, and the errors of Go's net and crypto/x509.

use super::LogTime;

/// An error on the way to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What kind.
    pub kind: ApiErrorKind,
    /// Its line, from 1.
    pub line: usize,
    /// When.
    pub at: Option<LogTime>,
    /// The last line after it that shows that something came from the API server, and when.
    pub recovered: Option<(usize, Option<LogTime>)>,
}

/// Kinds of errors on the way to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// There is no way there.
    Unreachable,
    /// Its name is not known.
    NotResolved,
    /// One side does not trust the other's certificate.
    Certificate,
    /// 401: it does not know who asks.
    Unauthorized,
    /// 403: kube-proxy may not do that.
    Forbidden,
}

/// Lines that kube-proxy writes when something came from the API server. "Syncing iptables rules" is none:
/// it does that by itself as well.
pub(super) fn is_from_api(message: &str) -> bool {
    [
        "Caches populated",
        "aches are synced",
        "Adding new service",
        "Updating existing service",
        "Removing service",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// The error on the way to the API server that a message tells of, if it does.
pub(super) fn api_error(message: &str) -> Option<ApiErrorKind> {
    let lower = message.to_lowercase();
    let is_about_api = [
        "failed to list",
        "failed to watch",
        "failed to retrieve node",
        "unable to load services",
        "unable to load endpoints",
        "unable to list",
        "reflector",
    ]
    .iter()
    .any(|known| lower.contains(known));
    let kinds = [
        ("connection refused", ApiErrorKind::Refused),
        ("i/o timeout", ApiErrorKind::TimedOut),
        ("handshake timeout", ApiErrorKind::TimedOut),
        ("deadline exceeded", ApiErrorKind::TimedOut),
        ("connection timed out", ApiErrorKind::TimedOut),
        ("no route to host", ApiErrorKind::Unreachable),
        ("network is unreachable", ApiErrorKind::Unreachable),
        ("no such host", ApiErrorKind::NotResolved),
        ("x509", ApiErrorKind::Certificate),
        ("unauthorized", ApiErrorKind::Unauthorized),
        ("forbidden", ApiErrorKind::Forbidden),
    ];
    let (_, kind) = kinds.iter().find(|(words, _)| lower.contains(words))?;
    is_about_api.then_some(*kind)
}
