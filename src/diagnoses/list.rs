//! `svcdiag list`: the ServiceDiagnoses of a namespace or of the cluster, a line for each, what does not work first.
//!
//! The columns are those of `kubectl get svcdiag`, which sorts by name.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{Error, Selection, age::age, full_name, read};
use crate::{
    api::{ConditionStatus, ConditionType, ServiceDiagnosis, Summary},
    cluster::{ClusterOptions, Connection},
    report::{self, Output, columns, printable},
};

/// Which diagnoses to list, and how.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Reads the ServiceDiagnoses that are in the cluster, with the verdicts of the controller: Ready False first, then Unknown, \
then True. The columns are those of kubectl get svcdiag; ? is a cell that is not known, n/a one that does not apply.

Examples:
  # What does not work in this namespace, or anywhere?
  svcdiag list
  svcdiag list -A

  # With the message of Ready, the mode of kube-proxy, and since when Ready is what it is
  svcdiag list -A -o wide

  # Those of two teams, without the canaries
  svcdiag list -A -l 'team in (web,search),track!=canary'

  # Names for a script
  svcdiag list -n shop -o name

Exit codes:
  0  the list was printed, whatever the verdicts
  3  usage or access error")]
pub struct Options {
    /// List the ServiceDiagnoses of every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Labels to select by, as for kubectl: app=web, app!=web, 'app in (web,api)', app, '!app', joined by commas
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Print no headings
    #[arg(long)]
    no_headers: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each diagnosis
    #[default]
    Table,
    /// The same with the message of Ready, the mode of kube-proxy, and since when
    Wide,
    /// A List of ServiceDiagnoses as JSON
    Json,
    /// A List of ServiceDiagnoses as YAML
    Yaml,
    /// Kind and name of each
    Name,
}

/// Reads and prints.
///
/// # Errors
/// When the cluster cannot be reached, does not have the kind or does not let the user read it, or the list cannot be
/// written.
pub async fn run(options: Options) -> Result<(), Error> {
    options.cluster.limiting(list(&options)).await
}

async fn list(options: &Options) -> Result<(), Error> {
    let Connection {
        client,
        namespace,
        server,
    } = options.cluster.connect().await?;
    let of = Selection {
        namespace: (!options.all_namespaces).then_some(namespace.as_str()),
        labels: options.selector.as_deref(),
    };
    let mut diagnoses = read(&client, &server, of).await?;
    sort(&mut diagnoses);
    if diagnoses.is_empty() {
        let all = of
            .namespace
            .map_or_else(|| "-A".to_owned(), |n| format!("-n {n}"));
        eprintln!(
            "No ServiceDiagnoses found in {}. Check Services without any: svcdiag check {all}",
            of.describe()
        );
    }
    let all: Vec<&ServiceDiagnosis> = diagnoses.iter().collect();
    let text = match options.output {
        Format::Json => report::serialized(Output::Json, &report::list(&all))?,
        Format::Yaml => report::serialized(Output::Yaml, &report::list(&all))?,
        Format::Name => all.iter().map(|d| full_name(&d.name_any()) + "\n").collect(),
        Format::Table | Format::Wide => Table {
            has_headings: !options.no_headers,
            has_namespaces: options.all_namespaces,
            is_wide: options.output == Format::Wide,
        }
        .of(&diagnoses, crate::clock::now()),
    };
    report::write(&text)?;
    Ok(())
}

/// What does not work first, then what is not known; beside that by namespace and name.
fn sort(diagnoses: &mut [ServiceDiagnosis]) {
    let order = |ready: &str| {
        [
            ConditionStatus::False,
            ConditionStatus::Unknown,
            ConditionStatus::True,
        ]
        .iter()
        .position(|status| status.as_str() == ready)
    };
    diagnoses.sort_by_key(|d| (order(ready(d).0), d.namespace(), d.name_any()));
}

/// Status and reason of Ready. Before the first verdict there is no reason.
fn ready(diagnosis: &ServiceDiagnosis) -> (&str, &str) {
    let status = diagnosis.status.as_ref();
    let ready = status.and_then(|s| s.condition(ConditionType::Ready));
    ready.map_or((ConditionStatus::Unknown.as_str(), ""), |c| {
        (&c.status, &c.reason)
    })
}

/// How the table looks.
#[derive(Clone, Copy)]
struct Table {
    has_headings: bool,
    has_namespaces: bool,
    is_wide: bool,
}

/// Headings of the CRD's columns, those of `-o wide` last.
const HEADINGS: [&str; 12] = [
    "NAME",
    "READY",
    "REASON",
    "SERVICE",
    "ENDPOINTS",
    "DNS",
    "PROXY",
    "HAIRPIN",
    "AGE",
    "MESSAGE",
    "MODE",
    "SINCE",
];

/// How many of them are not of `-o wide` alone.
const NARROW: usize = 9;

impl Table {
    fn of(self, diagnoses: &[ServiceDiagnosis], now: Timestamp) -> String {
        if diagnoses.is_empty() {
            return String::new();
        }
        let headings = self.row("NAMESPACE".to_owned(), &HEADINGS.map(str::to_owned));
        let rows = diagnoses
            .iter()
            .map(|d| self.row(d.namespace().unwrap_or_default(), &cells(d, now)));
        let rows: Vec<Vec<String>> = std::iter::once(headings)
            .filter(|_| self.has_headings)
            .chain(rows)
            .collect();
        columns(&rows)
    }

    /// The cells that are shown.
    fn row(self, namespace: String, cells: &[String; HEADINGS.len()]) -> Vec<String> {
        let shown = if self.is_wide {
            &cells[..]
        } else {
            &cells[..NARROW]
        };
        let namespace = self.has_namespaces.then_some(namespace);
        namespace.into_iter().chain(shown.iter().cloned()).collect()
    }
}

/// The cells of a diagnosis. An empty one would shift the columns for a script that splits lines at spaces.
fn cells(diagnosis: &ServiceDiagnosis, now: Timestamp) -> [String; HEADINGS.len()] {
    let status = diagnosis.status.as_ref();
    let condition = status.and_then(|s| s.condition(ConditionType::Ready));
    let (verdict, reason) = ready(diagnosis);
    let summary = status.and_then(|s| s.summary.as_ref());
    let of = |cell: fn(&Summary) -> &String| summary.map_or("?", |s| cell(s).as_str());
    let created = diagnosis.creation_timestamp();
    let since = condition.map(|c| age(c.last_transition_time.0, now));
    let mode = status.and_then(|s| s.proxy_mode.as_deref());
    let age = created.map(|time| age(time.0, now));
    [
        diagnosis.name_any().as_str(),
        verdict,
        reason,
        diagnosis.spec.service_name.as_str(),
        of(|s| &s.endpoints),
        of(|s| &s.dns),
        of(|s| &s.proxy),
        of(|s| &s.hairpin),
        age.as_deref().unwrap_or_default(),
        condition.map_or("", |c| c.message.as_str()),
        mode.unwrap_or_default(),
        since.as_deref().unwrap_or_default(),
    ]
    .map(|cell| match cell {
        "" => "-".to_owned(),
        cell => printable(cell).replace('\n', " "),
    })
}

#[cfg(test)]
mod tests;
