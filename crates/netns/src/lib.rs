//! Network namespaces, held by open file descriptors. The only place that enters one.
//!
//! A socket belongs to the namespace it was made in, wherever it is used. So threads of their own (`visitors`)
//! enter the namespaces, do what has to be done there and hand the sockets out; no thread of tokio ever
//! enters one.

pub mod bpf;
mod bytes;
pub mod fuzzing;
pub mod holders;
pub mod links;
pub mod neighbours;
pub mod netfilter;
pub mod netlink;
pub mod path_mtu;
pub mod privileges;
pub mod procfs;
pub mod rootfs;
pub mod sockets;
mod sockopt;
pub mod tcp_info;
pub mod tunnel_ends;
mod visitors;

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use parking_lot::Mutex;

use self::visitors::{Kind, Visit};

pub use self::visitors::prepare;

/// A visit takes no longer, with the time that it waits for its turn: what is left to do after that is dropped.
const DEADLINE: Duration = Duration::from_secs(5);

/// Device and inode, which are a namespace's identity while somebody holds it.
type Id = (u64, u64);

/// Sockets that are made at once: every visit to the thread costs two changes of context.
const BATCH: usize = 8;

/// Sockets that nobody has used yet, with their address family and type.
type Stock = Vec<(AddressFamily, SockType, OwnedFd)>;

/// A network namespace. It stays as long as somebody holds it, even when its processes have died.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    stock: Arc<Mutex<Stock>>,
    id: Id,
    kind: Kind,
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
        let found = Self::of_file(Path::new(&format!("/proc/{pid}/ns/net")))?;
        Ok(Self {
            kind: Kind::Pods,
            ..found
        })
    }

    /// The number by which the kernel knows the namespace.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.id.1
    }

    /// Whether a process is in the namespace. Nothing of the process itself is touched.
    #[must_use]
    pub fn has_process(&self, pid: i32) -> bool {
        let found = std::fs::metadata(format!("/proc/{pid}/ns/net"));
        found.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id)
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
            stock: Arc::default(),
            id: (metadata.dev(), metadata.ino()),
            kind: Kind::Node,
        })
    }

    /// A new socket of the namespace for an address of this family. It does not block.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel makes no socket.
    pub async fn socket(&self, target: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let taken = || {
            let mut stock = self.stock.lock();
            let position = stock.iter().position(|(f, k, _)| (*f, *k) == (family, kind))?;
            Some(stock.swap_remove(position).2)
        };
        if let Some(socket) = taken() {
            return Ok(socket);
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let made = self.visit(move || {
            let one = || socket(family, kind, flags, None).map_err(io::Error::from);
            (0..BATCH).map(|_| one()).collect::<io::Result<Vec<OwnedFd>>>()
        });
        let mut made = made.await?;
        let first = made.pop().ok_or(io::ErrorKind::Other)?;
        let mut stock = self.stock.lock();
        // Several may have found it empty at once.
        let has = stock
            .iter()
            .filter(|(f, k, _)| (*f, *k) == (family, kind))
            .count();
        made.truncate((BATCH - 1).saturating_sub(has));
        stock.extend(made.into_iter().map(|socket| (family, kind, socket)));
        Ok(first)
    }

    /// Does something in the namespace. What is done must be short: others wait for their turn.
    ///
    /// # Errors
    /// When the namespace cannot be entered (CAP_SYS_ADMIN), what is done fails, or it takes too long.
    pub async fn visit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (result, answer) = tokio::sync::oneshot::channel();
        self.begin(move |entered| {
            // Whoever asked may have given up.
            let _ = result.send(entered.and_then(|()| job()));
        })?;
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(has_panicked())),
            Err(_) => Err(self.too_late()),
        }
    }

    /// Like [`Netns::visit`] for threads that may wait: the calling thread does nothing else meanwhile.
    ///
    /// # Errors
    /// The same.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (result, answer) = mpsc::sync_channel(1);
        self.begin(move |entered| {
            let _ = result.send(entered.and_then(|()| job()));
        })?;
        match answer.recv_timeout(DEADLINE) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(has_panicked()),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(self.too_late()),
        }
    }

    fn begin(&self, job: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        visitors::send(
            self.kind,
            Visit::new(self.file.clone(), self.id, DEADLINE, Box::new(job)),
        )
    }

    fn too_late(&self) -> io::Error {
        visitors::relieve(self.kind, DEADLINE);
        io::Error::new(
            io::ErrorKind::TimedOut,
            "the visit to the network namespace took too long",
        )
    }
}

fn has_panicked() -> io::Error {
    io::Error::other("what was done in the namespace has panicked")
}
