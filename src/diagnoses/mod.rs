//! Commands on the ServiceDiagnoses of a cluster: `list` prints them, `wait` waits until they have a condition.

mod age;
pub mod list;
pub mod wait;

use std::io;

use kube::{Client, api::ListParams};

use crate::{
    api::{GROUP, ServiceDiagnosis},
    cluster::{self, Request, RequestError, Server, api_in, ask, each},
    report,
};

/// Where it is said how svcdiag is installed.
const INSTALL: &str = "https://github.com/svcdiag/svcdiag/blob/main/docs/install.md";

/// Why a command on ServiceDiagnoses failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The cluster does not have the kind.
    #[error(
        "ServiceDiagnoses are not installed: {server} does not serve {GROUP}\n\
         Install svcdiag: {INSTALL}\n\
         Or check every Service now, with nothing installed: svcdiag check -A"
    )]
    NotInstalled {
        /// The API server.
        server: Server,
    },
    /// The API server cannot parse the label selector.
    #[error(
        "--selector {selector:?} is not a label selector: {why}\n\
         Write it as for kubectl, for example app=web or 'app in (web,api),!canary'"
    )]
    Selector {
        /// What the user typed.
        selector: String,
        /// What the API server says of it.
        why: String,
    },
    /// There is no such object.
    #[error(
        "ServiceDiagnosis {name} does not exist in namespace {namespace}\nList those that do: svcdiag list -n {namespace}"
    )]
    NotFound {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// Nothing is selected.
    #[error("{0}")]
    NoneSelected(String),
    /// The answer could not be printed.
    #[error(transparent)]
    Print(#[from] report::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Print(report::Error::Output(error))
    }
}

/// Which of the cluster's diagnoses.
#[derive(Clone, Copy, Debug)]
struct Selection<'a> {
    /// All namespaces if absent.
    namespace: Option<&'a str>,
    /// Label selector.
    labels: Option<&'a str>,
}

impl Selection<'_> {
    /// The place and the labels, in words.
    fn describe(self) -> String {
        let place = self
            .namespace
            .map_or_else(|| "any namespace".to_owned(), |n| format!("namespace {n}"));
        match self.labels {
            Some(labels) => format!("{place} with labels {labels}"),
            None => place,
        }
    }
}

/// All diagnoses of a selection, with all their metadata but the managed fields.
async fn read(client: &Client, server: &Server, of: Selection<'_>) -> Result<Vec<ServiceDiagnosis>, Error> {
    let api = api_in::<ServiceDiagnosis>(client, of.namespace);
    let params = ListParams {
        label_selector: of.labels.map(str::to_owned),
        ..ListParams::default()
    };
    let request = || Request::list::<ServiceDiagnosis>(of.namespace);
    let mut found = Vec::new();
    let listed = each(&api, params, request, |mut diagnosis: ServiceDiagnosis| {
        diagnosis.metadata.managed_fields = None;
        found.push(diagnosis);
    });
    match listed.await {
        Ok(()) => Ok(found),
        Err(error) => Err(explained(error, client, server, of.labels).await),
    }
}

/// What an error means to somebody who asked for diagnoses.
async fn explained(error: RequestError, client: &Client, server: &Server, labels: Option<&str>) -> Error {
    match (error, labels) {
        (RequestError::NotServed { .. }, _) => {
            // A web server that is no API server does not serve the kind either.
            match ask(client.apiserver_version(), Request::version).await {
                Ok(_) | Err(RequestError::Forbidden { .. }) => Error::NotInstalled {
                    server: server.clone(),
                },
                Err(_) => cluster::Error::no_api_server(server).into(),
            }
        }
        (RequestError::Api { source, what }, Some(labels)) => match *source {
            kube::Error::Api(status) if status.code == 400 => Error::Selector {
                selector: labels.to_owned(),
                why: report::printable(&status.message),
            },
            other => {
                let source = Box::new(other);
                cluster::Error::of(RequestError::Api { what, source }, server).into()
            }
        },
        (error, _) => cluster::Error::of(error, server).into(),
    }
}

/// The name of a diagnosis in an argument: as kubectl prints it, or alone.
fn diagnosis_name(argument: &str) -> Result<String, String> {
    let name = match argument.split_once('/') {
        None => argument,
        Some((
            "svcdiag" | "servicediagnosis" | "servicediagnoses" | "servicediagnosis.svcdiag.dev",
            name,
        )) => name,
        Some((kind, _)) => {
            return Err(format!(
                "{kind} is not ServiceDiagnosis: use NAME or svcdiag/NAME"
            ));
        }
    };
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if name.is_empty() || name.len() > 253 || !name.chars().all(valid) {
        return Err(format!(
            "{name:?} is not a valid name for a ServiceDiagnosis: use lower-case letters, digits, dashes and dots"
        ));
    }
    Ok(name.to_owned())
}

/// A diagnosis as kubectl names it.
fn full_name(diagnosis_name: &str) -> String {
    format!("servicediagnosis.{GROUP}/{diagnosis_name}")
}

#[cfg(test)]
mod tests;
