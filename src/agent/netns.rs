//! Network namespaces, held by open file descriptors. The only place that enters one.
//!
//! A socket belongs to the namespace it was made in. So a thread of its own enters the namespace, does
//! what has to be done there, hands the sockets out and ends; it never goes back, and no thread of tokio
//! ever enters one. Child processes and threads of that thread would be in the namespace, too, so it
//! starts none.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    sync::Arc,
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
    pub fn run<T: Send>(&self, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                    job()
                })?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("what was done in the namespace has panicked")))
        })
    }
}
