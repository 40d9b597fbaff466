//! `svcdiag-sandbox up`: a cluster with the walk-through in it, until somebody ends it.

use std::time::Duration;

use clap::Args;
use svcdiag_sandbox::faults::Scene;

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
    screen.heading("A pocket cluster with the walk-through of \"Debug Services\"");
    let cluster = session.start_cluster(screen).await?;
    let kubeconfig = cluster.kubeconfig_path().display().to_string();
    let scene = Scene::new(cluster.client(), &options.common.namespace);
    if options.controller || !options.no_controller {
        session.start_controller(screen)?;
    }
    scene.set_up().await?;
    screen.good(&format!(
        "Service {}/{} has three ready endpoints",
        scene.namespace(),
        Scene::NAME
    ));

    let namespace = match scene.namespace() {
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
        "annotate pods -l app=hostnames sandbox.svcdiag.dev/ready=false   # readiness fails; ready- mends it",
        "get svcdiag hostnames -o jsonpath='{.status.rootCause.remediation}'",
    ] {
        screen.say(&format!("kubectl{namespace} {command}"));
    }
    screen.heading("Running until ^C.");
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        session.check()?;
    }
}
