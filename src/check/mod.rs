//! `svcdiag check`: diagnoses one Service with the user's own permissions, without anything installed.
//!
//! `gather` reads what the engine needs, `diagnose` evaluates it, `report` prints; `survey` does so for every Service.
//! `live` has agents probe a Service that no diagnosis watches.
//! `collect` and `diagnose` do one half each: read into a bundle, and evaluate and print from there.

mod gather;
mod live;
mod query;
mod survey;

use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::{
    api::DataPath,
    cluster::{self, Connection, duration},
    engine::{Diagnosis, Facts, diagnose},
    report::{self, Answer, Printing, service_name},
    system::Termination,
};

pub use gather::Gathered;
pub use query::Query;

use gather::{Everything, gather_every};
pub(crate) use gather::{asked, gather};

/// Pause between two checks of a Service that is to work.
const AGAIN: Duration = Duration::from_secs(2);

/// What to check and how to print it.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
The API objects are read with your own permissions. If node agents are running, they probe the data path: for the \
Service's ServiceDiagnosis if it has one for the same clients (what they report is used if you may read it), or else for one that is created \
for this check and removed at its end, if you may create it (--read-only creates none). A check of all Services creates \
none. Without agents the stages that need one are Unknown.

Examples:
  # Why does the Service hostnames not work?
  svcdiag check hostnames

  # Which Services of a namespace, or of the whole cluster, do not work?
  svcdiag check -n shop
  svcdiag check -A --fail-on broken

  # In another namespace, for a single port, with all evidence
  svcdiag check hostnames -n shop --ports http -o wide

  # As seen by the actual client Pods, which are in another namespace
  svcdiag check hostnames -n shop --client-namespace web --client-selector app=frontend

  # As seen by a Pod, and those with its labels
  svcdiag check hostnames -n shop --from client-7d4b9-x2x5k

  # In a script: wait until it works
  svcdiag check hostnames -n shop --wait --timeout 5m

  # In a pipeline without node agents: fail on any fault in the API objects
  svcdiag check hostnames -n shop --api-only

  # As a ServiceDiagnosis in YAML
  svcdiag check hostnames -o yaml

  # As a page for a ticket, which any browser shows
  svcdiag check hostnames -n shop -o html > hostnames.html

Exit codes:
  0  the Service works (with --api-only: no fault in the API objects)
  1  the Service does not work; the root cause is printed
  2  unknown, for example because no node agent has probed the data path
  3  usage or access error
Without SERVICE the worst answer of all Services counts.")]
pub struct Options {
    /// Name of the Service; service/NAME and svc/NAME are accepted as well [default: every Service of the namespace]
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    service: Option<String>,

    /// Check every Service of every namespace
    #[arg(short = 'A', long, conflicts_with_all = ["service", "namespace"])]
    all_namespaces: bool,

    /// Which answers are a failure
    #[arg(long, value_enum, default_value_t = FailOn::Unknown)]
    fail_on: FailOn,

    /// Create nothing in the cluster, so that agents probe only for a ServiceDiagnosis that is there
    #[arg(long)]
    read_only: bool,

    /// Wait until the Service works, for at most --timeout
    #[arg(short, long, requires = "service")]
    wait: bool,

    /// How long to wait for the agents' answers, for example 30s or 2m
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,

    #[command(flatten)]
    query: Query,

    #[command(flatten)]
    printing: Printing,
}

impl Options {
    /// Whether agents are still to be asked: the Service exists, no diagnosis watches it from these clients, and more than
    /// the API objects counts.
    fn asks_agents(&self, gathered: &Gathered, facts: &Facts) -> bool {
        !self.read_only
            && !self.printing.api_only
            && gathered.is_unwatched
            && facts.service.is_some()
            && facts.spec.data_path != Some(DataPath::Ignore)
    }

    fn answer_to(&self, diagnosis: &Diagnosis) -> Answer {
        Answer::of(diagnosis, self.printing.api_only)
    }
}

/// Which answers the exit code tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Only that a Service does not work
    Broken,
    /// That a Service does not work, or that it is not known whether it does
    Unknown,
    /// None
    Never,
}

impl FailOn {
    fn is_met_by(self, answer: Answer) -> bool {
        match self {
            Self::Broken => answer == Answer::Broken,
            Self::Unknown => answer != Answer::Works,
            Self::Never => false,
        }
    }
}

/// Why a check gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Signals cannot be waited for.
    #[error("could not wait for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The user did not wait for the answer.
    #[error("interrupted before there was an answer")]
    Interrupted,
    /// The answer could not be printed.
    #[error(transparent)]
    Print(#[from] report::Error),
}

/// Reads, evaluates and prints.
///
/// # Errors
/// When the cluster cannot be reached, a required permission is missing, or the output cannot be written.
pub async fn run(options: Options) -> Result<Answer, Error> {
    options.query.cluster.limiting(answer(&options)).await
}

async fn answer(options: &Options) -> Result<Answer, Error> {
    let query = &options.query;
    let Connection {
        client,
        namespace,
        server,
    } = query.cluster.connect().await?;
    let of_server = |error| cluster::Error::of(error, &server);
    let answer = match &options.service {
        Some(service) => {
            let spec = asked(&client, &namespace, service, query).await;
            let spec = spec.map_err(of_server)?;
            let end = Instant::now() + options.timeout;
            let mut termination = Termination::new().map_err(Error::Signals)?;
            // Agents that may not be asked once may not be asked later.
            let mut may_ask = true;
            loop {
                let read = tokio::select! {
                    read = gather(&client, &namespace, spec.clone(), &query.agent_namespace) => read,
                    () = termination.comes() => return Err(Error::Interrupted),
                };
                let gathered = match read {
                    Err(error) if options.wait && error.may_pass() && !is_over(end) => {
                        sleep(AGAIN).await;
                        continue;
                    }
                    read => read.map_err(of_server)?,
                };
                let facts = gathered.facts(crate::clock::now());
                let mut seen = None;
                if may_ask && options.asks_agents(&gathered, &facts) {
                    let until = live::Until {
                        timeout: options.timeout,
                        works_by: options.wait.then_some(end),
                    };
                    match live::probe(&client, &namespace, &spec, until, &mut termination).await? {
                        live::Asked::Answered(verdict) => seen = verdict.map(|verdict| *verdict),
                        live::Asked::NotNow => {}
                        live::Asked::Refused => may_ask = false,
                    }
                }
                let diagnosis = seen.unwrap_or_else(|| diagnose(&facts));
                if !options.wait || options.answer_to(&diagnosis) == Answer::Works || is_over(end) {
                    if gathered.namespace_is_missing {
                        eprintln!("note: namespace {namespace} does not exist");
                    }
                    break options.printing.print(&facts, &diagnosis)?;
                }
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = termination.comes() => return Err(Error::Interrupted),
                }
            }
        }
        None => {
            let place = (!options.all_namespaces).then_some(namespace.as_str());
            let read = gather_every(&client, place, &query.agent_namespace).await;
            let everything = read.map_err(of_server)?;
            survey::run(&everything, place, crate::clock::now(), &options.printing)?
        }
    };
    let fails = options.fail_on.is_met_by(answer);
    Ok(if fails { answer } else { Answer::Works })
}

fn is_over(end: Instant) -> bool {
    Instant::now() + AGAIN > end
}
