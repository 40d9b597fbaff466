//! The liveness probe of the agent: the kubelet runs `svcdiag health`.
//!
//! It uses a socket in the file system of the agent's container: any process could take a port of the node, and the
//! liveness probe would then get the agent killed repeatedly. A separate thread answers, so that no probe can delay the
//! kubelet.
//!
//! An unreachable API server is no reason for a restart; an agent that makes no progress is.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Every attempt to renew the Lease counts as progress, and such an attempt takes at most 20 seconds.
const STILL_AFTER: Duration = Duration::from_secs(60);

/// A running agent answers at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answer of a healthy agent.
const WELL: &str = "ok";

/// Flags of `svcdiag health`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Socket of the agent, as in its --health-socket
    #[arg(long, value_name = "FILE")]
    pub socket: PathBuf,
}

/// When the agent last made progress.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn beat(&self) {
        *self.0.lock() = Instant::now();
    }

    fn is_beating(&self, now: Instant) -> bool {
        let last = *self.0.lock();
        now.saturating_duration_since(last) < STILL_AFTER
    }
}

/// Pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Starts answering on a socket, which replaces one that an earlier agent left. If that fails, the agent still works,
/// and the failing liveness probe shows it.
pub(super) fn serve(socket: &Path, heartbeat: Heartbeat) {
    if let Err(error) = try_serve(socket, heartbeat) {
        tracing::error!(
            "Could not listen on the health socket {}: {error}. Choose another file with --health-socket.",
            socket.display()
        );
    }
}

fn try_serve(socket: &Path, heartbeat: Heartbeat) -> io::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // Perhaps out of file descriptors: accept would fail again at once.
                    std::thread::sleep(ACCEPT_AGAIN);
                    continue;
                };
                let says = if heartbeat.is_beating(Instant::now()) {
                    WELL
                } else {
                    "no progress for a minute"
                };
                // A text this short does not block.
                let _ = (&stream).write_all(says.as_bytes());
            }
        })?;
    Ok(())
}

/// Asks an agent on this machine whether it is healthy.
///
/// # Errors
/// When it is not, or does not answer.
pub fn ask(options: &Options) -> io::Result<()> {
    let stream = UnixStream::connect(&options.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.take(1024).read_to_string(&mut said)?;
    (said == WELL).then_some(()).ok_or_else(|| io::Error::other(said))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_heart_that_stands_still_is_told() {
        let heartbeat = Heartbeat::new();
        assert!(!heartbeat.is_beating(Instant::now() + STILL_AFTER * 2));
        heartbeat.beat();
        assert!(heartbeat.is_beating(Instant::now()));
    }

    #[test]
    fn an_agent_answers_where_another_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("health.sock");
        let options = Options {
            socket: socket.clone(),
        };
        assert!(ask(&options).is_err());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(ask(&options).is_err());
        let heartbeat = Heartbeat::new();
        try_serve(&socket, heartbeat.clone()).unwrap();
        ask(&options).unwrap();
        let long_ago = Instant::now().checked_sub(STILL_AFTER).unwrap();
        *heartbeat.0.lock() = long_ago;
        assert!(ask(&options).unwrap_err().to_string().contains("no progress"));
    }
}
