//! The node agent: facts from the kernel of one node.
//!
//! It watches the NodeProbes of its node; each has a task of its own that looks ([`round`]) at once when
//! the NodeProbe changes and else at the interval that it asks for, and writes the facts down when they
//! have changed. A Lease says that the agent is alive. [`apiserver`] keeps the way to the API server open
//! where that of the node is broken.

#![forbid(unsafe_code)]

pub mod apiserver;
mod blocking;
pub mod budget;
pub mod cluster;
pub mod dial;
pub mod dns;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod http;
pub mod kubeproxy;
pub mod pods;
pub mod round;
mod schedule;
pub mod settings;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use kube::Config;

use self::{apiserver::Routes, budget::Budget, cluster::Cluster, health::Heartbeat, round::Node};
use svcdiag_netns::Netns;

/// Flags of `svcdiag agent`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
It runs on every node as a DaemonSet, with hostNetwork, hostPID and the capabilities SYS_ADMIN (to enter the \
network namespaces of Pods), SYS_PTRACE (to find them) and NET_ADMIN (to read rules and tracked connections). \
It changes nothing on the node. What it looks at stands in the NodeProbes of its node, which the controller \
writes; what it saw, in their status.

Examples:
  # As the DaemonSet of config/agent does, where NODE_NAME and POD_NAMESPACE come from the Pod
  svcdiag agent --health-socket /run/svcdiag/health.sock

  # On a node by hand, as root, with a kubeconfig
  KUBECONFIG=admin.conf svcdiag agent --node-name worker-1

  # For a node that is a network namespace of this machine, as in the sandbox
  svcdiag agent --node-name sandbox-1 --node-network /proc/4711/ns/net

  # What it does, in detail
  SVCDIAG_LOG=svcdiag=debug svcdiag agent --node-name worker-1")]
pub struct Options {
    /// Name of the node that the agent runs on
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// Namespace of the agent's Lease
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "svcdiag-system",
        value_name = "NAMESPACE"
    )]
    pub lease_namespace: String,
    /// Network namespace of the node, as a file [default: the agent's own, for which it needs hostNetwork]
    #[arg(long, value_name = "FILE")]
    pub node_network: Option<PathBuf>,
    /// URL of the API server [default: that of the kubeconfig or of the Pod's service account, and where
    /// that does not answer the addresses of --apiserver-addresses]
    #[arg(long, value_name = "URL")]
    pub apiserver: Option<String>,
    /// File with addresses of API servers, separated by commas or line breaks, for when they do not answer
    /// at their usual address; it need not exist
    #[arg(long, value_name = "FILE", default_value = "/etc/svcdiag/apiserver/addresses")]
    pub apiserver_addresses: PathBuf,
    /// Socket at which `svcdiag health` asks whether the agent is well [default: nobody can ask]
    #[arg(long, value_name = "FILE")]
    pub health_socket: Option<PathBuf>,
    /// Dials under way at once, of all NodeProbes together; a namespace has a quarter of them at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_dials: u32,
    /// Dials and DNS questions begun in a second, of all NodeProbes together; namespaces that wait take turns
    #[arg(long, default_value_t = 200, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connects_per_second: u32,
}

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's network namespace cannot be opened.
    #[error("could not open the network namespace of the node ({path}): {source}")]
    Network {
        /// Its file.
        path: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It is not known how to reach the API server.
    #[error("could not find out how to reach the cluster: {0}; name the API server with --apiserver")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// What --apiserver says.
    #[error("--apiserver {0} is no URL")]
    Url(String),
    /// The client could not be made from the configuration.
    #[error("could not make a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// How to reach the API server. One that is named stands for itself; else there are two ways.
async fn routes(options: &Options) -> Result<Routes, Error> {
    let inferred = Config::infer().await;
    let Some(url) = &options.apiserver else {
        let usual = inferred.map_err(|e| Error::Infer(Box::new(e)))?;
        return Ok(Routes::new(usual, Some(options.apiserver_addresses.clone())));
    };
    let invalid = || Error::Url(url.clone());
    let parsed = kube::Config::new(url.parse().map_err(|_| invalid())?);
    if parsed.cluster_url.host().is_none() || parsed.cluster_url.scheme().is_none() {
        return Err(invalid());
    }
    // The credentials are those that are at hand, if any.
    let config = match inferred {
        Ok(mut config) => {
            config.cluster_url = parsed.cluster_url;
            config
        }
        Err(_) => parsed,
    };
    Ok(Routes::new(config, None))
}

/// The agent's clock: the only place where it asks for the time of day.
#[expect(clippy::disallowed_methods, reason = "the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Runs until `shutdown`.
///
/// # Errors
/// When the node's network cannot be looked at, or there is no way to an API server.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    // The default of 1,024 is for programs that use select.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "The limit of open files stays as it is.");
    }
    let netns = match &options.node_network {
        Some(path) => Netns::of_file(path),
        None => Netns::current(),
    }
    .map_err(|source| Error::Network {
        path: options
            .node_network
            .as_ref()
            .map_or_else(|| "the agent's own".to_owned(), |p| p.display().to_string()),
        source,
    })?;
    let dials = Budget::new(options.max_dials, options.connects_per_second);
    let node = Arc::new(Node::new(&options.node_name, netns, dials));
    let routes = routes(&options).await?;
    let (access, keep_open) =
        apiserver::access(routes, apiserver::Pace::default()).map_err(|e| Error::Client(Box::new(e)))?;
    let cluster = Cluster::new(access, &options.node_name);
    let heartbeat = Heartbeat::new();
    tracing::info!(node = options.node_name, "The agent is starting.");
    if let Some(socket) = &options.health_socket {
        health::serve(socket, heartbeat.clone());
    }
    tokio::select! {
        () = schedule::run(node.clone(), cluster.clone()) => {}
        () = keep_alive(cluster, &node, &options.lease_namespace, &heartbeat) => {}
        () = keep_open => {}
        () = shutdown => {}
    }
    tracing::info!("The agent has stopped.");
    Ok(())
}

/// Renews the Lease for ever, and at once when there is another way to the API server.
async fn keep_alive(cluster: Cluster, node: &Node, namespace: &str, heartbeat: &Heartbeat) {
    let mut access = cluster.access();
    loop {
        heartbeat.beat();
        access.latest();
        let renewed = cluster.renew_lease(namespace, now()).await;
        node.reached().note(renewed.is_ok());
        let pause = match renewed {
            Ok(()) => cluster::LEASE_RENEWAL,
            Err(error) => {
                tracing::warn!("The agent's Lease was not renewed: {error}.");
                if error.is_outage() {
                    cluster::LEASE_RETRY
                } else {
                    cluster::LEASE_RENEWAL
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = access.changed() => {}
        }
    }
}
