//! The node agent: facts from the kernel of one node.
//!
//! It watches the NodeProbes of its node; each has a task of its own that looks ([`round`]) at once when
//! the NodeProbe changes and else at the interval that it asks for, and writes the facts down when they
//! have changed. A Lease says that the agent is alive.

pub mod budget;
pub mod cluster;
pub mod dial;
pub mod dns;
pub mod http;
pub mod kubeproxy;
pub mod links;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod pods;
pub mod resolv;
pub mod rootfs;
pub mod round;
mod schedule;
pub mod settings;
pub mod sockets;
mod sockopt;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use kube::Client;

use self::{budget::Budget, cluster::Cluster, netns::Netns, round::Node};

/// Flags of `svcdiag agent`.
#[derive(Clone, Debug, clap::Args)]
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
    /// Network namespace of the node, as a file; default: the agent's own, for which it needs hostNetwork
    #[arg(long, value_name = "FILE")]
    pub node_network: Option<PathBuf>,
    /// Dials under way at once, of all NodeProbes together
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_dials: u32,
    /// Dials begun in a second, of all NodeProbes together; namespaces that wait take turns
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
}

/// The agent's clock: the only place where it asks for the time of day.
fn now() -> Timestamp {
    Timestamp::now()
}

/// Runs until `shutdown`.
///
/// # Errors
/// When the node's network cannot be looked at.
pub async fn run(options: Options, client: Client, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
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
    let cluster = Cluster::new(client, &options.node_name);
    tracing::info!(node = options.node_name, "The agent is starting.");
    tokio::select! {
        () = schedule::run(node, cluster.clone()) => {}
        () = keep_alive(cluster, &options.lease_namespace) => {}
        () = shutdown => {}
    }
    tracing::info!("The agent has stopped.");
    Ok(())
}

/// Renews the Lease for ever.
async fn keep_alive(cluster: Cluster, namespace: &str) {
    let mut interval = tokio::time::interval(cluster::LEASE_RENEWAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = cluster.renew_lease(namespace, now()).await {
            tracing::warn!("The agent's Lease was not renewed: {error}.");
        }
    }
}
