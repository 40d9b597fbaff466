//! The node agent: facts from the kernel of one node.
//!
//! It watches the NodeProbes of its node. Each has its own task, which runs a [`round`] at once when the NodeProbe
//! changes and otherwise at its interval, and writes the facts if they have changed. A Lease is the agent's heartbeat.
//! [`svcdiag_client::routes`] keeps the API server reachable when the node's own network is broken.

#![forbid(unsafe_code)]

mod blocking;
pub mod budget;
pub mod cluster;
pub mod dial;
pub mod dns;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod http;
mod icmp;
pub mod kubeproxy;
pub mod packet_size;
pub mod pods;
pub mod round;
mod schedule;
pub mod settings;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use kube::Config;

use self::{budget::Budget, cluster::Cluster, health::Heartbeat, round::Node};
use svcdiag_client::routes::{self, Fallbacks, Routes};
use svcdiag_netns::Netns;

/// Flags of `svcdiag agent`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
The agent runs on every node as a DaemonSet, with hostNetwork, hostPID and the capabilities SYS_ADMIN (to enter \
the network namespaces of Pods), SYS_PTRACE (to find them), NET_ADMIN (to read rules and conntrack entries), BPF \
and PERFMON (to ask the kernel who drops packets). \
It changes nothing on the node. The controller writes a NodeProbe for each diagnosis that concerns the node; the \
agent carries it out and reports in its status.

Examples:
  # As in the DaemonSet of config/agent, which sets NODE_NAME and POD_NAMESPACE
  svcdiag agent --health-socket /run/svcdiag/health.sock

  # By hand on a node, as root, with a kubeconfig
  KUBECONFIG=admin.conf svcdiag agent --node-name worker-1

  # For a node that is a network namespace of this machine, as in the sandbox
  svcdiag agent --node-name sandbox-1 --node-network /proc/4711/ns/net

  # With detailed logs
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
    /// File of the node's network namespace [default: the agent's own, which requires hostNetwork]
    #[arg(long, value_name = "FILE")]
    pub node_network: Option<PathBuf>,
    /// URL of the API server [default: that of the kubeconfig or of the Pod's service account; if that does
    /// not answer, the addresses in --apiserver-addresses]
    #[arg(long, value_name = "URL")]
    pub apiserver: Option<String>,
    /// File with fallback addresses of API servers, separated by commas or line breaks; it need not exist
    #[arg(long, value_name = "FILE", default_value = "/etc/svcdiag/apiserver/addresses")]
    pub apiserver_addresses: PathBuf,
    /// Socket for `svcdiag health`, the liveness probe [default: none]
    #[arg(long, value_name = "FILE")]
    pub health_socket: Option<PathBuf>,
    /// Maximum number of concurrent dials, for all NodeProbes together; a namespace gets at most a quarter
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_dials: u32,
    /// Maximum rate of new dials and DNS queries, for all NodeProbes together; waiting namespaces take turns
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
    /// There is no configuration for reaching the API server.
    #[error("could not determine how to reach the cluster: {0}; set --apiserver")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The value of --apiserver.
    #[error("--apiserver {0} is not a URL")]
    Url(String),
    /// The client could not be made from the configuration.
    #[error("could not create a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Routes to the API server: only the given URL, or else the usual and the fallback routes.
async fn routes(options: &Options) -> Result<Routes, Error> {
    let inferred = Config::infer().await;
    let Some(url) = &options.apiserver else {
        let usual = inferred.map_err(|e| Error::Infer(Box::new(e)))?;
        return Ok(Routes::new(
            usual,
            Fallbacks::File(options.apiserver_addresses.clone()),
        ));
    };
    let invalid = || Error::Url(url.clone());
    let parsed = kube::Config::new(url.parse().map_err(|_| invalid())?);
    if parsed.cluster_url.host().is_none() || parsed.cluster_url.scheme().is_none() {
        return Err(invalid());
    }
    // Uses the available credentials, if any.
    let config = match inferred {
        Ok(mut config) => {
            config.cluster_url = parsed.cluster_url;
            config
        }
        Err(_) => parsed,
    };
    Ok(Routes::new(config, Fallbacks::None))
}

/// The agent's clock: the only place where it reads the time of day.
#[expect(clippy::disallowed_methods, reason = "the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Runs until `shutdown`.
///
/// # Errors
/// When the node's network namespace cannot be opened, or there is no route to an API server.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
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
        routes::access(routes, routes::Pace::default()).map_err(|e| Error::Client(Box::new(e)))?;
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

/// Keeps renewing the Lease, and renews it at once when the route to the API server changes.
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
                tracing::warn!("Could not renew the agent's Lease: {error}.");
                if error.is_outage() {
                    cluster::LEASE_RETRY
                } else {
                    cluster::LEASE_RETRY_REFUSED
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = access.changed() => {}
        }
    }
}
