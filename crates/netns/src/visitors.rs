//! The threads that enter network namespaces: one for the node's own and one for those of Pods.
//!
//! What is read in a Pod's namespace is as long as the Pod likes. It is bounded where it is read; and should it
//! hang all the same, then neither the node's visits wait for it nor, after the deadline, those of other Pods: the
//! visitor is relieved by another. When nothing is left to do a visitor goes back to where it began, so that it
//! keeps no namespace of a Pod that ends.
//!
//! Only these threads need the right to enter namespaces (CAP_SYS_ADMIN); threads have the rights of the one that
//! starts them. So one thread that enters nothing starts them, and is itself started by [`prepare`] before the
//! others give the right up.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;

use super::Id;

/// Whose namespaces a visitor enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The node's.
    Node,
    /// Those of Pods.
    Pods,
}

/// What is to be done in a namespace, once it is known whether that could be entered.
type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A visit to a namespace.
pub(super) struct Visit {
    file: Arc<File>,
    id: Id,
    /// Nobody waits for it after that.
    until: Instant,
    job: Job,
}

impl Visit {
    pub(super) fn new(file: Arc<File>, id: Id, lasts: Duration, job: Job) -> Self {
        let until = Instant::now() + lasts;
        Self { file, id, until, job }
    }
}

/// Visitors of one kind that hang at the same time. With more of them, whoever asks is only told that it took too long.
const MAX_HANGING: usize = 8;

/// The visits of one kind.
struct Queue {
    name: &'static str,
    todo: Mutex<mpsc::Receiver<Visit>>,
    shift: Mutex<Shift>,
}

/// Who is at work.
#[derive(Default)]
struct Shift {
    /// The number of the visitor whose turn it is.
    number: u64,
    /// Since when it has been on a visit.
    busy_since: Option<Instant>,
    /// Those who were relieved and have not come back.
    hanging: usize,
}

/// The ways to the visitors.
struct Visitors {
    node: (mpsc::Sender<Visit>, Arc<Queue>),
    pods: (mpsc::Sender<Visit>, Arc<Queue>),
    /// To the thread that starts them.
    starter: mpsc::Sender<(Arc<Queue>, u64)>,
}

static VISITORS: Mutex<Option<Visitors>> = Mutex::new(None);

/// Starts the visitors, unless they were started before.
///
/// # Errors
/// When no thread can be started.
pub fn prepare() -> io::Result<()> {
    with(|_| ())
}

pub(super) fn send(kind: Kind, visit: Visit) -> io::Result<()> {
    let sent = with(|visitors| visitors.of(kind).0.send(visit).is_ok())?;
    sent.then_some(()).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// Has another visitor take the turn of one that has been on a visit for long.
pub(super) fn relieve(kind: Kind, after: Duration) {
    let _ = with(|visitors| {
        let queue = visitors.of(kind).1.clone();
        let mut shift = queue.shift.lock();
        // Whoever asks has waited for its turn, too.
        let hangs = shift.busy_since.is_some_and(|since| since.elapsed() >= after / 2);
        if hangs && shift.hanging < MAX_HANGING {
            shift.hanging += 1;
            shift.number += 1;
            shift.busy_since = None;
            let number = shift.number;
            drop(shift);
            let _ = visitors.starter.send((queue, number));
        }
    });
}

fn with<T>(act: impl FnOnce(&Visitors) -> T) -> io::Result<T> {
    let mut visitors = VISITORS.lock();
    if visitors.is_none() {
        *visitors = Some(Visitors::start()?);
    }
    visitors
        .as_ref()
        .map(act)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Visitors {
    fn start() -> io::Result<Self> {
        // A thread begins where the one that starts it is.
        let home = Arc::new(File::open("/proc/thread-self/ns/net")?);
        let (starter, to_start) = mpsc::channel::<(Arc<Queue>, u64)>();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                while let Ok((queue, number)) = to_start.recv() {
                    let home = home.clone();
                    let visitor = std::thread::Builder::new().name(queue.name.to_owned());
                    let of = queue.clone();
                    if visitor.spawn(move || visit_all(&of, number, &home)).is_err() {
                        // Whoever asks is told that it took too long, and asks for another.
                        queue.shift.lock().busy_since = Some(Instant::now());
                    }
                }
            })?;
        let queue = |name| {
            let (visits, todo) = mpsc::channel();
            let queue = Arc::new(Queue {
                name,
                todo: Mutex::new(todo),
                shift: Mutex::default(),
            });
            let _ = starter.send((queue.clone(), 0));
            (visits, queue)
        };
        Ok(Self {
            node: queue("netns-node"),
            pods: queue("netns-pods"),
            starter: starter.clone(),
        })
    }

    fn of(&self, kind: Kind) -> &(mpsc::Sender<Visit>, Arc<Queue>) {
        match kind {
            Kind::Node => &self.node,
            Kind::Pods => &self.pods,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that enters a namespace")]
fn visit_all(queue: &Queue, number: u64, home: &File) {
    let mut here = None;
    loop {
        let waiting = queue.todo.lock().try_recv();
        let next = waiting.or_else(|_| {
            if here.is_some() && setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_ok() {
                here = None;
            }
            queue.todo.lock().recv()
        });
        let Ok(visit) = next else { return };
        queue.shift.lock().busy_since = Some(Instant::now());
        go(visit, &mut here);
        let mut shift = queue.shift.lock();
        if shift.number != number {
            shift.hanging -= 1;
            return;
        }
        shift.busy_since = None;
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that enters a namespace")]
fn go(visit: Visit, here: &mut Option<Id>) {
    let Visit { file, id, until, job } = visit;
    let mut entered = Ok(());
    if Instant::now() >= until {
        entered = Err(io::ErrorKind::TimedOut.into());
    // It is held by who is in it: so its identity is nobody else's.
    } else if *here != Some(id) {
        entered = setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        if entered.is_ok() {
            *here = Some(id);
        }
    }
    drop(file);
    // The next one has nothing to do with it.
    let _ = catch_unwind(AssertUnwindSafe(move || job(entered)));
}
