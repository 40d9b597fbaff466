//! Who dropped the packets of dials that failed, watched while these are repeated.
//!
//! At rest nothing is loaded into the kernel. What is watched are the addresses of the repeated dials, before and after
//! translation (`wanted.rs`); of what is counted only the packets of the round's own sockets are reported, and only those
//! that were dropped on the node, in the client or in the endpoint's Pod (`seen.rs`). Where nothing can be watched all else
//! goes on as usual.

mod seen;
mod wanted;

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use svcdiag_api::{DropPlace, PacketDrop};
use svcdiag_drops::{Drop, Kernel, Leg, Paths, Unavailable, Watch};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::Netns;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

pub(super) use self::seen::Seen;
use self::wanted::{Wanted, distinct};
use super::{LocalPod, Round};
use crate::blocking::{Pool, blocking};

/// Watches at the same time, of all NodeProbes: every packet that the node drops meanwhile passes each of them.
const MAX_WATCHES: usize = 8;

/// How long to wait for a turn; otherwise the dials are repeated without a watch.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the rounds of a node share.
#[derive(Debug)]
pub(super) struct Watches {
    paths: Paths,
    /// What this kernel is like, or why it cannot be watched, once that was needed: it stays so while the node is up.
    kernel: OnceLock<Result<Arc<Kernel>, Arc<Unavailable>>>,
    turns: Semaphore,
}

impl Default for Watches {
    fn default() -> Self {
        Self::with(Paths::default())
    }
}

impl Watches {
    /// With a kernel that describes itself there.
    pub(super) fn with(paths: Paths) -> Self {
        Self {
            paths,
            kernel: OnceLock::new(),
            turns: Semaphore::new(MAX_WATCHES),
        }
    }

    /// Reads some megabytes at the first call. What may pass, for example a lack of memory, is not remembered.
    fn kernel(&self) -> Result<Arc<Kernel>, Arc<Unavailable>> {
        if let Some(known) = self.kernel.get() {
            return known.clone();
        }
        let read = Kernel::read(self.paths.clone()).map(Arc::new).map_err(Arc::new);
        let may_pass = matches!(&read, Err(why) if matches!(&**why,
            Unavailable::NoBtf { source, .. } if source.kind() != io::ErrorKind::NotFound));
        if may_pass {
            return read;
        }
        self.kernel.get_or_init(|| read).clone()
    }
}

/// A dial that is to be repeated.
pub(super) struct Repeated<'a> {
    pub from: Option<&'a LocalPod<'a>>,
    pub netns: &'a Netns,
    pub protocol: Protocol,
    pub target: SocketAddr,
    /// Where its packets may go: the target itself where the Service is bypassed.
    pub endpoints: Vec<SocketAddr>,
}

/// A watch that goes on.
struct Begun<'a> {
    watch: Watch,
    wanted: Vec<Wanted>,
    turn: SemaphorePermit<'a>,
}

impl Round<'_> {
    /// Repeats dials, and notes who drops their packets meanwhile.
    pub(super) async fn watched<T>(&self, dials: Vec<Repeated<'_>>, again: impl Future<Output = T>) -> T {
        if dials.is_empty() {
            return again.await;
        }
        let begun = self.begin(&dials).await;
        let queues = self.accept_queues(&dials).await;
        let result = again.await;
        if let Some(begun) = begun {
            self.finish(&dials, begun).await;
        }
        self.note_overflows(&dials, queues).await;
        result
    }

    /// All that takes long comes before the turn, which is held only while packets are watched.
    async fn begin(&self, dials: &[Repeated<'_>]) -> Option<Begun<'_>> {
        let watches = &self.node.watches;
        let shared = watches.clone();
        let kernel = self.unless_unwatched(blocking(Pool::Node, move || shared.kernel()).await)?;
        let kernel = self.unless_unwatched(kernel)?;
        let wanted = self.wanted(dials).await;
        let filters = distinct(&wanted);
        if filters.is_empty() {
            return None;
        }
        let Ok(turn) = timeout(PATIENCE, watches.turns.acquire()).await else {
            self.problem(
                "Dropped packets were not watched: too many failed dials are repeated at the same time."
                    .to_owned(),
            );
            return None;
        };
        let turn = turn.ok()?;
        // The threads that enter namespaces have the rights that it takes.
        let started = self
            .node
            .netns
            .visit(move || Ok(Watch::start(&kernel, &filters)))
            .await;
        let watch = self.unless_unwatched(self.unless_unwatched(started)?)?;
        Some(Begun { watch, wanted, turn })
    }

    async fn finish(&self, dials: &[Repeated<'_>], begun: Begun<'_>) {
        let Begun { watch, wanted, turn } = begun;
        let drops = self.node.netns.visit(move || watch.stop()).await;
        drop(turn);
        if let Some(drops) = self.unless_unwatched(drops) {
            self.note_drops(dials, &wanted, &drops);
        }
    }

    /// Says once why drops are not known.
    fn unless_unwatched<T, E: Error>(&self, result: Result<T, E>) -> Option<T> {
        let problem = |why: &E| {
            let cause = why.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            self.problem(format!("Dropped packets could not be watched: {why}{cause}."));
        };
        result.inspect_err(problem).ok()
    }

    fn note_drops(&self, dials: &[Repeated<'_>], wanted: &[Wanted], drops: &[Drop]) {
        let sources = self.seen.sources();
        for drop in drops {
            for of in wanted {
                let Some(dial) = dials.get(of.dial) else { continue };
                let cause = of.cause(drop, dial.target, &sources);
                let Some((cause, place)) = cause.zip(self.place(dial, of.endpoint, drop)) else {
                    continue;
                };
                let known = PacketDrop {
                    from: dial.from.map(|pod| pod.key.clone()),
                    protocol: dial.protocol,
                    target: dial.target.to_string(),
                    endpoint: of.endpoint.map(|endpoint| endpoint.to_string()),
                    answers: of.filter.leg == Leg::Answer,
                    cause,
                    place,
                    interface: drop.interface.as_ref().map(|interface| interface.name.clone()),
                    reason: drop.reason.clone(),
                    function: drop.location.clone(),
                    packets: 0,
                };
                self.seen.note(known, drop.count);
            }
        }
    }

    /// Whose network dropped packets; none if it is neither the node's nor that of the Pods at the ends.
    fn place(&self, dial: &Repeated<'_>, endpoint: Option<SocketAddr>, drop: &Drop) -> Option<DropPlace> {
        let namespace = u64::from(drop.namespace?);
        let is_behind = |pod: &&LocalPod<'_>| {
            endpoint.is_some_and(|endpoint| pod.pod.ips.contains(&endpoint.ip().to_string()))
        };
        let is_endpoints = || {
            let mut pods = self.endpoints.iter().filter(is_behind);
            pods.any(|pod| pod.netns.inode() == namespace)
        };
        if namespace == self.node.netns.inode() {
            Some(DropPlace::Node)
        } else if namespace == dial.netns.inode() {
            Some(DropPlace::Client)
        } else {
            is_endpoints().then_some(DropPlace::Endpoint)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    #[test]
    fn a_kernel_that_cannot_be_watched_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let watches = Watches::with(Paths {
            btf: folder.path().join("vmlinux"),
            ..Paths::default()
        });
        let first = watches.kernel().unwrap_err();
        fs::write(&watches.paths.btf, "another file").unwrap();
        assert!(Arc::ptr_eq(&first, &watches.kernel().unwrap_err()));
    }
}
