//! The command line of svcdiag.

#[cfg(target_os = "linux")]
mod node_commands;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anstream::{AutoStream, ColorChoice};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::Shell;
use svcdiag::{
    api, bundle::diagnose, check, cluster::KubeconfigFile, collect, completion, controller, diagnoses,
    explain, man, report, system::Termination, version,
};
use tokio::runtime::Runtime;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The allocator of musl takes half as long again for a verdict (`benches/evaluate.rs`), and the released binaries are
/// linked to musl.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Exit code for usage and access errors; 1 and 2 are answers of `svcdiag check`, `diagnose` and `wait`.
const EXIT_ERROR: u8 = 3;

/// Why does this Kubernetes Service not work?
///
/// svcdiag follows the decision tree of the Kubernetes page "Debug Services" and reports, with evidence,
/// which stage fails first and what to do about it.
#[derive(Parser)]
#[command(name = "svcdiag", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// When to print colours: on a terminal and as NO_COLOR and CLICOLOR_FORCE say (auto), always, or never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Check a Service now, with your kubeconfig; nothing has to be installed in the cluster
    Check(Box<check::Options>),
    /// List ServiceDiagnoses with their verdicts, what does not work first
    List(Box<diagnoses::list::Options>),
    /// Wait until ServiceDiagnoses have a condition, for example Ready
    Wait(Box<diagnoses::wait::Options>),
    /// Collect what is needed to diagnose a Service into a bundle of files
    Collect(Box<collect::Options>),
    /// Diagnose a Service from a bundle of files, without access to a cluster
    Diagnose(diagnose::Options),
    /// Explain a reason: what it means, its usual causes, and what to type
    Explain(explain::Options),
    /// Run the controller that keeps every ServiceDiagnosis up to date
    Controller(Box<Logging<ControllerOptions>>),
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    Node(node_commands::NodeCommand),
    /// Print the CustomResourceDefinitions, or write them to a directory
    Crd {
        /// Write one file per CRD into this directory [default: print all to standard output]
        #[arg(long, value_name = "DIR")]
        output_dir: Option<PathBuf>,
    },
    /// Print the script that completes commands, options and their values in a shell
    #[command(after_long_help = COMPLETION)]
    Completion {
        /// Shell to print it for
        shell: Shell,
    },
    /// Write manual pages, one for each command
    Man(man::Options),
    /// Print which build this is: version, commit, date, compiler and platform
    Version(version::Options),
}

/// Options of the controller, which may run outside of the cluster as well.
#[derive(Args)]
struct ControllerOptions {
    #[command(flatten)]
    options: controller::Options,
    #[command(flatten)]
    file: KubeconfigFile,
}

/// Options of a program that logs.
#[derive(Args)]
struct Logging<T: Args> {
    #[command(flatten)]
    options: T,
    /// Form of the log on standard error: lines to read, or an object of JSON for each
    #[arg(
        long,
        env = "SVCDIAG_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

const COMPLETION: &str = "\
Names of Services, ServiceDiagnoses, namespaces, contexts, clusters and users, and reasons, are completed as well: those of \
the cluster and namespace that the command line names.

Examples:
  # In bash, now and in every new shell
  source <(svcdiag completion bash)
  echo 'source <(svcdiag completion bash)' >> ~/.bashrc

  # In zsh
  svcdiag completion zsh > \"${fpath[1]}/_svcdiag\"

  # In fish
  svcdiag completion fish > ~/.config/fish/completions/svcdiag.fish

  # In PowerShell
  svcdiag completion powershell | Out-String | Invoke-Expression

As a plugin of kubectl, in every shell in which kubectl completes: kubectl asks a program kubectl_complete-svcdiag on the \
PATH, which this one is by that name.

  ln -s \"$(command -v kubectl-svcdiag)\" ~/.local/bin/kubectl_complete-svcdiag";

/// The file by which kubectl finds its plugin.
const PLUGIN: &str = "kubectl-svcdiag";

/// The command line, as the user calls it: as a plugin this program is `kubectl svcdiag`.
fn command_line(program: Option<OsString>) -> clap::Command {
    let command = Cli::command();
    let name = program.map(PathBuf::from);
    let is_plugin = name
        .as_deref()
        .and_then(|p| p.file_stem())
        .is_some_and(|n| n == PLUGIN);
    if is_plugin { as_plugin(command) } else { command }
}

fn as_plugin(command: clap::Command) -> clap::Command {
    command
        .bin_name("kubectl svcdiag")
        .mut_subcommands(|of| match of.get_after_long_help() {
            // Examples stand indented on lines of their own.
            Some(help) => {
                let help = help.to_string().replace("\n  svcdiag ", "\n  kubectl svcdiag ");
                of.after_long_help(help)
            }
            None => of,
        })
}

fn main() -> ExitCode {
    match completion::answer(Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(EXIT_ERROR);
        }
    }
    let parsed = command_line(std::env::args_os().next())
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; nothing can be done when printing fails.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_ERROR),
            };
        }
    };
    ColorChoice::from(cli.color).write_global();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Why a command ended without an answer.
type Failure = Box<dyn std::error::Error>;

/// Each thread keeps the tools that pack NodeProbes, and no command has work for as many as a large machine would get.
const MOST_THREADS: usize = 4;

/// Threads begin here: not before a command needs them.
fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_THREADS))
        .enable_all()
        .build()
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(options) => Ok(ExitCode::from(runtime()?.block_on(check::run(*options))?.code())),
        Command::List(options) => {
            runtime()?.block_on(diagnoses::list::run(*options))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Wait(options) => {
            let outcome = runtime()?.block_on(diagnoses::wait::run(*options))?;
            Ok(ExitCode::from(outcome.code()))
        }
        Command::Collect(options) => {
            runtime()?.block_on(collect::run(*options))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Diagnose(options) => Ok(ExitCode::from(diagnose::run(&options)?.code())),
        Command::Controller(command) => runtime()?.block_on(async {
            let Logging { options, log_format } = *command;
            let ControllerOptions { options, file } = options;
            let shutdown = start(log_format)?;
            let config = file.connect().await?;
            controller::run(options, config, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        }),
        #[cfg(target_os = "linux")]
        Command::Node(command) => node_commands::run(command),
        Command::Crd { output_dir } => crd(output_dir).map(|()| ExitCode::SUCCESS),
        Command::Explain(options) => {
            explain::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            report::write(&completion::script(shell)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(options) => {
            man::run(options, Cli::command())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Version(options) => {
            version::run(options)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn crd(output_dir: Option<PathBuf>) -> Result<(), Failure> {
    for (name, manifest) in api::crd_manifests()? {
        match &output_dir {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, manifest)
                    .map_err(|e| format!("could not write {}: {e}", path.display()))?;
            }
            None => print!("---\n{manifest}"),
        }
    }
    Ok(())
}

/// What controller and agent begin with: logs, the limit on open files, and the signals that end them.
fn start(log: LogFormat) -> Result<impl Future<Output = ()> + Send, Failure> {
    // The client logs every request without an answer as an error; who made it says so once, and what it was for.
    let usual = "info,kube=warn,kube_client::client::builder=off";
    let filter = tracing_subscriber::EnvFilter::try_from_env("SVCDIAG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match log {
        LogFormat::Text => logs
            .with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never)
            .boxed(),
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(logs);
    #[cfg(feature = "opentelemetry")]
    let (subscriber, sending) = {
        let (layer, sending) = svcdiag_traces::layer("svcdiag", env!("CARGO_PKG_VERSION"))?.unzip();
        (subscriber.with(layer), sending)
    };
    subscriber.init();
    // The default of 1,024 is for programs that use select.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "Could not raise the limit on open files.");
    }
    // Now, so that none is lost before somebody waits for it.
    let mut termination = Termination::new()?;
    Ok(async move {
        termination.comes().await;
        // The last spans are sent.
        #[cfg(feature = "opentelemetry")]
        drop(sending);
    })
}
