//! The machine side of a local cluster: nodes and Pods as network namespaces and processes.
//!
//! ```text
//!   underlay: a namespace with a bridge, the cable between the nodes (172.18.0.0/24)
//!      |
//!   node: a namespace with eth0, the bridge cni0 (or one link for each Pod), routes to the others' Pods,
//!      |  kube-proxy's rules and a kube-proxy process
//!   Pod: a namespace with eth0, a process in the Pod's cgroup with a root directory of its own
//! ```
//!
//! Nothing of it is in the machine's own namespace, so that clusters do not get in one another's way. A
//! namespace lives as long as a process in it, and every process ends when the pipe to us closes: also
//! when we are killed. `follow` keeps rules and DNS zones in step with the API's objects.

mod cgroup;
mod daemon;
pub(crate) mod follow;
mod kubeproxy;
mod namespace;
mod node;
mod pods;
mod zone;

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::proxy::ProxyMode;
pub use node::Node;
pub use pods::{PodSetup, Role};

use cgroup::Cgroups;
use namespace::Namespace;
use pods::Pods;

/// What a cluster with kernel state is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPath {
    /// How kube-proxy lays its rules out.
    pub proxy: ProxyMode,
    /// How Pods are linked to their node.
    pub wiring: Wiring,
}

/// How Pods are linked to their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wiring {
    /// Each is a port of the node's bridge, as by the CNI plugin `bridge`.
    #[default]
    Bridge,
    /// Each has a link and a route of its own, as by the CNI plugin `ptp`.
    PointToPoint,
}

/// Why the kernel did not do what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot run `{program}`")]
    Start {
        /// Which program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` in {place} ended with {status}: {message}")]
    Failed {
        /// Which program, or the script.
        program: String,
        /// In which namespace.
        place: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        message: String,
    },
    /// A network namespace was not made.
    #[error(
        "no network namespace could be made for {place}: {message}; it takes root, or unprivileged user namespaces \
         (`unshare --user --map-root-user`)"
    )]
    Namespace {
        /// What it was for.
        place: String,
        /// What `unshare` said.
        message: String,
    },
    /// No cgroup can be made for Pods.
    #[error(
        "no cgroup can be made for Pods ({message}); it takes root, or a cgroup of your own: \
         `systemd-run --user --scope -p Delegate=yes COMMAND`"
    )]
    Cgroup {
        /// What was tried.
        message: String,
    },
    /// A file of the state directory.
    #[error("cannot write {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something is not there.
    #[error("there is no {what}")]
    Missing {
        /// What.
        what: String,
    },
}

/// Nodes and Pods of one cluster. Everything ends when it is dropped.
pub struct Kernel {
    nodes: Vec<Arc<Node>>,
    pods: Pods,
    data_path: DataPath,
    lag: follow::Lag,
    // The cable is pulled last.
    _underlay: Namespace,
    directory: TempDir,
}

impl Kernel {
    /// Makes the nodes.
    ///
    /// # Errors
    /// When namespaces or cgroups cannot be made here.
    pub async fn start(names: &[&str], data_path: DataPath, dual_stack: bool) -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("svcdiag-kernel-")
            .tempdir()
            .map_err(|source| Error::File {
                path: std::env::temp_dir(),
                source,
            })?;
        let cgroups = Cgroups::prepare()?;
        let underlay = Namespace::new("the cable between the nodes", directory.path()).await?;
        underlay.sh(node::UNDERLAY, &[]).await?;
        let mut nodes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
            let node = Node::new(
                name,
                number,
                names.len(),
                data_path,
                dual_stack,
                &underlay,
                directory.path(),
            );
            nodes.push(Arc::new(node.await?));
        }
        Ok(Self {
            nodes,
            pods: Pods::new(cgroups, workload_program()?, directory.path().join("pods")),
            data_path,
            lag: follow::Lag::default(),
            _underlay: underlay,
            directory,
        })
    }

    /// How the cluster is made.
    #[must_use]
    pub fn data_path(&self) -> DataPath {
        self.data_path
    }

    /// The longest time since the last call by which rules and zones were behind the objects, those of a kube-proxy that
    /// writes none on purpose apart. A few seconds are usual.
    #[must_use]
    pub fn longest_lag(&self) -> std::time::Duration {
        self.lag.take()
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    /// Starts the process of a Pod, unless it runs already.
    ///
    /// # Errors
    /// When it cannot be started or linked to its node.
    pub async fn start_pod(&self, setup: &PodSetup) -> Result<(), Error> {
        let node = self.node(&setup.node).ok_or_else(|| Error::Missing {
            what: format!("node {}", setup.node),
        })?;
        self.pods.start(node, setup).await
    }

    /// Ends the process of a Pod and takes its namespace away.
    pub async fn stop_pod(&self, uid: &str) {
        self.pods.stop(uid).await;
    }

    /// Runs a shell script in the network namespace of a Pod; what it prints.
    ///
    /// # Errors
    /// When there is no such Pod or the script fails.
    pub async fn in_pod(&self, uid: &str, script: &str, env: &[(String, String)]) -> Result<String, Error> {
        self.pods.sh(uid, script, env).await
    }

    /// Ends all Pods and waits until they are gone.
    pub async fn stop(&self) {
        self.pods.stop_all().await;
    }

    /// Pods with a network of their own, by name, and the file that stands for it.
    pub async fn pod_networks(&self) -> Vec<(String, PathBuf)> {
        self.pods.networks().await
    }

    /// Name of the node's end of a Pod's link.
    #[must_use]
    pub fn veth(&self, uid: &str) -> String {
        pods::veth(uid)
    }

    /// Whether the process of a Pod runs.
    pub(crate) async fn has_pod(&self, uid: &str) -> bool {
        self.pods.has(uid).await
    }

    /// The program that runs in Pods.
    pub(crate) fn program(&self) -> &Path {
        self.pods.program()
    }

    /// A directory for what scripts have to remember, removed with everything else.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.directory.path().join("scratch").join(name);
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Root directories of the Pods that serve DNS, with the Pods' names.
    pub(crate) async fn dns_roots(&self) -> Vec<(String, PathBuf)> {
        self.pods.dns_roots().await
    }
}

impl FromStr for Wiring {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "ptp" => Ok(Self::PointToPoint),
            other => Err(format!("{other} is neither bridge nor ptp")),
        }
    }
}

/// The environment variable that names the program of the workloads.
const PROGRAM_VARIABLE: &str = "SVCDIAG_SANDBOX_BIN";

/// The program that runs in Pods: this very one, or beside it where a test runs.
fn workload_program() -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    let own = std::env::current_exe().unwrap_or_default();
    let directories = own.ancestors().skip(1).take(2);
    let mut candidates = directories.map(|directory| directory.join("svcdiag-sandbox"));
    candidates
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing {
            what: format!(
                "program svcdiag-sandbox beside {}: build it with `cargo build`, or set {PROGRAM_VARIABLE}",
                own.display()
            ),
        })
}
