//! Whether the connections of dials were lost because an application does not accept them.
//!
//! A SYN that finds no room in the accept queue is freed by the kernel like one that was used: nobody sees a drop. Only
//! a counter of the Pod's network rises, for all its ports together; so the queue of the port has to hold something, before
//! and after.

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

/// What a Pod's network says of an accept queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    /// Connections that wait to be accepted on the port.
    waiting: u32,
    /// Connections that were lost because a queue of the Pod had no room.
    overflows: u64,
}

impl Queue {
    /// Nothing where a file cannot be read: it explains nothing then.
    fn read(pid: i32, port: u16) -> Option<Self> {
        Some(Self {
            waiting: sockets::accept_queue(pid, port).ok()?,
            overflows: overflows(pid)?,
        })
    }

    /// How many connections of the port were lost until a later moment: at both, some have to wait.
    fn lost_until(self, later: Self) -> u64 {
        let has_waited = self.waiting > 0 && later.waiting > 0;
        let lost = later.overflows.saturating_sub(self.overflows);
        if has_waited { lost } else { 0 }
    }
}

/// Queues of endpoints on the node that hold something, and the processes by which their Pods' networks are found.
pub(super) type Queues = BTreeMap<SocketAddr, (i32, Queue)>;

impl Round<'_> {
    /// The queues in use before dials are repeated.
    pub(super) async fn full_queues(&self, dials: &[Repeated<'_>]) -> Queues {
        let dialled = dials.iter().filter(|dial| dial.protocol == Protocol::Tcp);
        let endpoints: BTreeSet<SocketAddr> = dialled.flat_map(|dial| &dial.endpoints).copied().collect();
        let here = endpoints
            .into_iter()
            .filter_map(|endpoint| Some((endpoint, self.process_behind(endpoint)?)));
        let mut queues = read(here.take(MAX_ENDPOINTS)).await;
        queues.retain(|_, (_, queue)| queue.waiting > 0);
        queues
    }

    /// Notes for whose dials a queue was full.
    pub(super) async fn note_overflows(&self, dials: &[Repeated<'_>], before: Queues) {
        let processes = before.iter().map(|(endpoint, (pid, _))| (*endpoint, *pid));
        let after = read(processes).await;
        for (endpoint, (_, queue)) in before {
            let later = after.get(&endpoint).map(|(_, later)| *later);
            let lost = later.map_or(0, |later| queue.lost_until(later));
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
                };
                self.seen.note(drop, lost);
            }
        }
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

/// Reads queues at the same time: a Pod can make each take long.
async fn read(processes: impl Iterator<Item = (SocketAddr, i32)>) -> Queues {
    let queues = join_all(processes.map(async |(endpoint, pid)| {
        let queue = blocking(Pool::Pod, move || Queue::read(pid, endpoint.port())).await;
        Some((endpoint, (pid, queue.ok()??)))
    }));
    queues.await.into_iter().flatten().collect()
}

fn overflows(pid: i32) -> Option<u64> {
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
    fn connections_are_lost_by_a_queue_that_holds_some_all_the_time() {
        let queue = |waiting, overflows| Queue { waiting, overflows };
        assert_eq!(queue(1, 7).lost_until(queue(1, 9)), 2);
        assert_eq!(queue(1, 7).lost_until(queue(1, 7)), 0);
        // The counter is of all ports: another queue has overflowed.
        assert_eq!(queue(0, 7).lost_until(queue(1, 9)), 0);
        assert_eq!(queue(1, 7).lost_until(queue(0, 9)), 0);
        // Another process has come meanwhile.
        assert_eq!(queue(1, 7).lost_until(queue(1, 2)), 0);
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
