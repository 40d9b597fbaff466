//! `svcdiag check`: diagnoses one Service with the user's own permissions, without anything installed.
//!
//! `gather` reads what the engine needs, `diagnose` evaluates it, `report` prints. `collect` and `diagnose --bundle` do one
//! half each: read into a bundle, and evaluate and print from there.

mod gather;
mod query;
mod request;

use clap::Args;
use kube::config::KubeconfigError;

use crate::report::{self, Answer, Printing};

pub use gather::Gathered;
pub use query::Query;
pub use request::GatherError;

pub(crate) use gather::{asked, gather};
pub(crate) use request::{Request, ask};

/// What to check and how to print it.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
The API objects are read with your own permissions. If node agents are running and the Service has a \
ServiceDiagnosis, their reports are used as well; otherwise the stages that need a node agent are Unknown.

Examples:
  # Why does the Service hostnames not work?
  svcdiag check hostnames

  # In another namespace, for a single port, with all evidence
  svcdiag check hostnames -n shop --ports http -o wide

  # As seen by the actual client Pods, which are in another namespace
  svcdiag check hostnames -n shop --client-namespace web --client-selector app=frontend

  # In a pipeline without node agents: fail on any fault in the API objects
  svcdiag check hostnames -n shop --api-only

  # As a ServiceDiagnosis in YAML
  svcdiag check hostnames -o yaml

Exit codes:
  0  the Service works (with --api-only: no fault in the API objects)
  1  the Service does not work; the root cause is printed
  2  unknown, for example because no node agent has probed the data path
  3  usage or access error")]
pub struct Options {
    #[command(flatten)]
    query: Query,

    #[command(flatten)]
    printing: Printing,
}

/// Why a check gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable kubeconfig.
    #[error("could not read the kubeconfig: {0}; set --kubeconfig or $KUBECONFIG")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// No kubeconfig was found, and this is not a Pod.
    #[error("could not determine how to reach the cluster: {0}; set --kubeconfig or $KUBECONFIG")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made from the configuration.
    #[error("could not create a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Something could not be read.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// The answer could not be printed.
    #[error(transparent)]
    Print(#[from] report::Error),
}

/// Reads, evaluates and prints.
///
/// # Errors
/// When the cluster cannot be reached, a required permission is missing, or the output cannot be written.
pub async fn run(options: Options) -> Result<Answer, Error> {
    let query = &options.query;
    let (client, namespace) = query.connect().await?;
    let now = crate::clock::now();
    let spec = asked(&client, &namespace, query).await;
    let gathered = gather(&client, &namespace, spec, &query.agent_namespace).await?;
    Ok(options.printing.answer(&gathered.facts(now))?)
}
