//! Who dropped the packets of dials that failed, watched while these are repeated.
//!
//! At rest nothing is loaded into the kernel. What is watched are the addresses of the repeated dials, before and after
//! translation (`wanted.rs`); of what is counted only the packets of the round's own sockets are reported, and only those
//! that were dropped on the node, in the client or in the endpoint's Pod (`seen.rs`). For those that a firewall dropped the
//! counters of its rules are compared, before and after (`rules.rs`), to name the rule (`blame.rs`). Where nothing can be
//! watched all else goes on as usual.

pub(super) mod arrivals;
mod blame;
pub(super) mod leaving;
mod packets_of;
mod rules;
mod seen;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use svcdiag_api::{DropCause, DropPlace, Dropper, PacketDrop};
use svcdiag_drops::{Drop, Kernel, Leg, Paths, Unavailable, Watch};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::{Netns, netfilter::droppers::Packet};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

pub(super) use self::seen::Seen;
use self::{
    blame::Question,
    rules::{Before, backends, hooks, kernel_version},
    wanted::{Wanted, distinct},
};
use super::{LocalPod, Round};
use crate::blocking::{Pool, blocking};

/// Watches at the same time, of all NodeProbes: every packet that the node drops meanwhile passes each of them.
const MAX_WATCHES: usize = 8;

/// Pods whose rules are read at the same time: some megabytes each at most.
const MAX_RULES_OF_PODS: usize = 4;

/// How long to wait for a turn; otherwise the dials are repeated without a watch.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the rounds of a node share.
#[derive(Debug)]
pub(super) struct Watches {
    paths: Paths,
    /// What this kernel is like, or why it cannot be watched, once that was needed: it stays so while the node is up.
    kernel: OnceLock<Result<Arc<Kernel>, Arc<Unavailable>>>,
    turns: Semaphore,
    /// For packets of clients on other nodes.
    arrivals: Arc<Semaphore>,
    /// To read the rules of the node, and those of Pods.
    rules_of_nodes: Semaphore,
    rules_of_pods: Semaphore,
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
            arrivals: Arc::new(Semaphore::new(arrivals::MAX_WATCHES)),
            rules_of_nodes: Semaphore::new(1),
            rules_of_pods: Semaphore::new(MAX_RULES_OF_PODS),
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

/// Who dialled what, as its packets are told apart.
#[derive(Debug)]
struct Dialled {
    /// The client Pod; none for the node itself.
    from: Option<String>,
    protocol: Protocol,
    target: SocketAddr,
    /// The inode of the client's network namespace, if it is on this node.
    client: Option<u64>,
}

impl Dialled {
    fn of(dial: &Repeated<'_>) -> Self {
        Self {
            from: dial.from.map(|pod| pod.key.clone()),
            protocol: dial.protocol,
            target: dial.target,
            client: Some(dial.netns.inode()),
        }
    }
}

/// Packets that were dropped alike, how many, and by what.
type Named = (PacketDrop, u64, Vec<Dropper>);

/// A watch that goes on.
struct Begun<'a> {
    watch: Watch,
    wanted: Vec<Wanted>,
    rules: Before,
    turn: SemaphorePermit<'a>,
}

/// Packets that were dropped alike.
struct Lost<'a> {
    drops: Vec<&'a Drop>,
    packets: u64,
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
        let clients = dials.iter().map(|dial| dial.netns).collect();
        let dialled = dials.iter().flat_map(|dial| &dial.endpoints);
        let rules = self
            .rules_before(clients, &dialled.map(SocketAddr::ip).collect())
            .await;
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
        Some(Begun {
            watch,
            wanted,
            rules,
            turn,
        })
    }

    async fn finish(&self, dials: &[Repeated<'_>], begun: Begun<'_>) {
        let Begun {
            watch,
            wanted,
            rules,
            turn,
        } = begun;
        let drops = self.node.netns.visit(move || watch.stop()).await;
        drop(turn);
        if let Some(drops) = self.unless_unwatched(drops) {
            let dials: Vec<Dialled> = dials.iter().map(Dialled::of).collect();
            let lost = self.lost(&dials, &wanted, &drops);
            for (known, packets, droppers) in self.named(lost, rules).await {
                self.seen.note(known, packets, droppers);
            }
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

    /// The drops of the dials, those that are alike together.
    fn lost<'d>(
        &self,
        dials: &[Dialled],
        wanted: &[Wanted],
        drops: &'d [Drop],
    ) -> BTreeMap<PacketDrop, Lost<'d>> {
        let sources = self.seen.sources();
        let mut lost: BTreeMap<PacketDrop, Lost<'d>> = BTreeMap::new();
        for drop in drops {
            for of in wanted {
                let Some(dial) = dials.get(of.dial) else { continue };
                let cause = of.cause(drop, dial.target, &sources);
                let Some((cause, place)) = cause.zip(self.place(dial, of.endpoint, drop)) else {
                    continue;
                };
                let known = PacketDrop {
                    from: dial.from.clone(),
                    protocol: dial.protocol,
                    target: dial.target.to_string(),
                    endpoint: of.endpoint.map(|endpoint| endpoint.to_string()),
                    answers: of.filter.leg == Leg::Answer,
                    cause,
                    place,
                    interface: drop.interface.as_ref().map(|interface| interface.name.clone()),
                    reason: drop.reason.clone(),
                    function: drop.location.clone(),
                    carrier: of.carrier(drop),
                    packets: 0,
                    droppers: Vec::new(),
                };
                let alike = lost.entry(known).or_insert(Lost {
                    drops: Vec::new(),
                    packets: 0,
                });
                alike.drops.push(drop);
                alike.packets = alike.packets.saturating_add(drop.count);
            }
        }
        lost
    }

    /// The drops with their packets, and for those by a firewall which rule it was.
    async fn named(&self, lost: BTreeMap<PacketDrop, Lost<'_>>, mut rules: Before) -> Vec<Named> {
        let mut by_firewalls: BTreeMap<u64, Vec<(&PacketDrop, Question)>> = BTreeMap::new();
        let kernel = kernel_version();
        let untranslated = lost
            .keys()
            .filter(|known| known.cause == DropCause::AnswerNotTranslated);
        let untranslated: BTreeSet<(&Option<String>, &String)> =
            untranslated.map(|known| (&known.from, &known.target)).collect();
        for (known, lost) in lost
            .iter()
            .filter(|(known, _)| known.cause == DropCause::Firewall)
        {
            let namespace = lost.drops.first().and_then(|drop| drop.namespace);
            let question = self.question(known, lost, kernel).await;
            if let Some((namespace, mut question)) = namespace.zip(question) {
                // A client refuses an answer that was not translated, and conntrack knows nothing of that.
                question.packet.opens &= !untranslated.contains(&(&known.from, &known.target));
                by_firewalls
                    .entry(namespace.into())
                    .or_default()
                    .push((known, question));
            }
        }
        let mut named: BTreeMap<&PacketDrop, Vec<Dropper>> = BTreeMap::new();
        for (namespace, of) in by_firewalls {
            let (drops, questions): (Vec<&PacketDrop>, Vec<Question>) = of.into_iter().unzip();
            if let Some(rules) = rules.remove(&namespace) {
                named.extend(drops.into_iter().zip(self.droppers(rules, questions).await));
            }
        }
        let each = lost.iter().map(|(known, lost)| {
            let droppers = named.remove(known).unwrap_or_default();
            (known.clone(), lost.packets, droppers)
        });
        each.collect()
    }

    /// What is to be found out about packets that a firewall dropped.
    async fn question(
        &self,
        known: &PacketDrop,
        lost: &Lost<'_>,
        kernel: Option<(u32, u32)>,
    ) -> Option<Question> {
        let tuple = lost.drops.first()?.tuple;
        let packet = Packet {
            protocol: tuple.protocol.number(),
            source: tuple.source,
            destination: tuple.destination,
            // Each end of a tunnel sends from ports of its own, so that conntrack sees no answers.
            is_answer: known.answers && known.carrier.is_none(),
            is_tracked: true,
            // With HTTP there is more than SYNs.
            opens: self.spec.probe.http.is_none(),
            is_first: false,
        };
        let (is_sent, is_received) = match known.place {
            DropPlace::Node => {
                let own = self.own_addresses().await;
                // Without them it is not known which way the packets took.
                (!own.is_empty()).then_some(())?;
                (
                    own.contains(&tuple.source.ip()),
                    own.contains(&tuple.destination.ip()),
                )
            }
            DropPlace::Client => (
                !known.answers || self.dials_itself(known),
                known.answers || self.dials_itself(known),
            ),
            DropPlace::Endpoint => (known.answers, !known.answers),
        };
        Some(Question {
            packet,
            hooks: hooks(known.place, is_sent, is_received),
            backends: backends(known.function.as_deref(), kernel),
            packets: lost.packets,
        })
    }

    /// Whether packets come back to the Pod that dialled.
    fn dials_itself(&self, known: &PacketDrop) -> bool {
        let ip = |address: &str| {
            address
                .parse()
                .ok()
                .map(|address: SocketAddr| address.ip().to_string())
        };
        let endpoint = known.endpoint.as_deref().and_then(ip);
        let mut pods = self.clients.iter().chain(&self.endpoints);
        let client = pods.find(|pod| known.from.as_ref() == Some(&pod.key));
        client
            .zip(endpoint)
            .is_some_and(|(pod, ip)| pod.pod.ips.contains(&ip))
    }

    /// Whose network dropped packets; none if it is neither the node's nor that of the Pods at the ends.
    fn place(&self, dial: &Dialled, endpoint: Option<SocketAddr>, drop: &Drop) -> Option<DropPlace> {
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
        } else if Some(namespace) == dial.client {
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
