//! What runs inside the local cluster's namespaces: this very program, started again.
//!
//! Each ends when its standard input does, which is when the cluster ends, however it does; traffic that
//! faults are made of ends with the process that it is told to watch.

pub mod dns;
pub mod kubeproxy;
mod mapped;
mod pod;
mod traffic;

use std::{io, path::PathBuf};

use clap::Subcommand;

use crate::kernel::Role;

/// A process inside the cluster.
#[derive(Debug, Subcommand)]
pub enum Workload {
    /// The process of a Pod
    Pod {
        /// Its root directory
        #[arg(long)]
        root: PathBuf,
        /// Its name
        #[arg(long)]
        name: String,
        /// What it does, as JSON
        #[arg(long)]
        role: String,
    },
    /// kube-proxy of a node, as seen from outside
    KubeProxy {
        /// File with what it answers
        #[arg(long)]
        answers: PathBuf,
        /// Name of its Node, as kube-proxy has it; only shown among the arguments
        #[arg(long)]
        hostname_override: Option<String>,
    },
    /// Fill or empty the table of tracked connections
    Conntrack {
        /// Fill it to so many percent; without it, empty it
        #[arg(long)]
        fill: Option<u64>,
        /// Keep it so while this process runs
        #[arg(long, value_name = "PID")]
        r#while: Option<u32>,
    },
    /// Send datagrams from one port, again and again
    Datagrams {
        /// To whom, as address:port
        #[arg(long)]
        to: std::net::SocketAddr,
        /// While this process runs
        #[arg(long, value_name = "PID")]
        r#while: u32,
    },
}

/// Runs until the end of the input.
///
/// # Errors
/// When what it needs cannot be had.
pub async fn run(workload: Workload) -> io::Result<()> {
    match workload {
        Workload::Pod { root, name, role } => {
            let role: Role = serde_json::from_str(&role).map_err(io::Error::other)?;
            pod::run(&root, &name, role).await
        }
        Workload::KubeProxy { answers, .. } => {
            tokio::select! {
                result = kubeproxy::run(&answers) => result,
                () = end_of_input() => Ok(()),
            }
        }
        Workload::Conntrack {
            fill: Some(percent),
            r#while,
        } => traffic::fill(percent, r#while),
        Workload::Conntrack { fill: None, .. } => traffic::flush(),
        Workload::Datagrams { to, r#while } => traffic::datagrams(to, r#while),
    }
}

/// Returns when whoever started us is gone.
async fn end_of_input() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Anything else that comes is not for us.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}
