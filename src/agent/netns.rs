//! Network namespaces, held by open file descriptors. The only place that enters one.
//!
//! A socket belongs to the namespace it was made in. So a thread for nothing else enters the namespace, does
//! what has to be done there, hands the sockets out and goes back, so that it does not keep a namespace
//! whose Pod ends; where it cannot go back, it ends. No thread of tokio ever enters one. Child processes and
//! threads of that thread would be in the namespace, too, so it starts none.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use nix::sched::{CloneFlags, setns};

/// A network namespace. It stays as long as somebody holds it, even when its processes have died.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
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
            id: (metadata.dev(), metadata.ino()),
        })
    }

    /// Does something in the namespace and waits for it. What is done must be short: it blocks.
    ///
    /// # Errors
    /// When the namespace cannot be entered (CAP_SYS_ADMIN), or what is done fails.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (netns, (reply, replied)) = (self.clone(), mpsc::sync_channel(1));
        let job: Job = Box::new(move |home| {
            let inside = || {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
                job()
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(inside));
            let is_home = setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_ok();
            let outcome = outcome
                .unwrap_or_else(|_| Err(io::Error::other("what was done in the namespace has panicked")));
            // Whoever asked has not gone: it waits.
            let _ = reply.send((outcome, is_home));
        });
        let worker = match idle().pop() {
            Some(worker) => worker,
            None => start_worker()?,
        };
        let ended = || io::Error::other("the thread that enters namespaces has ended");
        worker.send(job).map_err(|_| ended())?;
        let (outcome, is_home) = replied.recv().map_err(|_| ended())?;
        let mut idle = idle();
        if is_home && idle.len() < MAX_IDLE {
            idle.push(worker);
        }
        outcome
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Enters a namespace, does what is to be done and goes back to the one it is given.
type Job = Box<dyn FnOnce(&Netns) + Send>;

/// Threads that have nothing to do, by the way to them. One ends when the way is dropped.
static IDLE: Mutex<Vec<mpsc::Sender<Job>>> = Mutex::new(Vec::new());

/// No more wait: as many as look at the same time on a large node.
const MAX_IDLE: usize = 8;

fn idle() -> MutexGuard<'static, Vec<mpsc::Sender<Job>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_worker() -> io::Result<mpsc::Sender<Job>> {
    let home = Netns::of_file(Path::new("/proc/self/ns/net"))?;
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || jobs.iter().for_each(|job| job(&home)))?;
    Ok(sender)
}
