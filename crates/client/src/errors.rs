//! What an error of the API server means.

use kube::core::Status;

/// Whether the API server was not reached, or was too busy: what it refuses, it has heard.
#[must_use]
pub fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        kube::Error::Api(status) => matches!(status.code, 429 | 502 | 503 | 504),
        _ => false,
    }
}

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
