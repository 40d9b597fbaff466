//! Network namespaces, held by open file descriptors. The only place that enters one.
//!
//! A socket belongs to the namespace it was made in, wherever it is used. So one thread of its own, the visitor,
//! enters the namespaces, does what has to be done there and hands the sockets out; no thread of tokio ever
//! enters one. When nothing is left to do it goes back to where it began, so that it keeps no namespace of a Pod
//! that ends. Child processes and threads of that thread would be in the namespace, too, so it starts none.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// What is to be done in a namespace, once it is known whether that could be entered.
type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A visit to a namespace.
struct Visit {
    file: Arc<File>,
    id: Id,
    job: Job,
}

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
            stock: Arc::default(),
            id: (metadata.dev(), metadata.ino()),
        })
    }

    /// A new socket of the namespace for an address of this family. It does not block.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel makes no socket.
    pub fn socket(&self, target: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let taken = || {
            let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
            let position = stock.iter().position(|(f, k, _)| (*f, *k) == (family, kind))?;
            Some(stock.swap_remove(position).2)
        };
        if let Some(socket) = taken() {
            return Ok(socket);
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let mut made = self.run(move || {
            let one = || socket(family, kind, flags, None).map_err(io::Error::from);
            (0..BATCH).map(|_| one()).collect::<io::Result<Vec<OwnedFd>>>()
        })?;
        let first = made.pop().ok_or(io::ErrorKind::Other)?;
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        stock.extend(made.into_iter().map(|socket| (family, kind, socket)));
        Ok(first)
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
        let visit = Visit {
            file: self.file.clone(),
            id: self.id,
            job: Box::new(move |entered| {
                // Whoever asked waits for it.
                let _ = result.send(entered.and_then(|()| job()));
            }),
        };
        let has_ended = || io::Error::other("what was done in the namespace has panicked");
        visitor()?.send(visit).map_err(|_| has_ended())?;
        answer.recv().unwrap_or_else(|_| Err(has_ended()))
    }
}

/// The way to the visitor, which is started when there is something to do for the first time.
fn visitor() -> io::Result<mpsc::Sender<Visit>> {
    static VISITOR: Mutex<Option<mpsc::Sender<Visit>>> = Mutex::new(None);
    let mut visitor = VISITOR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = visitor.as_ref() {
        return Ok(known.clone());
    }
    let (visits, todo) = mpsc::channel();
    // A thread begins where the one that starts it is.
    let home = File::open("/proc/thread-self/ns/net")?;
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || visit_all(&home, &todo))?;
    *visitor = Some(visits.clone());
    Ok(visits)
}

fn visit_all(home: &File, todo: &mpsc::Receiver<Visit>) {
    let mut here = None;
    loop {
        let next = todo.try_recv().or_else(|_| {
            if here.is_some() && setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_ok() {
                here = None;
            }
            todo.recv()
        });
        let Ok(Visit { file, id, job }) = next else {
            return;
        };
        let mut entered = Ok(());
        // It is held by who is in it: so its identity is nobody else's.
        if here != Some(id) {
            entered = setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            if entered.is_ok() {
                here = Some(id);
            }
        }
        drop(file);
        // The next one has nothing to do with it.
        let _ = catch_unwind(AssertUnwindSafe(move || job(entered)));
    }
}
