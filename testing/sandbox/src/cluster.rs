//! The local cluster: an API server, the objects every cluster has, and the stand-in controllers.
//!
//! ```text
//! ClusterConfig -> server (embedded, or etcd + kube-apiserver from KUBEBUILDER_ASSETS)
//!               -> kubeconfig file -> kube::Client
//!               -> bootstrap: CRDs, Nodes, cluster DNS, the `kubernetes` Service
//!               -> controllers (tokio tasks), which make Pods run and Services have endpoints
//! ```
//!
//! Everything ends with the [`Cluster`]: [`Cluster::stop`] does it in order, dropping it kills.

mod bootstrap;
mod controlplane;
mod kubeconfig;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::controllers::{self, Pace};
use crate::error::RequestError;
pub use crate::kernel::DataPath;
use crate::kernel::{self, Kernel};
pub use bootstrap::NODES;
pub use controlplane::ControlPlane;
pub(crate) use process::{tail, terminate};
use svcdiag_testing_apiserver::ApiServer;

/// The environment variable of envtest: a directory that holds `etcd` and `kube-apiserver`.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// How a cluster is to be started.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Directory of CRD manifests to install; none are installed if it does not exist.
    pub crds: PathBuf,
    /// Where the kubeconfig and the logs go. Default: a fresh temporary directory, removed at the end.
    pub state: Option<PathBuf>,
    /// Directory of the real `etcd` and `kube-apiserver`. Default: `KUBEBUILDER_ASSETS`; without it the embedded server.
    pub assets: Option<PathBuf>,
    /// Whether Pods get an IPv6 address as well.
    pub dual_stack: bool,
    /// How long Pods take to start, to become ready and to end.
    pub pace: Pace,
    /// Whether the stand-in controllers run; without them every object stays as it was written.
    pub controllers: bool,
    /// Nodes and Pods in the kernel, if they are wanted; it takes root or a user namespace.
    pub data_path: Option<DataPath>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            crds: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds"),
            state: None,
            assets: std::env::var_os(ASSETS_VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            dual_stack: false,
            pace: Pace::default(),
            controllers: true,
            data_path: None,
        }
    }
}

/// Why a cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the state directory.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The binaries of the real control plane are not where they should be.
    #[error(
        "{ASSETS_VARIABLE}={} has no executable `{missing}`: point it at a directory with etcd and kube-apiserver \
         (for example `setup-envtest use -p path`), or unset it to use the embedded API server",
        directory.display()
    )]
    Assets {
        /// The directory that was named.
        directory: PathBuf,
        /// The binary that is not there.
        missing: &'static str,
    },
    /// A process of the real control plane did not start or did not stay.
    #[error("{program} {what}; the end of its log {}:\n{tail}", log.display())]
    Process {
        /// `etcd` or `kube-apiserver`.
        program: String,
        /// What happened to it.
        what: String,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Certificates for the real control plane.
    #[error("cannot make {what} for the API server")]
    Certificate {
        /// Which key or certificate.
        what: &'static str,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// No port to listen on.
    #[error("cannot find a free port on 127.0.0.1")]
    Port(#[source] std::io::Error),
    /// The embedded API server.
    #[error(transparent)]
    Embedded(#[from] svcdiag_testing_apiserver::Error),
    /// A client could not be built from the kubeconfig.
    #[error("cannot use the kubeconfig just written: {0}")]
    Kubeconfig(String),
    /// A manifest that is not what it should be.
    #[error("{} is not a manifest: {message}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Nodes and Pods in the kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A request while the cluster was furnished.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something did not come about in time.
    #[error("{what} did not happen within {} s", within.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
    },
}

/// A running local cluster.
pub struct Cluster {
    // Fields are dropped in this order: first those who talk, then the server, then its files.
    controllers: JoinSet<()>,
    kernel: Option<Arc<Kernel>>,
    server: Server,
    client: Client,
    url: String,
    kubeconfig: PathBuf,
    state: State,
}

enum Server {
    Embedded(ApiServer),
    Real(Box<ControlPlane>),
}

/// The state directory, and whether it is ours to remove.
enum State {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl State {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

impl Cluster {
    /// Starts the server, furnishes the cluster and sets the controllers going.
    pub async fn start(config: ClusterConfig) -> Result<Self, Error> {
        let state = prepare_state(config.state.clone())?;
        let (server, access) = match &config.assets {
            Some(assets) => {
                let plane = ControlPlane::start(assets, &state.path().join("controlplane")).await?;
                let access = plane.access();
                (Server::Real(Box::new(plane)), access)
            }
            None => {
                let server = ApiServer::start().await?;
                let access = kubeconfig::Access {
                    url: server.url().to_owned(),
                    credentials: None,
                };
                (Server::Embedded(server), access)
            }
        };
        let kubeconfig = state.path().join("kubeconfig");
        let text = kubeconfig::write(&kubeconfig, &access)?;
        let client = kubeconfig::client(&text).await?;
        if let Server::Real(plane) = &server {
            plane.wait_until_ready(&client).await?;
        }

        let kernel = match config.data_path {
            Some(data_path) => Some(Arc::new(
                Kernel::start(&NODES, data_path, config.dual_stack).await?,
            )),
            None => None,
        };
        let mut tasks = JoinSet::new();
        let real = matches!(server, Server::Real(_));
        bootstrap::install_crds(&client, &config.crds).await?;
        bootstrap::create_nodes(&client, config.dual_stack).await?;
        if config.controllers {
            let options = controllers::Options {
                pace: config.pace,
                dual_stack: config.dual_stack,
                collect_garbage: real,
                kernel: kernel.clone(),
            };
            controllers::spawn(&client, &options, &mut tasks);
        }
        if let Some(kernel) = &kernel {
            tasks.spawn(kernel::follow::run(client.clone(), kernel.clone()));
        }
        bootstrap::create_dns(&client).await?;
        bootstrap::create_agents_namespace(&client).await?;
        if !real {
            bootstrap::create_kubernetes_service(&client, &access.url).await?;
        }
        tracing::info!(url = access.url, real, "the cluster is up");
        Ok(Self {
            controllers: tasks,
            kernel,
            server,
            client,
            url: access.url,
            kubeconfig,
            state,
        })
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig file for kubectl and other processes; only its owner can read it.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// Nodes and Pods in the kernel, if there are any.
    pub fn kernel(&self) -> Option<&Arc<Kernel>> {
        self.kernel.as_ref()
    }

    /// The API server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory of the kubeconfig and the logs.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// The embedded API server, for tests that disturb it; `None` on a real one.
    pub fn embedded(&self) -> Option<&ApiServer> {
        match &self.server {
            Server::Embedded(server) => Some(server),
            Server::Real(_) => None,
        }
    }

    /// The real etcd and kube-apiserver; `None` on the embedded one.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        match &self.server {
            Server::Embedded(_) => None,
            Server::Real(plane) => Some(plane),
        }
    }

    /// Stops the API server and starts it again with the same objects at the same address.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart_server(&mut self) -> Result<(), Error> {
        match &mut self.server {
            Server::Embedded(server) => {
                let next = (server.store(), server.address());
                server.stop().await;
                *server = ApiServer::start_with(next.0, next.1).await?;
                Ok(())
            }
            Server::Real(plane) => plane.restart_apiserver(&self.client).await,
        }
    }

    /// Takes the embedded API server away; [`Self::restart_server`] brings it back with the same objects at
    /// the same address. The real one stays.
    pub async fn stop_server(&mut self) {
        if let Server::Embedded(server) = &mut self.server {
            server.stop().await;
        }
    }

    /// What serves the API, in words for the screen.
    pub fn describe(&self) -> String {
        match &self.server {
            Server::Embedded(_) => "the embedded API server".to_owned(),
            Server::Real(plane) => format!("the real kube-apiserver of {}", plane.assets().display()),
        }
    }

    /// Stops the controllers, then the server, then removes a temporary state directory.
    pub async fn stop(self) {
        let Self {
            mut controllers,
            kernel,
            server,
            state,
            ..
        } = self;
        controllers.shutdown().await;
        if let Some(kernel) = kernel {
            kernel.stop().await;
        }
        match server {
            Server::Embedded(mut server) => server.stop().await,
            Server::Real(plane) => plane.stop().await,
        }
        drop(state);
    }
}

fn prepare_state(wanted: Option<PathBuf>) -> Result<State, Error> {
    match wanted {
        Some(path) => {
            std::fs::create_dir_all(&path).map_err(|source| Error::File {
                operation: "create",
                path: path.clone(),
                source,
            })?;
            Ok(State::Kept(path))
        }
        // tempfile makes the directory with mode 0700.
        None => tempfile::Builder::new()
            .prefix("svcdiag-sandbox-")
            .tempdir()
            .map(State::Temporary)
            .map_err(|source| Error::File {
                operation: "create",
                path: std::env::temp_dir(),
                source,
            }),
    }
}
