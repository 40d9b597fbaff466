//! Whether the connections of dials were lost because an application does not accept them.
//!
//! A SYN that finds no room in the accept queue is freed by the kernel like one that was used: nobody sees a drop. Only
//! a counter of the Pod's network rises, for all its ports together; so the queue of the port has to hold something, before
//! and after, and those of all other ports nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use futures::future::join_all;
use svcdiag_api::{DropCause, DropPlace, PacketDrop};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::sockets;

use super::{Round, watch::Repeated};
use crate::{
    blocking::{Pool, blocking},
    settings::counter,
};

/// The counter of /proc/PID/net/netstat.
const LISTEN_OVERFLOWS: &str = "ListenOverflows";

/// Endpoints of one watch whose Pods are asked.
const MAX_ENDPOINTS: usize = 64;

/// What a Pod's network says of its accept queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queues {
    /// Connections that wait to be accepted, by port.
    waiting: BTreeMap<u16, u32>,
    /// Connections that were lost because a queue of the Pod had no room.
    overflows: u64,
}

impl Queues {
    /// Nothing where a file cannot be read: it explains nothing then.
    fn read(pid: i32) -> Option<Self> {
        Some(Self {
            waiting: sockets::accept_queues(pid).ok()?,
            overflows: overflows(pid)?,
        })
    }

    /// How many connections of a port were lost until a later moment: at both, some wait there and nowhere else.
    fn lost_until(&self, later: &Self, port: u16) -> u64 {
        let is_full = |queues: &Self| queues.waiting.keys().eq([&port]);
        let lost = later.overflows.saturating_sub(self.overflows);
        if is_full(self) && is_full(later) { lost } else { 0 }
    }
}

/// The queues of Pods on the node, by a process in their network.
pub(super) type ByProcess = BTreeMap<i32, Queues>;

impl Round<'_> {
    /// The queues before dials are repeated.
    pub(super) async fn accept_queues(&self, dials: &[Repeated<'_>]) -> ByProcess {
        let processes = self.processes_behind(dials).into_values();
        read(processes.collect()).await
    }

    /// Notes for whose dials a queue was full.
    pub(super) async fn note_overflows(&self, dials: &[Repeated<'_>], before: ByProcess) {
        let is_in_use = |queues: &Queues| !queues.waiting.is_empty();
        let processes = before.iter().filter(|(_, queues)| is_in_use(queues));
        let after = read(processes.map(|(pid, _)| *pid).collect()).await;
        for (endpoint, pid) in self.processes_behind(dials) {
            let Some((before, after)) = before.get(&pid).zip(after.get(&pid)) else {
                continue;
            };
            let lost = before.lost_until(after, endpoint.port());
            if lost == 0 {
                continue;
            }
            for dial in dials.iter().filter(|dial| waits_in_queue(dial, endpoint)) {
                let drop = PacketDrop {
                    from: dial.from.map(|pod| pod.key.clone()),
                    protocol: dial.protocol,
                    target: dial.target.to_string(),
                    endpoint: Some(endpoint.to_string()),
                    answers: false,
                    cause: DropCause::AcceptQueueFull,
                    place: DropPlace::Endpoint,
                    interface: None,
                    reason: LISTEN_OVERFLOWS.to_owned(),
                    function: None,
                    packets: 0,
                    carrier: None,
                    droppers: Vec::new(),
                };
                self.seen.note(drop, lost, Vec::new());
            }
        }
    }

    /// The endpoints on the node that are dialled over TCP, and a process of the Pod behind each.
    fn processes_behind(&self, dials: &[Repeated<'_>]) -> BTreeMap<SocketAddr, i32> {
        let dialled = dials.iter().filter(|dial| dial.protocol == Protocol::Tcp);
        let endpoints: BTreeSet<SocketAddr> = dialled.flat_map(|dial| &dial.endpoints).copied().collect();
        let here = endpoints
            .into_iter()
            .filter_map(|endpoint| Some((endpoint, self.process_behind(endpoint)?)));
        here.take(MAX_ENDPOINTS).collect()
    }

    /// A process of the Pod behind an endpoint on the node, if the Pod has a network of its own.
    fn process_behind(&self, endpoint: SocketAddr) -> Option<i32> {
        let ip = endpoint.ip().to_string();
        let has_network = |pod: &&super::LocalPod<'_>| {
            !pod.pod.host_network && pod.pod.runtime_class.is_none() && pod.pod.ips.contains(&ip)
        };
        self.endpoints.iter().find(has_network)?.pids.first().copied()
    }
}

/// Datagrams wait in no such queue.
fn waits_in_queue(dial: &Repeated<'_>, endpoint: SocketAddr) -> bool {
    dial.protocol == Protocol::Tcp && dial.endpoints.contains(&endpoint)
}

/// Reads the queues of each network once, all at the same time: a Pod can make each take long.
async fn read(processes: BTreeSet<i32>) -> ByProcess {
    let queues = join_all(processes.into_iter().map(async |pid| {
        let queues = blocking(Pool::Pod, move || Queues::read(pid)).await;
        Some((pid, queues.ok()??))
    }));
    queues.await.into_iter().flatten().collect()
}

/// How many connections a Pod's network has lost because a queue had no room; nothing if that cannot be read.
pub(super) fn overflows(pid: i32) -> Option<u64> {
    let mut lines = String::new();
    let read = svcdiag_netns::procfs::lines(pid, "net/netstat", |line| {
        if line.starts_with("TcpExt:") {
            lines.push_str(line);
            lines.push('\n');
        }
    });
    read.ok()?;
    counter(&lines, "TcpExt:", LISTEN_OVERFLOWS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use svcdiag_netns::Netns;

    use super::*;

    #[test]
    fn connections_are_lost_by_a_queue_that_alone_holds_some_all_the_time() {
        let queues = |waiting: &[u16], overflows| Queues {
            waiting: waiting.iter().map(|port| (*port, 1)).collect(),
            overflows,
        };
        let lost = |before: &Queues, after: &Queues| before.lost_until(after, 80);
        assert_eq!(lost(&queues(&[80], 7), &queues(&[80], 9)), 2);
        assert_eq!(lost(&queues(&[80], 7), &queues(&[80], 7)), 0);
        // The counter is of all ports: another queue may have overflowed.
        assert_eq!(lost(&queues(&[], 7), &queues(&[80], 9)), 0);
        assert_eq!(lost(&queues(&[80], 7), &queues(&[], 9)), 0);
        assert_eq!(lost(&queues(&[80], 7), &queues(&[80, 9090], 9)), 0);
        assert_eq!(lost(&queues(&[80, 9090], 7), &queues(&[80], 9)), 0);
        // Another process has come meanwhile.
        assert_eq!(lost(&queues(&[80], 7), &queues(&[80], 2)), 0);
    }

    #[test]
    fn dials_over_udp_wait_in_no_queue() {
        let endpoint = SocketAddr::from(([10, 244, 1, 5], 53));
        let netns = Netns::current().unwrap();
        let waits = |protocol| {
            let dial = Repeated {
                from: None,
                netns: &netns,
                protocol,
                target: endpoint,
                endpoints: vec![endpoint],
            };
            waits_in_queue(&dial, endpoint)
        };
        assert!(waits(Protocol::Tcp) && !waits(Protocol::Udp));
    }
}
