//! The command line: arguments, what both commands share, and how they end.

mod demo;
mod needs;
mod screen;
mod session;
mod tour;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use svcdiag_sandbox::{
    error::chain,
    kernel::{DataPath, Wiring},
    proxy::{self, ProxyMode},
    workload::{self, Workload},
};
use tokio::signal::unix::{SignalKind, signal};

use screen::Screen;
use session::Session;

/// The status that a shell gives to a program ended by ^C.
const INTERRUPTED: u8 = 130;

/// A local Kubernetes cluster to see svcdiag at work.
///
/// It needs no Docker and no root: an API server on loopback; stand-ins for the controllers, the scheduler, the
/// kubelets, kube-proxy and cluster DNS; nodes and Pods as network namespaces with rules in the kernel; and the
/// real svcdiag controller and agents as children. Who is not root becomes root of a user namespace. With
/// KUBEBUILDER_ASSETS naming a directory that holds etcd and kube-apiserver, that real pair serves the API.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  svcdiag-sandbox demo                     break the walk-through five times and watch svcdiag find out
  svcdiag-sandbox demo --all               break it in every stage
  svcdiag-sandbox demo --only A08,N30      just these two
  svcdiag-sandbox demo --data-path none    objects only: no nodes in the kernel
  svcdiag-sandbox demo --list              all faults
  svcdiag-sandbox up                       a cluster to try things on; ^C ends it"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// A process inside the cluster
    #[command(hide = true, subcommand)]
    Workload(Workload),
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start a cluster with the walk-through of "Debug Services" in it and keep it until ^C
    #[command(after_help = "\
Examples:
  svcdiag-sandbox up
  svcdiag-sandbox up --data-path iptables
  svcdiag-sandbox up --no-controller --state /tmp/sandbox
  KUBEBUILDER_ASSETS=$(setup-envtest use -p path) svcdiag-sandbox up")]
    Up(up::Options),
    /// Guided tour: break the walk-through, see the verdict, fix it again
    #[command(after_help = "\
Exit status: 0 if svcdiag found every cause, 1 otherwise.

Examples:
  svcdiag-sandbox demo
  svcdiag-sandbox demo --all
  svcdiag-sandbox demo --only A01,N30
  svcdiag-sandbox demo --only N13 --data-path iptables-legacy
  NO_COLOR=1 svcdiag-sandbox demo > demo.log")]
    Demo(demo::Options),
}

/// What `up` and `demo` have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Directory for the kubeconfig and the logs [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Directory of the CRD manifests to install [default: crds/ of the source tree]
    #[arg(long, value_name = "DIR", env = "SVCDIAG_CRDS")]
    crds: Option<PathBuf>,
    /// How kube-proxy lays its rules out: nftables, nftables-old, iptables or iptables-legacy. With `none`
    /// there are objects only, no nodes and Pods in the kernel and no agents
    #[arg(long, default_value = "nftables", value_name = "MODE", value_parser = proxy_mode)]
    data_path: Mode,
    /// How Pods are linked to their nodes: bridge or ptp
    #[arg(long, default_value = "bridge", value_name = "PLUGIN")]
    wiring: Wiring,
    /// Namespace for the walk-through
    #[arg(long, default_value = "default", value_name = "NAME")]
    namespace: String,
}

/// A mode, or none.
#[derive(Clone, Copy, Debug)]
struct Mode(Option<ProxyMode>);

fn proxy_mode(text: &str) -> Result<Mode, String> {
    match text {
        "none" => Ok(Mode(None)),
        mode => mode
            .parse()
            .map(|mode| Mode(Some(mode)))
            .map_err(|error: proxy::UnknownMode| format!("{error}, none")),
    }
}

impl Common {
    /// The machine side of the cluster, if one is wanted.
    fn data_path(&self) -> Option<DataPath> {
        self.data_path.0.map(|proxy| DataPath {
            proxy,
            wiring: self.wiring,
        })
    }
}

/// Any error of a command; they end on the screen as one line with all causes.
type Failure = Box<dyn std::error::Error>;

impl Arguments {
    /// Becomes root of a user namespace where the command needs it and we are not root. To be called while the
    /// process has no other threads yet.
    pub(crate) fn become_root_if_needed(&self) -> Result<(), ExitCode> {
        let Command::Cluster(command) = &self.command else {
            return Ok(());
        };
        let common = match command {
            ClusterCommand::Demo(options) if options.list => return Ok(()),
            ClusterCommand::Up(options) => &options.common,
            ClusterCommand::Demo(options) => &options.common,
        };
        match common.data_path() {
            None => Ok(()),
            Some(_) => needs::become_root().map_err(|error| finish(Err(error))),
        }
    }
}

/// Runs the command to its end, or to the first SIGINT or SIGTERM; either way everything started is stopped.
pub(crate) async fn run(arguments: Arguments) -> ExitCode {
    let screen = Screen;
    let command = match arguments.command {
        Command::Cluster(command) => command,
        Command::Workload(workload) => {
            let ended = workload::run(workload).await;
            return finish(ended.map(|()| true).map_err(Into::into));
        }
    };
    let common = match &command {
        ClusterCommand::Demo(options) if options.list => return finish(tour::list(&screen)),
        ClusterCommand::Up(options) => &options.common,
        ClusterCommand::Demo(options) => &options.common,
    };
    let mut session = Session::new(common.clone());
    let outcome = {
        let work = async {
            match &command {
                ClusterCommand::Up(options) => up::run(options, &mut session, &screen).await.map(|()| true),
                ClusterCommand::Demo(options) => demo::run(options, &mut session, &screen).await,
            }
        };
        tokio::select! {
            outcome = work => Some(outcome),
            () = interrupted() => None,
        }
    };
    session.stop().await;
    match outcome {
        Some(outcome) => finish(outcome),
        // Ending `up` is what ^C is for.
        None if matches!(command, ClusterCommand::Up(_)) => {
            screen.say("\nStopped; nothing is left behind.");
            ExitCode::SUCCESS
        }
        None => {
            screen.say("\nInterrupted; everything is stopped.");
            ExitCode::from(INTERRUPTED)
        }
    }
}

fn finish(outcome: Result<bool, Failure>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("svcdiag-sandbox: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Returns at the first SIGINT or SIGTERM.
async fn interrupted() {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match signals {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end us at once; children are then ended by their guards or by init.
        _ => std::future::pending().await,
    }
}
