//! Work that may have to wait for somebody else's process, off the threads that serve everything else.
//!
//! Reading files of /proc and of a Pod's root can take as long as the Pod likes. It is given some time; what has
//! not come back by then goes on for itself, and keeps its place until it does, so that there are never many.

use std::{io, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// Whoever waits longer is told that nothing is known.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is asked: what hangs for Pods keeps nobody from the node's own processes.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// The node's own processes, and the list of all.
    Node,
    /// A Pod's processes and files.
    Pod,
}

static NODE: Semaphore = Semaphore::const_new(4);
static PODS: Semaphore = Semaphore::const_new(16);

/// Does some work aside.
///
/// # Errors
/// TimedOut when it has not ended in time.
pub async fn aside<T: Send + 'static>(of: Of, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let room = match of {
        Of::Node => &NODE,
        Of::Pod => &PODS,
    };
    let done = async {
        let place = room.acquire().await.map_err(io::Error::other)?;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    };
    timeout(PATIENCE, done).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it was not read in 5 seconds",
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
        let hanging = aside(Of::Pod, move || hangs.recv().is_err());
        let others = async {
            // Meanwhile others are served, on the very thread that waits.
            aside(Of::Pod, || 1).await.unwrap() + aside(Of::Node, || 2).await.unwrap()
        };
        let (hanging, others) = tokio::join!(hanging, others);
        assert_eq!(hanging.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(others, 3);
        drop(release);
    }
}
