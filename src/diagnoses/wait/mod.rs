//! `svcdiag wait`: waits until ServiceDiagnoses have a condition, and says why those that do not have it do not.
//!
//! `wanted` is the condition and how a diagnosis stands to it. `waiting` keeps the diagnoses that are waited for as last
//! seen, `run` reads them once and then follows a watch, and `explain` is what is printed in the end.

mod explain;
mod waiting;
mod wanted;

use std::time::Duration;

use clap::{ArgGroup, Args};
use futures::{Stream, StreamExt};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::{Instant, timeout_at};

use self::{
    explain::explain,
    waiting::{Progress, Waiting},
    wanted::Wanted,
};
use super::{Error, Selection, diagnosis_name, explained, read};
use crate::{
    api::ServiceDiagnosis,
    client::{Pauses, is_outage},
    cluster::{ClusterOptions, Connection, Request, RequestError, Server, api_in, ask, duration},
    report,
};

/// What kubectl takes a negative timeout for.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What to wait for.
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("which").args(["names", "selector", "all"]).required(true),
    after_long_help = "\
Waits until all of these ServiceDiagnoses have the condition at the same time. Unlike kubectl wait, it takes no verdict \
on an older generation of the spec for an answer, nor the status that a new object has before its first verdict. It \
prints the reason, the root cause and the fix of each that does not have the condition in time, and fails at once when one \
of them is deleted.

Examples:
  # Until the Service web works, for at most five minutes
  svcdiag wait web -n shop --timeout=5m

  # Until everything with a label works, in all namespaces
  svcdiag wait -A -l 'tier in (frontend,backend)'

  # Without agents: until the Service has endpoints
  svcdiag wait svcdiag/web --for=condition=EndpointsPopulated

  # Until a fault that was injected is found
  svcdiag wait --all -n chaos --for=condition=Ready=False

Exit codes:
  0  all of them have the condition
  1  not in time, or one of them was deleted
  3  usage or access error, for example a name that does not exist")]
pub struct Options {
    /// Names of ServiceDiagnoses; svcdiag/NAME is accepted as well
    #[arg(value_name = "NAME", value_parser = diagnosis_name)]
    names: Vec<String>,

    /// Labels to select by, as for kubectl: app=web, app!=web, 'app in (web,api)', app, '!app', joined by commas
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Wait for every ServiceDiagnosis of the namespace
    #[arg(long)]
    all: bool,

    /// Select in every namespace
    #[arg(short = 'A', long, conflicts_with_all = ["names", "namespace"])]
    all_namespaces: bool,

    /// Condition to wait for; without STATUS, True
    #[arg(long = "for", value_name = "condition=TYPE[=STATUS]", default_value_t)]
    wanted: Wanted,

    /// How long to wait, for example 30s or 5m; 0 looks once, and a negative duration means a week
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "30s", allow_hyphen_values = true)]
    timeout: Duration,

    #[command(flatten)]
    cluster: ClusterOptions,
}

fn timeout(argument: &str) -> Result<Duration, String> {
    match argument.strip_prefix('-') {
        Some(negative) => duration(negative).map(|_| WEEK),
        None => duration(argument),
    }
}

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All have the condition.
    Met,
    /// Some do not have it in time, or were deleted.
    NotMet,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Met => 0,
            Self::NotMet => 1,
        }
    }
}

/// Waits and prints.
///
/// # Errors
/// When the cluster cannot be reached, does not have the kind or does not let the user read and watch it, or when nothing
/// is there to wait for.
pub async fn run(options: Options) -> Result<Outcome, Error> {
    options.cluster.limiting(wait(&options)).await
}

async fn wait(options: &Options) -> Result<Outcome, Error> {
    let end = Instant::now() + options.timeout;
    let Connection {
        client,
        namespace,
        server,
    } = options.cluster.connect().await?;
    let of = Selection {
        namespace: (!options.all_namespaces).then_some(namespace.as_str()),
        labels: options.selector.as_deref(),
    };
    let found = match options.names.is_empty() {
        true => read(&client, &server, of).await?,
        false => named(&client, &server, &namespace, &options.names).await?,
    };
    if found.is_empty() {
        return Err(Error::NoneSelected(format!(
            "no ServiceDiagnosis in {}, so there is nothing to wait for\nList those that exist: svcdiag list -A",
            of.describe()
        )));
    }
    let mut waiting = Waiting::new(options.wanted, found);
    let mut problem = None;
    if waiting.progress() == Progress::Open && !options.timeout.is_zero() {
        let events = changes(&client, of, &options.names);
        let following = follow(&mut waiting, events, &mut problem, of.namespace);
        if let Ok(Err(error)) = timeout_at(end, following).await {
            return Err(explained(error, &client, &server, of.labels).await);
        }
    }
    match waiting.progress() {
        Progress::Met => {
            report::write(&waiting.met(options.all_namespaces))?;
            Ok(Outcome::Met)
        }
        Progress::Open | Progress::Deleted => {
            if let Some(problem) = problem {
                eprintln!("note: the watch was interrupted: {problem}");
            }
            eprint!("{}", explain(&waiting, options.timeout));
            Ok(Outcome::NotMet)
        }
    }
}

/// The diagnoses of these names; all of them have to be there.
async fn named(
    client: &Client,
    server: &Server,
    namespace: &str,
    names: &[String],
) -> Result<Vec<ServiceDiagnosis>, Error> {
    let api: Api<ServiceDiagnosis> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for name in names {
        let request = || Request::get::<ServiceDiagnosis>(name);
        match ask(api.get_opt(name), request).await {
            Ok(Some(diagnosis)) => found.push(diagnosis),
            Ok(None) => {
                return Err(Error::NotFound {
                    name: name.clone(),
                    namespace: namespace.to_owned(),
                });
            }
            Err(error) => return Err(explained(error, client, server, None).await),
        }
    }
    Ok(found)
}

/// What happens to the diagnoses; others of the namespace are among them where several are named.
fn changes(
    client: &Client,
    of: Selection<'_>,
    names: &[String],
) -> impl Stream<Item = watcher::Result<Event<ServiceDiagnosis>>> + Send + use<> {
    let config = watcher::Config {
        label_selector: of.labels.map(str::to_owned),
        // A user who may watch only this one object is allowed to.
        field_selector: match names {
            [name] => Some(format!("metadata.name={name}")),
            _ => None,
        },
        ..watcher::Config::default()
    };
    watcher(api_in(client, of.namespace), config).backoff(Pauses::default())
}

/// Follows the changes until the wait is over. An interrupted watch resumes by itself; what interrupted it last is kept.
async fn follow(
    waiting: &mut Waiting,
    events: impl Stream<Item = watcher::Result<Event<ServiceDiagnosis>>> + Send,
    problem: &mut Option<String>,
    namespace: Option<&str>,
) -> Result<(), RequestError> {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A watch reports that it starts before it has reached the server.
                if !matches!(event, Event::Init) {
                    *problem = None;
                }
                waiting.note(event);
                if waiting.progress() != Progress::Open {
                    return Ok(());
                }
            }
            Err(watcher::Error::InitialListFailed(error)) if is_refusal(&error) => {
                let request = Request::list::<ServiceDiagnosis>(namespace);
                return Err(RequestError::of(error, request));
            }
            Err(watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error))
                if is_refusal(&error) =>
            {
                let request = Request::watch::<ServiceDiagnosis>(namespace);
                return Err(RequestError::of(error, request));
            }
            Err(error) => *problem = Some(error.to_string()),
        }
    }
    Ok(())
}

/// Whether an API server answered that it will not do what it was asked, now or later.
fn is_refusal(error: &kube::Error) -> bool {
    // 410 means that the watch has to begin again.
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 410)
        && !is_outage(error)
}

#[cfg(test)]
mod tests;
