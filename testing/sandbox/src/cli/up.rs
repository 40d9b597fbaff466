//! `svcdiag-sandbox up`: a cluster with the walk-through in it, until somebody ends it.

use std::time::Duration;

use clap::Args;
use svcdiag_sandbox::{faults::Fixture, kernel::Kernel};

use super::{Common, Failure, Screen, Session};

const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) common: Common,
    /// Run the svcdiag controller (the default)
    #[arg(long, overrides_with = "no_controller")]
    controller: bool,
    /// Do not run the svcdiag controller
    #[arg(long)]
    no_controller: bool,
}

/// Starts everything and stays until dropped.
pub(super) async fn run(options: &Options, session: &mut Session, screen: &Screen) -> Result<(), Failure> {
    screen.heading("A local cluster with the walk-through of \"Debug Services\"");
    let cluster = session.start_cluster(options.common.data_path(), screen).await?;
    let runs_svcdiag = options.controller || !options.no_controller;
    let kubeconfig = cluster.kubeconfig_path().display().to_string();
    let fixture = Fixture::of(cluster, &options.common.namespace);
    if runs_svcdiag {
        session.start_controller(screen)?;
    }
    fixture.set_up().await?;
    screen.good(&format!(
        "Service {}/{} has three ready endpoints",
        fixture.namespace(),
        Fixture::NAME
    ));

    let namespace = match fixture.namespace() {
        "default" => String::new(),
        other => format!(" -n {other}"),
    };
    screen.heading("To use it, in another terminal:");
    screen.say(&format!("export KUBECONFIG={kubeconfig}"));
    screen.heading("Commands to try:");
    for command in [
        "get svcdiag -w",
        "get pods,services,endpointslices",
        "patch service hostnames -p '{\"spec\":{\"selector\":{\"app\":\"typo\"}}}'",
        "scale deployment hostnames --replicas=0",
        "annotate pods -l app=hostnames sandbox.svcdiag.dev/ready=false   # readiness fails; ready- fixes it",
        "get svcdiag hostnames -o jsonpath='{.status.rootCause.remediation}'",
    ] {
        screen.say(&format!("kubectl{namespace} {command}"));
    }
    if let Some(kernel) = fixture.kernel() {
        data_path_commands(kernel, &fixture, runs_svcdiag, screen).await;
    }
    screen.heading("Running until ^C.");
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        session.check()?;
    }
}

/// What can be tried on nodes and Pods.
async fn data_path_commands(kernel: &Kernel, fixture: &Fixture, runs_svcdiag: bool, screen: &Screen) {
    screen.heading("And on the data path:");
    for command in [
        "annotate node sandbox-2 sandbox.svcdiag.dev/kube-proxy=stopped   # or hung, stuck, unreachable; kube-proxy- fixes it",
        "-n kube-system annotate pods -l k8s-app=kube-dns sandbox.svcdiag.dev/ready=false   # cluster DNS is not ready",
        "get nodeprobes -A   # what the agents saw; with -o yaml, all of it",
    ] {
        screen.say(&format!("kubectl {command}"));
    }
    if runs_svcdiag {
        let namespace = fixture.namespace();
        screen.say(&format!(
            "kubectl -n {namespace} annotate svcdiag {} --overwrite svcdiag.dev/refresh=\"$(date)\"   # probe now",
            Fixture::NAME
        ));
    }
    let enter = if nix::unistd::getuid().is_root() && !is_in_user_namespace() {
        String::from("nsenter")
    } else {
        // Nodes belong to the user namespace in which we are root.
        format!("nsenter --user=/proc/{}/ns/user", std::process::id())
    };
    screen
        .heading("A shell on a node or in a Pod, as root (`nft list ruleset`, `ip route`, `ss -tln`, ...):");
    for node in kernel.nodes() {
        screen.say(&format!(
            "{enter} --net={} -- sh   # node {}",
            node.netns_path().display(),
            node.name()
        ));
    }
    for (name, path) in kernel.pod_networks().await {
        screen.say(&format!("{enter} --net={} -- sh   # Pod {name}", path.display()));
    }
}

/// Whether root here is somebody else outside.
fn is_in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first: Vec<&str> = map.split_whitespace().take(3).collect();
    first != ["0", "0", "4294967295"]
}
