//! The real `svcdiag controller`, run as a child against the sandbox's kubeconfig.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::cluster::{tail, terminate};

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
    #[error("`svcdiag controller` ended with {status}; the end of its log {}:\n{tail}", log.display())]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

/// A running `svcdiag controller`. Killed when dropped.
pub struct Controller {
    child: Child,
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

impl Controller {
    /// Starts `svcdiag controller` with its log in `directory/controller.log`.
    pub fn start(
        program: &Path,
        kubeconfig: &Path,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<Self, Error> {
        let log = directory.join("controller.log");
        let failed = |source| Error::Start {
            program: program.to_owned(),
            source,
        };
        let output = File::create(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = Command::new(program)
            .arg("controller")
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, log })
    }

    /// Where it writes its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The number of its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error if it has ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                status,
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
            _ => Ok(()),
        }
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        terminate(&mut self.child).await;
    }
}
