//! What an error of the API server means.

use kube::core::Status;

/// Whether the API server was unreachable or too busy; a rejection shows that it was reached.
#[must_use]
pub fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        kube::Error::Api(status) => matches!(status.code, 429 | 502 | 503 | 504),
        _ => false,
    }
}

/// Whether a list, a watch or a discovery request failed because the API server does not serve that kind or group. For a
/// group that is not installed it answers `404 page not found` in plain text, for one of its own a Status. The client
/// converts the text to a Status as well, but with another reason, so `is_not_found` is false: only the code shows it.
#[must_use]
pub fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_absent(status))
}

/// Whether the object of a request, its namespace or its kind does not exist.
#[must_use]
pub fn is_absent(status: &Status) -> bool {
    status.code == 404
}

/// Whether a write was rejected because its object is gone or its Namespace is being deleted.
#[must_use]
pub fn is_going(refusal: &Status) -> bool {
    let mut causes = refusal.details.iter().flat_map(|d| &d.causes);
    is_absent(refusal) || causes.any(|c| c.reason == "NamespaceTerminating")
}

/// Whether a write was rejected because of something that the installed CRD does not know. An unknown field in an apply is
/// an internal error (500) that only its text distinguishes from others; an unknown enum value is Invalid (422).
#[must_use]
pub fn is_of_schema(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 422 || status.code == 500 && status.message.contains("field not declared in schema"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_refuses_is_no_outage() {
        let refused = |code| kube::Error::Api(kube::core::Status::failure("", "").with_code(code).boxed());
        assert!(!is_outage(&refused(403)) && !is_outage(&refused(409)) && !is_outage(&refused(500)));
        assert!(is_outage(&refused(429)) && is_outage(&refused(503)));
    }
}
