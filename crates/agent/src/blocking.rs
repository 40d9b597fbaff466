//! Blocking work that depends on foreign processes, on separate threads.
//!
//! A Pod can make reads in /proc and in its root file system take arbitrarily long. Each read gets a timeout; one
//! that exceeds it continues in the background and keeps its slot until it returns, so there are never many.

use std::{io, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// After this time the result counts as unknown.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose files are read. Each has its own threads, so that hanging Pods do not block reads of the node's processes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pool {
    /// The node's own processes, and the list of all.
    Node,
    /// A Pod's processes and files.
    Pod,
}

static NODE: Semaphore = Semaphore::const_new(4);
static PODS: Semaphore = Semaphore::const_new(16);

/// Runs blocking work on a thread of its pool, for at most five seconds.
///
/// # Errors
/// `TimedOut` when it did not finish in time.
pub(crate) async fn blocking<T: Send + 'static>(
    pool: Pool,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let permits = match pool {
        Pool::Node => &NODE,
        Pool::Pod => &PODS,
    };
    let done = async {
        let permit = permits.acquire().await.map_err(io::Error::other)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    };
    timeout(PATIENCE, done).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it could not be read within 5 seconds",
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_not_waited_for_and_keeps_nobody_else_waiting() {
        let (release, hangs) = mpsc::channel::<()>();
        let hanging = blocking(Pool::Pod, move || hangs.recv().is_err());
        let others = async {
            // Meanwhile the waiting thread serves others.
            blocking(Pool::Pod, || 1).await.unwrap() + blocking(Pool::Node, || 2).await.unwrap()
        };
        let (hanging, others) = tokio::join!(hanging, others);
        assert_eq!(hanging.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(others, 3);
        drop(release);
    }
}
