//! Why the API server could not be asked, in the terms in which users know it from kubectl.

use std::{fmt, io};

use kube::client::AuthError;

/// Most of what a credential plugin said that is repeated.
const MAX_WORDS: usize = 2_000;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Server {
    /// URL from the kubeconfig, or the command line.
    pub url: String,
    /// Context in the kubeconfig; absent in a Pod, and where the command line names the server.
    pub context: Option<String>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server {}", self.url.trim_end_matches('/'))?;
        match &self.context {
            Some(context) => write!(f, " (context {context})"),
            None => Ok(()),
        }
    }
}

/// What is wrong with the connection, and what to check; `None` for an answer of an API server to a request.
pub(super) fn explained(error: &kube::Error, server: &Server) -> Option<String> {
    match error {
        kube::Error::Api(status) if status.code == 401 => Some(format!(
            "{server} does not accept your credentials (401 Unauthorized): log in again, or check the user in the kubeconfig or --token"
        )),
        kube::Error::Auth(error) => Some(of_credentials(error, server)),
        kube::Error::Service(error) => Some(of_transport(error.as_ref(), server)),
        kube::Error::HyperError(error) => Some(of_transport(error, server)),
        _ => None,
    }
}

/// What answers, but does not serve the kinds that every API server does.
pub(super) fn no_api_server(server: &Server) -> String {
    format!(
        "{server} does not answer as a Kubernetes API server does: check its URL in the kubeconfig or --server"
    )
}

fn of_credentials(error: &AuthError, server: &Server) -> String {
    let why = match error {
        // The command may have secrets among its arguments.
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let said: String = said.trim().chars().take(MAX_WORDS).collect();
            format!(
                "the credential plugin of the kubeconfig failed ({}): {said}",
                out.status
            )
        }
        AuthError::AuthExecStart(error) => {
            format!("the credential plugin of the kubeconfig could not be started: {error}")
        }
        other => other.to_string(),
    };
    format!("no credentials for {server}: {}", crate::report::printable(&why))
}

fn of_transport(error: &(dyn std::error::Error + 'static), server: &Server) -> String {
    if let Some(auth) = causes(error).find_map(|e| e.downcast_ref::<AuthError>()) {
        return of_credentials(auth, server);
    }
    if causes(error).any(is_refused) {
        return format!(
            "the connection to {server} was refused: check that the cluster runs, and the host and port in the kubeconfig or --server"
        );
    }
    let innermost = causes(error).last().unwrap_or(error);
    let said: Vec<String> = causes(error).map(ToString::to_string).collect();
    let says = |words: &str| said.iter().any(|text| text.contains(words));
    if says("dns error") || says("failed to lookup address") {
        return format!(
            "{server} was not found by its name ({innermost}): check the host in the kubeconfig or --server"
        );
    }
    if says("certificate") {
        return format!(
            "the certificate of {server} is not trusted ({innermost}): check certificate-authority and tls-server-name in the kubeconfig, or the options of these names"
        );
    }
    format!("{server} could not be reached: {innermost}")
}

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// An error and what is behind it.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests;
