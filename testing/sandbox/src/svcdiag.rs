//! The real `svcdiag controller` and `svcdiag agent`, run as children against the sandbox's kubeconfig.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::cluster::{Cluster, tail, terminate};

/// The environment variable that names the binary.
pub const BINARY_VARIABLE: &str = "SVCDIAG_BIN";

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No binary.
    #[error(
        "there is no svcdiag binary at {}: build it with `cargo build`, or set {BINARY_VARIABLE} to its path",
        tried.display()
    )]
    NotFound {
        /// Where it was expected.
        tried: PathBuf,
    },
    /// It could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// Which binary.
        program: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It ended by itself.
    #[error("`svcdiag {what}` ended with {status}; the end of its log {}:\n{tail}", log.display())]
    Ended {
        /// Which command.
        what: &'static str,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

/// A running `svcdiag controller`. Killed when dropped.
pub struct Controller(Child);

/// Running `svcdiag agent`s, by node. Killed when dropped.
pub struct Agents {
    program: PathBuf,
    kubeconfig: PathBuf,
    directory: PathBuf,
    networks: BTreeMap<String, PathBuf>,
    running: BTreeMap<String, Child>,
}

/// A running command of svcdiag.
struct Child {
    process: tokio::process::Child,
    what: &'static str,
    log: PathBuf,
}

/// The svcdiag binary: `SVCDIAG_BIN`, else the one beside the current executable (or one
/// directory up, for tests, which Cargo puts into `deps/`).
pub fn find_binary() -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        return if named.is_file() {
            Ok(named)
        } else {
            Err(Error::NotFound { tried: named })
        };
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new(".")).join("svcdiag");
    let above = own
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."))
        .join("svcdiag");
    let found = [&beside, &above].into_iter().find(|path| path.is_file()).cloned();
    found.ok_or(Error::NotFound { tried: beside })
}

impl Child {
    /// Starts a command with its log in `directory/name.log`.
    fn start(
        program: &Path,
        what: &'static str,
        arguments: &[&str],
        kubeconfig: &Path,
        log: PathBuf,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Start {
            program: program.to_owned(),
            source,
        };
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        // Ends with us also where nobody stops it: one that goes on would serve whatever cluster comes to
        // have the same port next.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .arg(what)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { process, what, log })
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                what: self.what,
                status,
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
            _ => Ok(()),
        }
    }
}

impl Controller {
    /// Starts `svcdiag controller` with its log in `directory/controller.log`.
    pub fn start(
        program: &Path,
        kubeconfig: &Path,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<Self, Error> {
        let log = directory.join("controller.log");
        // What an earlier one said is not about this one.
        let _ = std::fs::remove_file(&log);
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        Child::start(program, "controller", &arguments, kubeconfig, log).map(Self)
    }

    /// Where it writes its log.
    pub fn log(&self) -> &Path {
        &self.0.log
    }

    /// The number of its process.
    pub fn pid(&self) -> Option<u32> {
        self.0.process.id()
    }

    /// An error if it has ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        self.0.check()
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        terminate(&mut self.0.process).await;
    }

    /// Kills it.
    pub async fn kill(mut self) {
        // One that has ended is as good.
        let _ = self.0.process.kill().await;
    }
}

impl Agents {
    /// Starts an agent for each node of a cluster that has nodes in the kernel.
    pub fn start(program: &Path, cluster: &Cluster) -> Result<Self, Error> {
        let mut agents = Self::of(program, cluster);
        let names: Vec<String> = agents.networks.keys().cloned().collect();
        for name in names {
            agents.start_on(&name)?;
        }
        Ok(agents)
    }

    /// Agents of a cluster, none of which runs yet.
    pub fn of(program: &Path, cluster: &Cluster) -> Self {
        let nodes = cluster.kernel().map(|kernel| kernel.nodes()).unwrap_or_default();
        let networks = nodes
            .iter()
            .map(|node| (node.name().to_owned(), node.netns_path()));
        Self {
            program: program.to_owned(),
            kubeconfig: cluster.kubeconfig_path().to_owned(),
            directory: cluster.state_dir().to_owned(),
            networks: networks.collect(),
            running: BTreeMap::new(),
        }
    }

    /// Starts the agent of one node, if it does not run.
    pub fn start_on(&mut self, node: &str) -> Result<(), Error> {
        let Some(network) = self
            .networks
            .get(node)
            .filter(|_| !self.running.contains_key(node))
        else {
            return Ok(());
        };
        let network = network.to_string_lossy();
        let arguments = ["--node-name", node, "--node-network", &network];
        let log = self.directory.join(format!("agent-{node}.log"));
        let child = Child::start(&self.program, "agent", &arguments, &self.kubeconfig, log)?;
        self.running.insert(node.to_owned(), child);
        Ok(())
    }

    /// Kills the agent of one node.
    pub async fn kill_on(&mut self, node: &str) {
        if let Some(mut child) = self.running.remove(node) {
            // One that has ended is as good.
            let _ = child.process.kill().await;
        }
    }

    /// Where the agent of a node writes its log.
    pub fn log(&self, node: &str) -> PathBuf {
        self.directory.join(format!("agent-{node}.log"))
    }

    /// The process of the agent of a node.
    pub fn pid(&self, node: &str) -> Option<u32> {
        self.running.get(node)?.process.id()
    }

    /// An error if one has ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        self.running.values_mut().try_for_each(Child::check)
    }

    /// Stops all in good order.
    pub async fn stop(mut self) {
        for child in self.running.values_mut() {
            terminate(&mut child.process).await;
        }
    }
}
