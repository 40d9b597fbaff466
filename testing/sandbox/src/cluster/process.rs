//! A child process that cannot outlive us by accident: its output goes to a file, it gets a
//! polite SIGTERM when stopped and is killed when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::Error;

/// How long a process may take to end after SIGTERM. etcd and kube-apiserver need well under a second when idle.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Enough lines to see why a server gave up.
const TAIL_LINES: usize = 15;

/// A child process with a log file.
pub(crate) struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` with its output in `<directory>/<name>.log`.
    pub(crate) fn start(program: &Path, arguments: &[String], directory: &Path) -> Result<Self, Error> {
        let name = program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned();
        let log = directory.join(format!("{name}.log"));
        let child = spawn(program, arguments, &log)?;
        Ok(Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            log,
            child,
        })
    }

    /// Stops the process and starts it again with the same arguments.
    pub(crate) async fn restart(&mut self) -> Result<(), Error> {
        terminate(&mut self.child).await;
        self.child = spawn(&self.program, &self.arguments, &self.log)?;
        Ok(())
    }

    /// An error if the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.failure(&format!("ended with {status}"))),
            _ => Ok(()),
        }
    }

    /// An error about this process, with the end of its log.
    pub(crate) fn failure(&self, what: &str) -> Error {
        Error::Process {
            program: self
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            what: what.to_owned(),
            log: self.log.clone(),
            tail: tail(&self.log),
        }
    }

    /// Whether the log mentions `text`.
    pub(crate) fn log_mentions(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }

    /// The number of the process, unless it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks the process to end, and kills it if it does not.
    pub(crate) async fn stop(mut self) {
        terminate(&mut self.child).await;
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child, Error> {
    let file = |source| Error::File {
        operation: "write",
        path: log.to_owned(),
        source,
    };
    let output = File::create(log).map_err(file)?;
    let errors = output.try_clone().map_err(file)?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // Its own group: ^C on the terminal reaches us only, and we stop things in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::File {
            operation: "run",
            path: program.to_owned(),
            source,
        })
}

/// SIGTERM, a pause, SIGKILL.
pub(crate) async fn terminate(child: &mut Child) {
    let Some(pid) = child.id() else { return };
    // `kill` is a program because sending a signal other than SIGKILL would need unsafe code or another crate.
    let asked = Command::new("kill")
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()
        .await;
    if asked.is_ok_and(|status| status.success())
        && tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_ok()
    {
        return;
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(pid, %error, "cannot kill a child process");
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
