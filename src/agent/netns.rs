//! Network namespaces, held by open file descriptors. The only place that enters one.
//!
//! A socket belongs to the namespace it was made in. So a thread of its own enters the namespace, does
//! what has to be done there and hands the sockets out; it never goes back, no thread of tokio ever enters
//! one, and it ends with the last holder of the namespace. Child processes and threads of that thread would
//! be in the namespace, too, so it starts none.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use nix::sched::{CloneFlags, setns};

/// What is to be done in a namespace.
type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. It stays as long as somebody holds it, even when its processes have died.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    /// The way to the thread that is in it, once there was something to do. The thread ends when the last
    /// clone is dropped.
    inside: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
    /// Device and inode, which are the namespace's identity.
    id: (u64, u64),
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc does not tell.
    pub fn current() -> io::Result<Self> {
        Self::of_file(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// NotFound when the process has gone, PermissionDenied without CAP_SYS_PTRACE.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::of_file(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that a file stands for, such as those in /run/netns.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            file: Arc::new(file),
            inside: Arc::default(),
            id: (metadata.dev(), metadata.ino()),
        })
    }

    /// Does something in the namespace and waits for it. What is done must be short: it blocks, and others
    /// wait for their turn.
    ///
    /// # Errors
    /// When the namespace cannot be entered (CAP_SYS_ADMIN), or what is done fails.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (result, answer) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            // Whoever asked waits for it.
            let _ = result.send(job());
        });
        let has_ended = || io::Error::other("what was done in the namespace has panicked");
        self.inside()?.send(job).map_err(|_| has_ended())?;
        answer.recv().unwrap_or_else(|_| Err(has_ended()))
    }

    /// The way to the thread in the namespace, which is started if there is none.
    fn inside(&self) -> io::Result<mpsc::Sender<Job>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inside.as_ref() {
            return Ok(known.clone());
        }
        let (jobs, todo) = mpsc::channel::<Job>();
        let (result, entered) = mpsc::sync_channel(1);
        let file = self.file.clone();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let entered = setns(file.as_fd(), CloneFlags::CLONE_NEWNET);
                drop(file);
                let _ = result.send(entered);
                // Nobody sends anything if it could not be entered.
                for job in todo {
                    // The next one has nothing to do with it.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        entered
            .recv()
            .map_err(|_| io::Error::other("the namespace's thread has ended"))??;
        *inside = Some(jobs.clone());
        Ok(jobs)
    }
}
