//! `svcdiag-sandbox`: a local Kubernetes cluster to see svcdiag at work.
//!
//! `up` starts the cluster with the walk-through and keeps it; `demo` breaks the walk-through in
//! every stage and shows that svcdiag finds each cause.
#![allow(
    clippy::disallowed_methods,
    reason = "it makes namespaces, runs programs and lives by the machine's clock"
)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    if let Err(code) = arguments.become_root_if_needed() {
        return code;
    }
    // Quiet by default: the screen is for the guided tour. The client logs every refused request
    // as an error, also those that we expect, such as asking a server that is still starting.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("svcdiag-sandbox: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli::run(arguments))
}
