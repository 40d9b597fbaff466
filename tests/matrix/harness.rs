//! A local cluster with kernel state, the controller and an agent on each node, and the walk-through.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use svcdiag::api::{NodeFacts, NodeProbe, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath, NODES},
    error::chain,
    faults::{Fault, Fixture, Verdict, catalogue, data_path_catalogue},
    kernel::Wiring,
    proxy::ProxyMode,
    svcdiag::{Agents, Controller},
};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

/// A round takes a dial, its time-out, and all that a second time. How soon that is is for the benches to say:
/// what takes as long as this hangs.
pub(crate) const SOON: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Namespace of the walk-through.
pub(crate) const NAMESPACE: &str = "default";

/// Why something did not go as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A verdict, or the state that it is about, did not come about in time. The cluster may be at fault.
    #[error("{0}")]
    Late(String),
    /// What came about is wrong.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// A step that had to be taken and could not be, or not in time.
    pub(crate) fn of_step(step: &'static str) -> impl Fn(svcdiag_sandbox::faults::Error) -> Self {
        move |error| Self::Late(format!("{step}: {}", chain(&error)))
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

impl From<String> for Failure {
    /// What nobody expected to fail.
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// How the cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) mode: ProxyMode,
    pub wiring: Wiring,
}

/// Judges something on a cluster in kube-proxy's default mode.
pub(crate) async fn on_a_cluster(judge: impl AsyncFnOnce(&Harness) -> Result<(), String>) {
    let kind = Kind {
        mode: ProxyMode::Nftables,
        wiring: Wiring::Bridge,
    };
    let harness = Harness::start(kind).await.unwrap();
    let result = judge(&harness).await;
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}

/// A cluster to run scenarios on.
pub(crate) struct Harness {
    pub cluster: Cluster,
    pub fixture: Fixture,
    pub agents: Agents,
    /// None where a test starts its own.
    controller: Option<Controller>,
    kind: Kind,
}

impl Harness {
    /// All that it takes, and the walk-through found well.
    pub(crate) async fn start(kind: Kind) -> Result<Self, Failure> {
        let mut harness = Self::start_without_agents(kind).await?;
        harness.start_agents()?;
        harness.wait("well at the start", SOON, Verdict::works).await?;
        Ok(harness)
    }

    /// The same before any agent has come.
    pub(crate) async fn start_without_agents(kind: Kind) -> Result<Self, String> {
        let mut harness = Self::start_without_svcdiag(kind).await?;
        // Rounds of the scenarios follow one another faster than those of a tenant may.
        let arguments = ["--min-probe-interval", "0"];
        let cluster = &harness.cluster;
        let controller = Controller::start(
            Path::new(BINARY),
            cluster.kubeconfig_path(),
            cluster.state_dir(),
            &arguments,
        );
        harness.controller = Some(controller.map_err(|e| chain(&e))?);
        Ok(harness)
    }

    /// The cluster and the walk-through, and neither controller nor agents.
    pub(crate) async fn start_without_svcdiag(kind: Kind) -> Result<Self, String> {
        let config = ClusterConfig {
            data_path: Some(DataPath {
                proxy: kind.mode,
                wiring: kind.wiring,
            }),
            // The dials of the agents are the point; the objects' API is judged elsewhere.
            assets: None,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::start(config).await.map_err(|e| chain(&e))?;
        let agents = Agents::of(Path::new(BINARY), &cluster);
        let fixture = Fixture::of(&cluster, NAMESPACE);
        let harness = Self {
            cluster,
            fixture,
            agents,
            controller: None,
            kind,
        };
        harness.fixture.set_up().await.map_err(|e| chain(&e))?;
        // Short, so that faults that make packets vanish are seen soon.
        harness
            .patch(
                json!({ "spec": { "intervalSeconds": 10, "probe": { "timeoutSeconds": 2, "attempts": 1 } } }),
            )
            .await?;
        Ok(harness)
    }

    /// Starts the agents that do not run.
    pub(crate) fn start_agents(&mut self) -> Result<(), String> {
        NODES
            .iter()
            .try_for_each(|node| self.agents.start_on(node).map_err(|e| chain(&e)))
    }

    /// Kills all agents.
    pub(crate) async fn kill_agents(&mut self) {
        for node in NODES {
            self.agents.kill_on(node).await;
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Breaks something, and has the agents probe at once: they need not be waited for to see what no object shows.
    pub(crate) async fn inject(&self, fault: &Fault) -> Result<(), Failure> {
        fault
            .inject(&self.fixture)
            .await
            .map_err(Failure::of_step("inject"))?;
        self.fixture.refresh().await.map_err(|e| chain(&e))?;
        Ok(())
    }

    /// The longest time since the last call by which kube-proxy was behind the objects.
    pub(crate) fn longest_lag(&self) -> Duration {
        self.cluster
            .kernel()
            .map(|kernel| kernel.longest_lag())
            .unwrap_or_default()
    }

    pub(crate) fn diagnoses(&self) -> Api<ServiceDiagnosis> {
        Api::namespaced(self.cluster.client(), NAMESPACE)
    }

    /// The Service's address.
    pub(crate) async fn service_address(&self) -> Result<String, String> {
        let services: Api<Service> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let service = services.get(Fixture::NAME).await.map_err(|e| chain(&e))?;
        let address = service.spec.and_then(|s| s.cluster_ip);
        address.ok_or_else(|| "the Service has no address".to_owned())
    }

    /// Changes the diagnosis.
    pub(crate) async fn patch(&self, patch: serde_json::Value) -> Result<(), String> {
        self.diagnoses()
            .patch(Fixture::NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .map_err(|e| chain(&e))
    }

    /// Has the agents probe at once, and waits until each has.
    pub(crate) async fn round(&self, within: Duration) -> Result<(), Failure> {
        let name = |p: &NodeProbe| p.metadata.name.clone().unwrap_or_default();
        let before = self.probes().await?;
        let before: BTreeMap<String, String> = before
            .iter()
            .map(|p| (name(p), p.spec.revision.clone()))
            .collect();
        self.fixture.refresh().await.map_err(|e| chain(&e))?;
        let start = Instant::now();
        // Where objects change all the time, a newer question may come before the answer.
        let mut asked: BTreeMap<String, Option<i64>> = BTreeMap::new();
        loop {
            let mut open = 0;
            for probe in self.probes().await? {
                let name = name(&probe);
                if before.get(&name) == Some(&probe.spec.revision) {
                    open += 1;
                    continue;
                }
                let asked = *asked.entry(name).or_insert(probe.metadata.generation);
                if probe.status.and_then(|s| s.observed_generation) < asked {
                    open += 1;
                }
            }
            if open == 0 {
                return Ok(());
            }
            if start.elapsed() > within {
                return Err(Failure::Late(format!("{open} agents did not finish a round")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// What the agents were asked and answered.
    pub(crate) async fn probes(&self) -> Result<Vec<NodeProbe>, String> {
        let probes: Api<NodeProbe> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let all = probes.list(&ListParams::default()).await;
        all.map(|l| l.items).map_err(|e| chain(&e))
    }

    /// Fixes what was broken, and waits until all is well.
    pub(crate) async fn fix(&self, fault: &Fault) -> Result<(), Failure> {
        fault
            .undo(&self.fixture)
            .await
            .map_err(Failure::of_step("undo"))?;
        self.settle().await
    }

    /// Waits until everything is as at the start: rollouts have ended, rules have followed them, and every
    /// agent has found all well since then. A verdict alone may be older than what was undone.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        self.fixture
            .wait_until_settled()
            .await
            .map_err(Failure::of_step("undo"))?;
        let start = Instant::now();
        while start.elapsed() < SOON {
            self.round(SOON).await?;
            let is_well = |facts: &NodeFacts| {
                let gaps = facts.rules.as_ref().is_some_and(|rules| !rules.gaps.is_empty());
                facts.probes_failed == 0 && !gaps
            };
            let mut seen = self.probes().await?.into_iter().map(|p| p.status?.facts);
            if seen.all(|facts| facts.is_some_and(|facts| is_well(&facts))) {
                break;
            }
        }
        self.wait("well again", SOON, Verdict::works).await.map(drop)
    }

    /// Waits until a fault is found.
    pub(crate) async fn find(&self, fault: &Fault) -> Result<Verdict, Failure> {
        let expected = |v: &Verdict| fault.expected.is_met_by(v);
        self.wait(&fault.expected.to_string(), SOON, expected).await
    }

    /// The verdict on a bundle that is collected now.
    pub(crate) async fn verdict_of_a_bundle(&self) -> Result<Verdict, String> {
        let directory = tempfile::tempdir().map_err(|e| chain(&e))?;
        let bundle = directory.path().join("bundle.tar.gz");
        let bundle = bundle.to_string_lossy();
        self.svcdiag(&["collect", Fixture::NAME, "-n", NAMESPACE, "-o", &bundle])
            .await?;
        let printed = self
            .svcdiag(&["diagnose", "--bundle", &bundle, "-o", "json"])
            .await?;
        let mut diagnosis: serde_json::Value =
            serde_json::from_slice(&printed).map_err(|e| format!("not JSON: {e}"))?;
        // What is printed is an answer to what was asked, and says so nowhere.
        diagnosis["metadata"]["generation"] = json!(1);
        diagnosis["status"]["observedGeneration"] = json!(1);
        Ok(Verdict::read(&diagnosis))
    }

    /// What a command of the binary prints, whatever the verdict.
    pub(crate) async fn svcdiag(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let output = tokio::process::Command::new(BINARY)
            .args(arguments)
            .env("KUBECONFIG", self.cluster.kubeconfig_path())
            .output()
            .await
            .map_err(|e| chain(&e))?;
        match output.status.code() {
            Some(0..=2) => Ok(output.stdout),
            _ => Err(format!(
                "svcdiag {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    /// Does the work, and ends it as soon as anything is False.
    pub(crate) async fn unblamed_while<T>(
        &self,
        work: impl Future<Output = Result<T, impl Into<String>>>,
    ) -> Result<T, String> {
        let blamed = async {
            loop {
                if let Ok(verdict) = self.fixture.verdict().await
                    && !verdict.broken_stages().is_empty()
                {
                    break self.told(&verdict).await;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            result = work => result.map_err(Into::into),
            told = blamed => Err(format!("false blame: {told}")),
        }
    }

    /// Waits for a verdict that passes; every root cause on the way is noted, with what was said and seen then.
    pub(crate) async fn wait_noting(
        &self,
        what: &str,
        within: Duration,
        passes: impl Fn(&Verdict) -> bool,
        noted: &mut BTreeMap<String, String>,
    ) -> Result<Verdict, Failure> {
        let start = Instant::now();
        loop {
            let verdict = match self.fixture.verdict().await {
                Ok(verdict) => verdict,
                // A connection may still be one to an API server that was restarted.
                Err(_) if start.elapsed() < within => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    continue;
                }
                Err(error) => return Err(chain(&error).into()),
            };
            if passes(&verdict) {
                return Ok(verdict);
            }
            let cause = verdict.to_string();
            if !verdict.broken_stages().is_empty() && !noted.contains_key(&cause) {
                noted.insert(cause, self.told(&verdict).await);
            }
            if start.elapsed() > within {
                return Err(Failure::Late(format!(
                    "not {what} within {within:?}: {}",
                    self.told(&verdict).await
                )));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for a verdict that passes.
    pub(crate) async fn wait(
        &self,
        what: &str,
        within: Duration,
        passes: impl Fn(&Verdict) -> bool,
    ) -> Result<Verdict, Failure> {
        self.wait_noting(what, within, passes, &mut BTreeMap::new()).await
    }

    /// The verdict with its messages and what the agents saw, for whoever reads the failure.
    pub(crate) async fn told(&self, verdict: &Verdict) -> String {
        let mut text = format!("{verdict}\n{}", self.log());
        for node in NODES {
            let log = std::fs::read_to_string(self.agents.log(node)).unwrap_or_default();
            text.push_str(&format!("    {node} has logged: {}\n", cut(&log, 2000)));
        }
        if let Ok(diagnosis) = self.diagnoses().get(Fixture::NAME).await {
            for c in diagnosis.status.iter().flat_map(|s| &s.conditions) {
                text.push_str(&format!(
                    "    {} {} {}: {}\n",
                    c.type_, c.status, c.reason, c.message
                ));
            }
        }
        let probes: Api<NodeProbe> = Api::namespaced(self.cluster.client(), NAMESPACE);
        if let Ok(all) = probes.list(&ListParams::default()).await {
            for probe in all {
                let facts = probe.status.and_then(|s| s.facts);
                let facts = serde_json::to_string(&facts).unwrap_or_default();
                text.push_str(&format!("    {}: {}\n", probe.spec.node_name, cut(&facts, 3000)));
            }
        }
        text
    }

    /// What the controller has logged.
    fn log(&self) -> String {
        let log = self.controller.as_ref().map(Controller::log);
        log.and_then(|log| std::fs::read_to_string(log).ok())
            .unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        self.agents.stop().await;
        if let Some(controller) = self.controller {
            controller.stop().await;
        }
        self.cluster.stop().await;
    }
}

/// A fault of the catalogue.
pub(crate) fn fault(id: &str) -> Fault {
    let mut all = [data_path_catalogue(), catalogue()]
        .into_iter()
        .flat_map(Result::unwrap);
    all.find(|f| f.id == id).unwrap()
}

fn cut(text: &str, most: usize) -> &str {
    text.char_indices()
        .nth(most)
        .map_or(text, |(end, _)| &text[..end])
}
