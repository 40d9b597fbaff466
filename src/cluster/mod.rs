//! How a command reaches a cluster: the options that kubectl has as well (`options`), single requests with their timeouts
//! (`request`), and what is wrong when there is no answer, in the terms of kubectl (`connection`).

mod connection;
mod duration;
mod options;
mod overrides;
mod request;

use kube::config::{InferConfigError, KubeconfigError};

pub use connection::Server;
pub(crate) use duration::duration;
pub(crate) use options::Names;
pub use options::{ClusterOptions, Connection, KubeconfigFile};
pub use request::RequestError;
pub(crate) use request::{Listable, Request, api_in, ask, each, list, list_in, optional, pages};

/// Why a cluster did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable kubeconfig.
    #[error("could not read the kubeconfig: {0}; set --kubeconfig or $KUBECONFIG")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// No kubeconfig was found, and this is not a Pod.
    #[error("could not determine how to reach the cluster: {0}; set --kubeconfig or $KUBECONFIG")]
    Infer(#[source] Box<InferConfigError>),
    /// The kubeconfig does not have what an option names.
    #[error("the kubeconfig has no {what} {name:?}; it has {}", known.join(", "))]
    NotInKubeconfig {
        /// What the option names.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that the kubeconfig has.
        known: Vec<String>,
    },
    /// The client could not be made from the configuration.
    #[error("could not create a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The API server could not be reached, or does not accept the user.
    #[error("{0}")]
    Connection(String),
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What is read first of a cluster, in words.
const FIRST: &str = "list services ";

impl Error {
    /// What answers does not do so as an API server does.
    pub(crate) fn no_api_server(server: &Server) -> Self {
        Self::Connection(connection::no_api_server(server))
    }

    /// What went wrong while something was read from a server.
    pub(crate) fn of(error: RequestError, server: &Server) -> Self {
        let what = match &error {
            // Of all answers only the first tells what answers: later ones are of an API server.
            RequestError::Api { source, what } if matches!(**source, kube::Error::SerdeError(_)) => {
                what.starts_with(FIRST).then(|| connection::no_api_server(server))
            }
            RequestError::Api { source, .. } => connection::explained(source, server),
            RequestError::Timeout { what, .. } => Some(format!("{server} does not answer: could not {what}")),
            // Every API server has Services.
            RequestError::NotServed { what } if what.starts_with(FIRST) => {
                Some(connection::no_api_server(server))
            }
            _ => None,
        };
        what.map_or(Self::Request(error), Self::Connection)
    }
}
