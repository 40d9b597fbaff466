//! A local cluster with the real controller on it.

use std::{
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fixture, Verdict},
    kubectl::Kubectl,
    svcdiag::Controller,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

/// Verdicts come within a second. How soon is for the benches to say: what takes as long as this hangs.
pub(crate) const SOON: Duration = Duration::from_secs(180);

/// How often a test polls.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A cluster, the controller and a kubectl.
pub(crate) struct Harness {
    pub cluster: Cluster,
    pub kubectl: Kubectl,
    controller: Controller,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments for the controller.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
        let kubectl = Kubectl::find().await.unwrap();
        Self {
            kubectl: kubectl.with_kubeconfig(cluster.kubeconfig_path()),
            controller: start_controller(&cluster, arguments),
            cluster,
        }
    }

    /// Ends the controller in good order and starts it anew.
    pub(crate) async fn restart_controller(&mut self, arguments: &[&str]) {
        let next = start_controller(&self.cluster, arguments);
        std::mem::replace(&mut self.controller, next).stop().await;
    }

    /// The healthy walk-through in a namespace of its own, with its first verdict.
    pub(crate) async fn fixture(&self, namespace: &str) -> Fixture {
        let fixture = Fixture::new(self.cluster.client(), namespace);
        fixture.set_up().await.unwrap();
        self.wait(&fixture, "healthy", Verdict::is_healthy).await;
        fixture
    }

    /// Waits for a verdict; fails with what was said last.
    pub(crate) async fn wait(
        &self,
        fixture: &Fixture,
        what: &str,
        test: impl Fn(&Verdict) -> bool,
    ) -> Verdict {
        let start = Instant::now();
        loop {
            // A connection may still be one to an API server that was restarted.
            let found = fixture.verdict().await;
            match found {
                Ok(verdict) if test(&verdict) => return verdict,
                _ if start.elapsed() < SOON => {}
                found => panic!(
                    "{} is not {what}: {:#?}\n{}",
                    fixture.namespace(),
                    found.map(|verdict| verdict.conditions().to_owned()),
                    self.log()
                ),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// What the controller has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.controller.log()).unwrap_or_default()
    }

    /// Status line and body of a GET from the controller's HTTP server.
    pub(crate) async fn http(&self, path: &str) -> (String, String) {
        let address = eventually("the controller serves HTTP", async || {
            let log = self.log();
            let after = log.split("address=").nth(1)?;
            after.split_whitespace().next().map(str::to_owned)
        })
        .await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The value of a metric, by the beginning of its line.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        let (_, body) = self.http("/metrics").await;
        let found = body.lines().find(|l| l.starts_with(line))?;
        found.rsplit(' ').next()?.parse().ok()
    }

    /// `svcdiag` with these arguments, on the cluster.
    pub(crate) async fn svcdiag(&self, arguments: &[&str]) -> Output {
        svcdiag(arguments, self.cluster.kubeconfig_path()).await
    }

    pub(crate) async fn stop(self) {
        self.controller.stop().await;
        self.cluster.stop().await;
    }
}

fn start_controller(cluster: &Cluster, arguments: &[&str]) -> Controller {
    Controller::start(
        Path::new(BINARY),
        cluster.kubeconfig_path(),
        cluster.state_dir(),
        arguments,
    )
    .unwrap()
}

/// `svcdiag` with a kubeconfig.
pub(crate) async fn svcdiag(arguments: &[&str], kubeconfig: &Path) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("NO_COLOR");
    command.output().await.unwrap()
}

/// Polls until what is observed has been the same for two seconds.
pub(crate) async fn at_rest<T: PartialEq>(observe: impl AsyncFn() -> T) -> T {
    let (start, mut since, mut last) = (Instant::now(), Instant::now(), observe().await);
    while since.elapsed() < Duration::from_secs(2) {
        assert!(start.elapsed() < SOON, "never at rest within {SOON:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = observe().await;
        if now != last {
            (since, last) = (Instant::now(), now);
        }
    }
    last
}

/// Polls until there is something to observe.
pub(crate) async fn eventually<T>(what: &str, observe: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = observe().await {
            return found;
        }
        assert!(start.elapsed() < SOON, "not seen within {SOON:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
