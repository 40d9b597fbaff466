//! The commands that run on a node. Others than Linux do not have them: they read its kernel.

use std::process::ExitCode;

use clap::Subcommand;
use svcdiag::{agent, netns};

use crate::{Failure, Logging, runtime, start};

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Run the agent that probes one node for the controller
    Agent(Logging<agent::Options>),
    /// Check whether the agent on this machine is healthy, as the kubelet does
    Health(agent::health::Options),
}

pub(crate) fn run(command: NodeCommand) -> Result<ExitCode, Failure> {
    match command {
        NodeCommand::Agent(Logging { options, log_format }) => {
            // Before there are other threads.
            netns::privileges::keep_to_the_visitors()
                .map_err(|e| format!("could not drop CAP_SYS_ADMIN: {e}"))?;
            runtime()?.block_on(async {
                let shutdown = start(log_format)?;
                agent::run(options, shutdown).await?;
                Ok(ExitCode::SUCCESS)
            })
        }
        NodeCommand::Health(options) => {
            agent::health::ask(&options).map_err(|e| format!("the agent is not healthy: {e}"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
