//! One error for all requests of the sandbox: which operation failed on which object.

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct RequestError {
    /// What was tried: `create`, `list`, `update the status of`, ...
    pub operation: &'static str,
    /// On which object, as in `Pod default/client`.
    pub object: String,
    /// What the client said.
    pub source: Box<kube::Error>,
}

impl RequestError {
    /// Whether the server said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        is_not_found(&self.source)
    }

    /// Whether the object was changed, or made, by somebody else in between.
    pub fn is_conflict(&self) -> bool {
        is_status(&self.source, 409)
    }
}

/// Names the operation and the object of a failed request.
pub trait Context<T> {
    /// Wraps the error, if any; the object's name is only built for a failure.
    fn during(self, operation: &'static str, object: impl FnOnce() -> String) -> Result<T, RequestError>;
}

impl<T> Context<T> for Result<T, kube::Error> {
    fn during(self, operation: &'static str, object: impl FnOnce() -> String) -> Result<T, RequestError> {
        self.map_err(|source| RequestError {
            operation,
            object: object(),
            source: Box::new(source),
        })
    }
}

/// Turns "not found" into `None`: for things that may already be gone.
pub fn optional<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns "exists already" into `None`: for things that somebody else may have made.
pub fn unless_exists<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    is_status(error, 404)
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// An error with all its causes in one line, for logs and screens.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
