//! Whether the connections of dials were lost because an application does not accept them.
//!
//! A SYN that finds no room in the accept queue is freed by the kernel like one that was used: nobody sees a drop. Only
//! a counter of the Pod's network rises, for all its ports together; so the queue of the port has to hold something, too.

use std::{collections::BTreeMap, net::SocketAddr};

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

/// The counters of endpoints on the node, and the processes by which their Pods' networks are found.
pub(super) type Overflows = BTreeMap<SocketAddr, (i32, u64)>;

impl Round<'_> {
    /// The counters before dials are repeated. What cannot be read is left out: it explains nothing then.
    pub(super) async fn overflows(&self, dials: &[Repeated<'_>]) -> Overflows {
        let dialled = dials.iter().filter(|dial| dial.protocol == Protocol::Tcp);
        let mut found = Overflows::new();
        for endpoint in dialled.flat_map(|dial| &dial.endpoints).copied() {
            if found.len() == MAX_ENDPOINTS || found.contains_key(&endpoint) {
                continue;
            }
            let Some(pid) = self.process_behind(endpoint) else {
                continue;
            };
            if let Ok(Some(count)) = blocking(Pool::Pod, move || overflows(pid)).await {
                found.insert(endpoint, (pid, count));
            }
        }
        found
    }

    /// Notes for whose dials the queue was full.
    pub(super) async fn note_overflows(&self, dials: &[Repeated<'_>], before: Overflows) {
        for (endpoint, (pid, before)) in before {
            let after = blocking(Pool::Pod, move || {
                let waiting = sockets::accept_queue(pid, endpoint.port()).ok()?;
                (waiting > 0).then(|| overflows(pid)).flatten()
            });
            let Ok(Some(after)) = after.await else { continue };
            let Some(lost @ 1..) = after.checked_sub(before) else {
                continue;
            };
            let its = dials.iter().filter(|dial| dial.endpoints.contains(&endpoint));
            for dial in its {
                let drop = PacketDrop {
                    from: dial.from.map(|pod| pod.key.clone()),
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
