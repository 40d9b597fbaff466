//! Who dropped the packets of dials that failed, watched while these are repeated.
//!
//! At rest nothing is loaded into the kernel. What is watched are the addresses of the repeated dials, before and after
//! translation; of what is counted only the packets of the round's own sockets are reported, and only those that were
//! dropped on the node, in the client or in the endpoint's Pod. Where nothing can be watched all else goes on as usual.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use svcdiag_api::{Answer, DropCause, DropPlace, NodeFacts, PacketDrop};
use svcdiag_drops::{
    Cause, Drop, Filter, Kernel, Leg, MAX_FILTERS, Paths, Tuple, Unavailable, Watch, explain,
};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::Netns;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{LocalPod, MAX_FAILURES, Round};
use crate::{
    blocking::{Pool, blocking},
    dial::source_towards,
};

/// Watches at the same time, of all NodeProbes: every packet that the node drops meanwhile passes each of them.
const MAX_WATCHES: usize = 8;

/// Dials of one watch, and endpoints of one dial; of more the first are watched.
const MAX_DIALS: usize = 64;
const MAX_ENDPOINTS: usize = 16;

/// Sockets of a round whose packets are known: more than its dials.
const MAX_SOURCES: usize = 16 * 1024;

/// How long to wait for a turn; otherwise the dials are repeated without a watch.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the rounds of a node share.
#[derive(Debug)]
pub(super) struct Watches {
    paths: Paths,
    /// What this kernel is like, once that was needed.
    kernel: Mutex<Option<Arc<Kernel>>>,
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
            kernel: Mutex::default(),
            turns: Semaphore::new(MAX_WATCHES),
        }
    }

    fn kernel(&self) -> Result<Arc<Kernel>, Unavailable> {
        let mut known = self.kernel.lock();
        if let Some(kernel) = known.as_ref() {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(Kernel::read(self.paths.clone())?);
        *known = Some(kernel.clone());
        Ok(kernel)
    }
}

/// What the watches of a round have in common.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The sockets that dialled.
    sources: Mutex<BTreeSet<SocketAddr>>,
    drops: Mutex<BTreeMap<PacketDrop, u64>>,
}

impl Seen {
    /// Notes the socket of a dial.
    pub(super) fn note_source(&self, source: Option<SocketAddr>) {
        let mut sources = self.sources.lock();
        if sources.len() < MAX_SOURCES {
            sources.extend(source);
        }
    }

    /// Notes packets that were dropped.
    pub(super) fn note(&self, drop: PacketDrop, packets: u64) {
        let mut drops = self.drops.lock();
        let count = drops.entry(drop).or_default();
        *count = count.saturating_add(packets);
    }

    /// The drops of the dials that failed again, those with most packets first.
    pub(super) fn of_failures(self, facts: &NodeFacts) -> Vec<PacketDrop> {
        let failed: BTreeSet<(Option<&str>, &str)> = facts
            .failures
            .iter()
            .map(|failure| (failure.from.as_deref(), failure.target.as_str()))
            .chain(
                facts
                    .hairpins
                    .iter()
                    .filter(|hairpin| hairpin.answer.is_some_and(|answer| answer != Answer::Accepted))
                    .map(|hairpin| (Some(hairpin.pod.as_str()), hairpin.target.as_str())),
            )
            .collect();
        let counted = self.drops.into_inner().into_iter();
        let mut drops: Vec<PacketDrop> = counted
            .map(|(drop, packets)| PacketDrop {
                packets: u32::try_from(packets).unwrap_or(u32::MAX),
                ..drop
            })
            .filter(|drop| failed.contains(&(drop.from.as_deref(), drop.target.as_str())))
            .collect();
        drops.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.cmp(b)));
        drops.truncate(MAX_FAILURES);
        drops.sort();
        drops
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

/// A filter, and the dial and the endpoint that it is for.
#[derive(Debug)]
struct Wanted {
    filter: Filter,
    dial: usize,
    endpoint: Option<SocketAddr>,
    /// The client's address in these packets is its own, so that its socket is known by it.
    is_own: bool,
}

impl Round<'_> {
    /// Repeats dials, and notes who drops their packets meanwhile.
    pub(super) async fn watched<T>(&self, dials: Vec<Repeated<'_>>, again: impl Future<Output = T>) -> T {
        if dials.is_empty() {
            return again.await;
        }
        let overflows = self.overflows(&dials).await;
        let begun = self.begin(&dials).await;
        let result = again.await;
        if let Some((watch, wanted, _turn)) = begun {
            match self.counted(watch).await {
                Ok(drops) => self.note_drops(&dials, &wanted, &drops),
                Err(error) => self.note_unwatched(&error),
            }
        }
        self.note_overflows(&dials, overflows).await;
        result
    }

    async fn begin(&self, dials: &[Repeated<'_>]) -> Option<(Watch, Vec<Wanted>, SemaphorePermit<'_>)> {
        let watches = &self.node.watches;
        let Ok(turn) = timeout(PATIENCE, watches.turns.acquire()).await else {
            self.problem(
                "Dropped packets were not watched: too many failed dials are repeated at the same time."
                    .to_owned(),
            );
            return None;
        };
        let turn = turn.ok()?;
        let wanted = self.wanted(dials).await;
        let filters = distinct(&wanted);
        if filters.is_empty() {
            return None;
        }
        let shared = watches.clone();
        let kernel = blocking(Pool::Node, move || shared.kernel()).await;
        let kernel = match kernel {
            Ok(Ok(kernel)) => kernel,
            Ok(Err(why)) => {
                self.note_unwatched(&why);
                return None;
            }
            Err(error) => {
                self.note_unwatched(&error);
                return None;
            }
        };
        // The threads that enter namespaces have the rights that it takes.
        let started = self
            .node
            .netns
            .visit(move || Ok(Watch::start(&kernel, &filters)))
            .await;
        match started {
            Ok(Ok(watch)) => return Some((watch, wanted, turn)),
            Ok(Err(why)) => self.note_unwatched(&why),
            Err(error) => self.note_unwatched(&error),
        }
        None
    }

    async fn counted(&self, watch: Watch) -> io::Result<Vec<Drop>> {
        let counts = self.node.netns.visit(move || watch.stop()).await?;
        blocking(Pool::Node, move || counts.describe().counted).await
    }

    /// Says once why drops are not known.
    fn note_unwatched(&self, why: &dyn Error) {
        let cause = why.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.problem(format!("Dropped packets could not be watched: {why}{cause}."));
    }

    async fn wanted(&self, dials: &[Repeated<'_>]) -> Vec<Wanted> {
        let mut of_node = BTreeMap::new();
        let mut wanted = Vec::new();
        for (number, dial) in dials.iter().enumerate().take(MAX_DIALS) {
            let Ok(client) = source_towards(dial.netns, dial.target).await else {
                continue;
            };
            let add = |leg, source: SocketAddr, destination: SocketAddr, endpoint, is_own| Wanted {
                filter: Filter {
                    leg,
                    tuple: Tuple {
                        protocol: dial.protocol,
                        source,
                        destination,
                    },
                },
                dial: number,
                endpoint,
                is_own,
            };
            let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
            if !dial.endpoints.contains(&dial.target) {
                wanted.push(add(Leg::ToService, any_port(client), dial.target, None, true));
            }
            for endpoint in dial.endpoints.iter().take(MAX_ENDPOINTS).copied() {
                let some = Some(endpoint);
                wanted.push(add(Leg::ToEndpoint, any_port(client), endpoint, some, true));
                wanted.push(add(Leg::Answer, endpoint, any_port(client), some, true));
                // Others send from the node's address as well, so that is looked at only where it is a Pod's way back
                // to itself, which is always masqueraded, or the node's own dial.
                let is_hairpin = dial
                    .from
                    .is_some_and(|pod| pod.pod.ips.contains(&endpoint.ip().to_string()));
                if dial.from.is_some() && !is_hairpin {
                    continue;
                }
                let node = match of_node.get(&endpoint) {
                    Some(known) => *known,
                    None => source_towards(&self.node.netns, endpoint).await.ok(),
                };
                of_node.insert(endpoint, node);
                if let Some(node) = node.filter(|node| *node != client) {
                    wanted.push(add(Leg::FromNode, any_port(node), endpoint, some, false));
                    wanted.push(add(Leg::Answer, endpoint, any_port(node), some, false));
                }
            }
        }
        wanted
    }

    fn note_drops(&self, dials: &[Repeated<'_>], wanted: &[Wanted], drops: &[Drop]) {
        let sources = self.seen.sources.lock();
        for drop in drops {
            let client = match drop.leg {
                Leg::Answer => drop.tuple.destination,
                _ => drop.tuple.source,
            };
            for of in wanted.iter().filter(|of| covers(&of.filter, drop)) {
                let Some(dial) = dials.get(of.dial) else { continue };
                if of.is_own && !sources.contains(&client) {
                    continue;
                }
                let cause = cause(&explain(drop, dial.target));
                let Some((cause, place)) = cause.zip(self.place(dial, of.endpoint, drop)) else {
                    continue;
                };
                let known = PacketDrop {
                    from: dial.from.map(|pod| pod.key.clone()),
                    target: dial.target.to_string(),
                    endpoint: of.endpoint.map(|endpoint| endpoint.to_string()),
                    answers: drop.leg == Leg::Answer,
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

/// The filters of a watch: dials of several ports may go to the same endpoint.
fn distinct(wanted: &[Wanted]) -> Vec<Filter> {
    let mut known = BTreeSet::new();
    let filters = wanted.iter().map(|of| of.filter);
    let mut filters: Vec<Filter> = filters.filter(|filter| known.insert(filter.tuple)).collect();
    filters.truncate(MAX_FILTERS);
    filters
}

/// Whether a drop is of the packets of a filter.
fn covers(filter: &Filter, drop: &Drop) -> bool {
    let is_side = |wanted: SocketAddr, found: SocketAddr| {
        wanted.ip() == found.ip() && (wanted.port() == 0 || wanted.port() == found.port())
    };
    filter.leg == drop.leg
        && filter.tuple.protocol == drop.tuple.protocol
        && is_side(filter.tuple.source, drop.tuple.source)
        && is_side(filter.tuple.destination, drop.tuple.destination)
}

/// What is reported of a drop: nothing where the kernel's reason may mean this and that, or that the port is closed,
/// which the answer itself says.
fn cause(cause: &Cause) -> Option<DropCause> {
    Some(match cause {
        Cause::Netfilter => DropCause::Firewall,
        Cause::ForwardingDisabled => DropCause::ForwardingDisabled,
        Cause::NoRoute => DropCause::NoRoute,
        Cause::ReversePathFilter => DropCause::ReversePathFilter,
        Cause::HairpinPortOff => DropCause::HairpinPortOff,
        Cause::HairpinNotMasqueraded => DropCause::HairpinNotMasqueraded,
        Cause::AnswerNotTranslated => DropCause::AnswerNotTranslated,
        Cause::AcceptQueueFull => DropCause::AcceptQueueFull,
        Cause::TooBig => DropCause::TooBig,
        Cause::TrafficControl => DropCause::TrafficControl,
        Cause::NeighbourFailed => DropCause::NeighbourFailed,
        Cause::NoSocket | Cause::Unknown(_) => return None,
    })
}
