//! What a command has started, in one place, so that it is stopped in order however the command ends.

use std::time::{Duration, Instant};

use svcdiag_sandbox::cluster::{self, Cluster, ClusterConfig, DataPath};
use svcdiag_sandbox::error::chain;
use svcdiag_sandbox::faults::{Fixture, Verdict};
use svcdiag_sandbox::svcdiag::{self, Agents, Controller};

use super::{Common, Failure, Screen, needs};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A cluster and, perhaps, the svcdiag controller and agents on it.
pub(crate) struct Session {
    common: Common,
    cluster: Option<Cluster>,
    controller: Option<Controller>,
    agents: Option<Agents>,
}

impl Session {
    pub(crate) fn new(common: Common) -> Self {
        Self {
            common,
            cluster: None,
            controller: None,
            agents: None,
        }
    }

    /// Starts a cluster; what was started before is stopped.
    pub(crate) async fn start_cluster(
        &mut self,
        data_path: Option<DataPath>,
        screen: &Screen,
    ) -> Result<&Cluster, Failure> {
        self.stop().await;
        if let Some(data_path) = data_path {
            needs::missing_programs(data_path)?;
        }
        let mut config = ClusterConfig {
            state: self.common.state.clone(),
            data_path,
            ..ClusterConfig::default()
        };
        if let Some(crds) = &self.common.crds {
            config.crds.clone_from(crds);
        }
        screen.step("starting a cluster of three nodes ...");
        let start = Instant::now();
        let started = Cluster::start(config).await.map_err(explain)?;
        let cluster = self.cluster.insert(started);
        let took = start.elapsed().as_secs_f64();
        screen.good(&format!(
            "{} answers at {} ({took:.1} s)",
            cluster.describe(),
            cluster.url()
        ));
        Ok(cluster)
    }

    /// Starts the controller on the cluster.
    pub(crate) fn start_controller(&mut self, screen: &Screen) -> Result<(), Failure> {
        let Some(cluster) = &self.cluster else {
            return Err("the cluster is not running".into());
        };
        let program = svcdiag::find_binary()?;
        let controller = Controller::start(&program, cluster.kubeconfig_path(), cluster.state_dir(), &[])?;
        screen.good(&format!(
            "{} controller runs, log {}",
            program.display(),
            controller.log().display()
        ));
        self.controller = Some(controller);
        if cluster.kernel().is_some() {
            self.agents = Some(Agents::start(&program, cluster)?);
            screen.good("an agent runs on each node");
        }
        Ok(())
    }

    /// Waits for a verdict that `wanted` accepts; the last one seen comes back either way.
    pub(crate) async fn wait_for_verdict(
        &mut self,
        fixture: &Fixture,
        within: Duration,
        wanted: impl Fn(&Verdict) -> bool,
    ) -> Result<(Verdict, bool), Failure> {
        let start = Instant::now();
        loop {
            self.check()?;
            let verdict = fixture.verdict().await?;
            if wanted(&verdict) {
                return Ok((verdict, true));
            }
            if start.elapsed() > within {
                return Ok((verdict, false));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// An error if the controller has died.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        if let Some(controller) = &mut self.controller {
            controller.check()?;
        }
        if let Some(agents) = &mut self.agents {
            agents.check()?;
        }
        Ok(())
    }

    /// Stops what was started, the agents first.
    pub(crate) async fn stop(&mut self) {
        if let Some(agents) = self.agents.take() {
            agents.stop().await;
        }
        if let Some(controller) = self.controller.take() {
            controller.stop().await;
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await;
        }
    }
}

/// What to do about nodes that cannot be had.
fn explain(error: cluster::Error) -> Failure {
    match &error {
        cluster::Error::Kernel(_) => format!("{}. {}", chain(&error), needs::WITHOUT).into(),
        _ => error.into(),
    }
}
