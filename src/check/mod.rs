//! `svcdiag check`: the verdict on one Service, with the user's own rights and nothing installed.
//!
//! `gather` reads what the engine needs, `diagnose` judges, `tree` prints.

mod gather;
mod tree;

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::json;

use crate::{
    api::{ConditionStatus, PortRef, ServiceDiagnosis, ServiceDiagnosisSpec},
    diagnosis::{Diagnosis, Facts, diagnose},
};

pub use gather::GatherError;
pub use tree::{Style, render};

/// What to check and how to print it.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
It reads the API objects with your own rights. Where node agents run and a ServiceDiagnosis of the Service \
exists, what they saw is used as well; else the stages that need a look from a node are Unknown.

Examples:
  # Why does the Service hostnames not work?
  svcdiag check hostnames

  # In another namespace, for the one port that matters, with all evidence
  svcdiag check hostnames -n shop --ports http -o wide

  # From the Pods that really use it, in another namespace
  svcdiag check hostnames -n shop --client-namespace web --client-selector app=frontend

  # In a pipeline, where no node agents run: fail on any fault in the API objects
  svcdiag check hostnames -n shop --api-only

  # As the controller would write it
  svcdiag check hostnames -o yaml

Exit codes:
  0  the Service works (with --api-only: no fault in the API objects)
  1  it is broken; the root cause is printed
  2  not known, for example because no node agent has looked at the data path
  3  usage or access error")]
pub struct Options {
    /// Name of the Service; the form service/NAME or svc/NAME is accepted, too
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    service: String,

    /// Namespace of the Service [default: that of the kubeconfig's context]
    #[arg(short, long)]
    namespace: Option<String>,

    /// Service ports that clients use, by number or name [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    ports: Vec<String>,

    /// Labels of the Pods that are clients of the Service, for example app=web
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    client_selector: Vec<(String, String)>,

    /// Namespace of the client Pods [default: that of the Service]
    #[arg(long, value_name = "NAMESPACE")]
    client_namespace: Option<String>,

    /// Namespace of the node agents, whose findings are used where a ServiceDiagnosis asks for them
    #[arg(long, value_name = "NAMESPACE", default_value = "svcdiag-system")]
    agent_namespace: String,

    /// Judge the API objects only: a Service without fault in them gives exit code 0
    #[arg(long)]
    api_only: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// Path of the kubeconfig [default: $KUBECONFIG, else ~/.kube/config, else the Pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,

    /// Context of the kubeconfig [default: its current context]
    #[arg(long)]
    context: Option<String>,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The stages as a tree, with root cause and remedy
    Table,
    /// The same with all reasons and observations
    Wide,
    /// A ServiceDiagnosis as JSON
    Json,
    /// A ServiceDiagnosis as YAML
    Yaml,
}

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The Service works.
    Works,
    /// It is broken.
    Broken,
    /// Not known.
    NotKnown,
}

impl Answer {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Works => 0,
            Self::Broken => 1,
            Self::NotKnown => 2,
        }
    }

    /// What a Diagnosis answers; without a look at the data path, if that is not asked for.
    #[must_use]
    pub fn of(diagnosis: &Diagnosis, api_only: bool) -> Self {
        match diagnosis.ready.status {
            ConditionStatus::True => Self::Works,
            ConditionStatus::False => Self::Broken,
            ConditionStatus::Unknown if api_only && diagnosis.api_is_faultless() => Self::Works,
            ConditionStatus::Unknown => Self::NotKnown,
        }
    }
}

/// Why a check gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable kubeconfig.
    #[error("could not read the kubeconfig: {0}; name one with --kubeconfig or $KUBECONFIG")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// No kubeconfig was found, and this is no Pod.
    #[error(
        "could not find out how to reach the cluster: {0}; name a kubeconfig with --kubeconfig or $KUBECONFIG"
    )]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made from the configuration.
    #[error("could not make a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Something could not be read.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// The answer could not be printed.
    #[error("could not write the answer: {0}")]
    Output(#[from] std::io::Error),
    /// The answer could not be put into the output format.
    #[error("could not write the answer as {0:?}: {1}")]
    Format(Output, String),
}

/// Reads, judges and prints.
///
/// # Errors
/// When the cluster cannot be reached, a right that is needed is missing, or the output cannot be written.
pub async fn run(options: Options) -> Result<Answer, Error> {
    let config = config(&options).await?;
    let namespace = options
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|e| Error::Client(Box::new(e)))?;
    let facts = gather::gather(
        &client,
        &namespace,
        spec(&options),
        &options.agent_namespace,
        jiff::Timestamp::now(),
    )
    .await?;
    let diagnosis = diagnose(&facts);
    let text = print(&options, &facts, &diagnosis)?;
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(Answer::of(&diagnosis, options.api_only))
}

async fn config(options: &Options) -> Result<Config, Error> {
    let kubeconfig = |e| Error::Kubeconfig(Box::new(e));
    let chosen = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &options.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(kubeconfig)?;
        return Config::from_custom_kubeconfig(file, &chosen)
            .await
            .map_err(kubeconfig);
    }
    if options.context.is_some() {
        return Config::from_kubeconfig(&chosen).await.map_err(kubeconfig);
    }
    Config::infer().await.map_err(|e| Error::Infer(Box::new(e)))
}

fn spec(options: &Options) -> ServiceDiagnosisSpec {
    let mut spec = ServiceDiagnosisSpec::for_service(&options.service);
    let port = |p: &String| {
        p.parse()
            .map_or_else(|_| PortRef::String(p.clone()), PortRef::Int)
    };
    spec.ports = options.ports.iter().map(port).collect();
    spec.clients.namespace.clone_from(&options.client_namespace);
    if !options.client_selector.is_empty() {
        spec.clients.pod_selector = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
            match_labels: Some(options.client_selector.iter().cloned().collect()),
            match_expressions: None,
        });
    }
    spec
}

fn print(options: &Options, facts: &Facts, diagnosis: &Diagnosis) -> Result<String, Error> {
    let object = || {
        let mut object = ServiceDiagnosis::new(&facts.spec.service_name, facts.spec.clone());
        object.metadata.namespace = Some(facts.namespace.clone());
        object.status = Some(diagnosis.status(None, None, facts.now));
        object
    };
    let failed = |e: String| Error::Format(options.output, e);
    Ok(match options.output {
        Output::Table | Output::Wide => render(facts, diagnosis, options.output == Output::Wide, style()),
        Output::Json => {
            serde_json::to_string_pretty(&json!(object())).map_err(|e| failed(e.to_string()))? + "\n"
        }
        Output::Yaml => serde_saphyr::to_string(&object()).map_err(|e| failed(e.to_string()))?,
    })
}

/// Colours and line art only where they are understood: on a terminal that is not `dumb`, unless
/// NO_COLOR (<https://no-color.org>) or the locale say otherwise.
fn style() -> Style {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let terminal = std::io::stdout().is_terminal() && set("TERM").is_none_or(|t| t != "dumb");
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(set)
        .unwrap_or_default()
        .to_lowercase();
    Style {
        colour: terminal && set("NO_COLOR").is_none(),
        unicode: terminal && (locale.contains("utf-8") || locale.contains("utf8")),
    }
}

fn service_name(argument: &str) -> Result<String, String> {
    let name = argument
        .strip_prefix("service/")
        .or(argument.strip_prefix("svc/"))
        .unwrap_or(argument);
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
        return Err(format!(
            "{name:?} cannot be the name of a Service: up to 63 lower-case letters, digits and dashes"
        ));
    }
    Ok(name.to_owned())
}

fn label(argument: &str) -> Result<(String, String), String> {
    let (key, value) = argument
        .split_once('=')
        .ok_or_else(|| format!("{argument:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
