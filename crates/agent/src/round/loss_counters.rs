//! Counters of the kernel that rise with losses: what may have dropped the packets.
//!
//! A counter counts the packets of everybody in a network, so one that rises proves nothing by itself. It is read before and
//! after each round, and reported beside a path only if it can drop that path's packets, rose in most rounds that lost
//! some and in at most half of the others, by no less than was lost, and twice as fast as in others: rounds that lose
//! packets wait for them and last longer. Nothing is read while no path has lost anything lately.

mod coincidence;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use svcdiag_api::{LossCounterName, LossyPath, TunnelKind};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::{links, netfilter::conntrack::Statistics, procfs};
use svcdiag_objects::ServicePort;

pub(super) use self::coincidence::Coincidence;
use super::{LocalPod, Round, accept_queues, losses::Key};
use crate::{
    blocking::{Pool, blocking},
    settings::counter,
};

/// The port of DNS.
const DNS: i32 = 53;

/// Pods whose counters are read: the clients, and most endpoints that a node has of one Service.
const MAX_PODS: usize = 64;

/// A counter: of a Pod's network, or of the node's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counter {
    pub pod: Option<String>,
    pub name: LossCounterName,
}

impl Counter {
    fn of_node(name: LossCounterName) -> Self {
        Self { pod: None, name }
    }
}

/// By how much each counter rose in a round. Those that could not be read are absent.
pub(super) type Rises = BTreeMap<Counter, u32>;

/// What rose in a round, for how long it was read, and what it can concern.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub rises: Rises,
    pub length: Duration,
    pub scope: Scope,
}

/// The counters at one moment.
#[derive(Debug)]
pub(super) struct Reading {
    at: Instant,
    conntrack: Option<Statistics>,
    others: BTreeMap<Counter, u64>,
}

impl Reading {
    /// What rose until a later moment.
    fn until(&self, later: &Self) -> Rises {
        use LossCounterName::{ConntrackEarlyDrop, ConntrackInsertFailed, ConntrackTableFull};
        let mut rises: Rises = later
            .others
            .iter()
            .filter_map(|(counter, after)| {
                let rose = after.saturating_sub(*self.others.get(counter)?);
                Some((counter.clone(), u32::try_from(rose).unwrap_or(u32::MAX)))
            })
            .collect();
        if let Some((before, after)) = self.conntrack.zip(later.conntrack) {
            let dropped = before.until(&after);
            rises.extend([
                (Counter::of_node(ConntrackInsertFailed), dropped.clashes),
                (Counter::of_node(ConntrackTableFull), dropped.table_full),
                (Counter::of_node(ConntrackEarlyDrop), dropped.evicted),
            ]);
        }
        rises
    }
}

impl Round<'_> {
    /// The counters of the node and of its Pods.
    pub(super) async fn loss_counters(&self) -> Reading {
        let conntrack = self.conntrack.as_ref();
        let node = self
            .node
            .netns
            .visit(|| Ok(udp(|file, each| procfs::lines_here(file, each))));
        let pods = self.clients.iter().chain(&self.endpoints).filter(has_network);
        let pods: BTreeMap<&str, i32> = pods
            .filter_map(|pod| Some((pod.key.as_str(), *pod.pids.first()?)))
            .take(MAX_PODS)
            .collect();
        let of_pods = pods.into_iter().map(async |(key, pid)| {
            let read = blocking(Pool::Pod, move || of_pod(pid)).await.unwrap_or_default();
            read.into_iter().map(move |(name, value)| {
                let pod = Some(key.to_owned());
                (Counter { pod, name }, value)
            })
        });
        let mut others: BTreeMap<Counter, u64> = join_all(of_pods).await.into_iter().flatten().collect();
        let of_node = node.await.unwrap_or_default();
        others.extend(
            of_node
                .into_iter()
                .map(|(name, value)| (Counter::of_node(name), value)),
        );
        Reading {
            at: Instant::now(),
            conntrack: conntrack.and_then(|conntrack| conntrack.statistics().ok()),
            others,
        }
    }

    /// What rose since the beginning of the round.
    pub(super) async fn rises_since(&self, before: Option<Reading>) -> Window {
        let Some(before) = before else {
            return Window::default();
        };
        let after = self.loss_counters().await;
        Window {
            rises: before.until(&after),
            length: after.at.saturating_duration_since(before.at),
            scope: self.scope().await,
        }
    }

    /// The same in every round that reads counters: also those in which a counter stays have to count.
    async fn scope(&self) -> Scope {
        let tunnels = self.node.netns.visit(links::tunnels).await.unwrap_or_default();
        let own = self.own_addresses().await;
        // In ipvs mode the addresses of all Services are the node's own.
        let of_cluster = &self.subject.dns.addresses;
        let servers = self.tries.dns_servers();
        Scope {
            endpoints: self.endpoints.iter().map(|pod| pod.key.clone()).collect(),
            serves_dns: self.serves_dns(),
            asks_node: servers
                .iter()
                .any(|server| own.contains(&server.ip()) && !of_cluster.contains(server)),
            tunnels_over_udp: tunnels.iter().any(|tunnel| is_over_udp(tunnel.kind)),
        }
    }

    /// Whether the Service is cluster DNS, and not any other on port 53.
    fn serves_dns(&self) -> bool {
        let service = &self.subject.service.spec;
        let dns = &self.subject.dns;
        let is_asked = |ip: &String| {
            let ip: Option<IpAddr> = ip.parse().ok();
            dns.addresses.iter().any(|address| Some(address.ip()) == ip)
        };
        let has_endpoint = || {
            let endpoints = super::ready(self, &self.subject);
            endpoints
                .iter()
                .any(|ready| dns.endpoints.contains(&ready.address))
        };
        service.ports.iter().any(is_of_dns) && (service.cluster_ips.iter().any(is_asked) || has_endpoint())
    }
}

fn is_of_dns(port: &ServicePort) -> bool {
    let protocol = port.port_protocol().map(|port| port.protocol);
    port.port == DNS && protocol == Some(Protocol::Udp)
}

fn has_network(pod: &&LocalPod<'_>) -> bool {
    !pod.pod.host_network && pod.pod.runtime_class.is_none()
}

fn is_over_udp(kind: TunnelKind) -> bool {
    matches!(
        kind,
        TunnelKind::Vxlan | TunnelKind::Geneve | TunnelKind::WireGuard
    )
}

fn of_pod(pid: i32) -> Vec<(LossCounterName, u64)> {
    let mut found = udp(|file, each| procfs::lines(pid, file, each));
    let overflows = accept_queues::overflows(pid);
    found.extend(overflows.map(|overflows| (LossCounterName::ListenOverflows, overflows)));
    found
}

/// The counters of UDP over both families; nothing of what cannot be read.
fn udp(
    lines: impl Fn(&'static str, &mut dyn FnMut(&str)) -> std::io::Result<()>,
) -> Vec<(LossCounterName, u64)> {
    let (mut v4, mut v6) = (String::new(), String::new());
    let keep = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let of_udp = |line: &str| line.starts_with("Udp:") || line.starts_with("Udp6");
    let read = lines("net/snmp", &mut |line| {
        if of_udp(line) {
            keep(&mut v4, line);
        }
    });
    if read.is_err() {
        return Vec::new();
    }
    // A node without IPv6 has no such file.
    let _ = lines("net/snmp6", &mut |line| {
        if of_udp(line) {
            keep(&mut v6, line);
        }
    });
    [
        (LossCounterName::UDPChecksumErrors, "InCsumErrors"),
        (LossCounterName::UDPReceiveBufferErrors, "RcvbufErrors"),
    ]
    .into_iter()
    .filter_map(|(name, word)| {
        let of_v4 = counter(&v4, "Udp:", word)?;
        Some((name, of_v4.saturating_add(of_ipv6(&v6, word).unwrap_or_default())))
    })
    .collect()
}

/// A counter of /proc/net/snmp6, which has a name and a number in each line.
fn of_ipv6(text: &str, word: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6")?.strip_prefix(word));
    lines.find_map(|value| value.trim().parse().ok())
}

/// What the packets of a path pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Pods on the node that are endpoints.
    pub endpoints: BTreeSet<String>,
    /// Whether these answer the questions: the Service is cluster DNS.
    pub serves_dns: bool,
    /// Whether a DNS server was asked that listens on the node itself, as NodeLocal DNSCache does.
    pub asks_node: bool,
    /// Whether the node sends Pods' packets to other nodes over UDP.
    pub tunnels_over_udp: bool,
}

impl Scope {
    /// Whether packets of a path can be among those that a counter counts.
    pub(super) fn concerns(&self, counter: &Counter, (from, path): &Key) -> bool {
        use LossCounterName as N;
        let is_dns = *path == LossyPath::DNS;
        let is_of_endpoint = counter
            .pod
            .as_ref()
            .is_some_and(|pod| self.endpoints.contains(pod));
        match counter.name {
            N::ConntrackTableFull | N::ConntrackEarlyDrop => true,
            // Connections of a Pod to a Pod are neither masqueraded nor sent to another address: they cannot collide.
            N::ConntrackInsertFailed => match path {
                LossyPath::SameNode => false,
                LossyPath::OtherNode => from.is_none(),
                LossyPath::Service | LossyPath::DNS => true,
            },
            N::UDPChecksumErrors if is_dns && counter.pod == *from => true,
            N::UDPChecksumErrors if counter.pod.is_none() => match path {
                LossyPath::DNS => self.asks_node || self.tunnels_over_udp,
                LossyPath::OtherNode | LossyPath::Service => self.tunnels_over_udp,
                LossyPath::SameNode => false,
            },
            N::UDPReceiveBufferErrors if counter.pod.is_none() => is_dns && self.asks_node,
            N::UDPChecksumErrors | N::UDPReceiveBufferErrors => is_dns && self.serves_dns && is_of_endpoint,
            N::ListenOverflows => is_of_endpoint && matches!(path, LossyPath::SameNode | LossyPath::Service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASHES: LossCounterName = LossCounterName::ConntrackInsertFailed;
    const FULL: LossCounterName = LossCounterName::ConntrackTableFull;

    fn of(pod: Option<&str>, name: LossCounterName) -> Counter {
        Counter {
            pod: pod.map(str::to_owned),
            name,
        }
    }

    #[test]
    fn only_counters_on_the_way_concern_a_path() {
        use LossCounterName::{ListenOverflows, UDPChecksumErrors, UDPReceiveBufferErrors};
        let scope = Scope {
            endpoints: ["a/web".to_owned()].into(),
            ..Scope::default()
        };
        let key = |path| (Some("a/client".to_owned()), path);
        let is = |scope: &Scope, pod, name, path| scope.concerns(&of(pod, name), &key(path));
        assert!(is(&scope, None, FULL, LossyPath::SameNode));
        assert!(is(&scope, None, CLASHES, LossyPath::Service));
        assert!(is(&scope, None, CLASHES, LossyPath::DNS));
        assert!(scope.concerns(&of(None, CLASHES), &(None, LossyPath::OtherNode)));
        assert!(is(&scope, Some("a/client"), UDPChecksumErrors, LossyPath::DNS));
        for (pod, name, path) in [
            (None, CLASHES, LossyPath::SameNode),
            (None, CLASHES, LossyPath::OtherNode),
            (Some("a/client"), UDPChecksumErrors, LossyPath::Service),
            (Some("a/other"), UDPChecksumErrors, LossyPath::DNS),
            (Some("a/web"), UDPChecksumErrors, LossyPath::DNS),
            (None, UDPChecksumErrors, LossyPath::DNS),
            (None, UDPChecksumErrors, LossyPath::OtherNode),
            (None, UDPReceiveBufferErrors, LossyPath::DNS),
            (Some("a/client"), UDPReceiveBufferErrors, LossyPath::DNS),
            (Some("a/web"), ListenOverflows, LossyPath::OtherNode),
            (Some("a/web"), ListenOverflows, LossyPath::DNS),
            (Some("a/client"), ListenOverflows, LossyPath::Service),
        ] {
            assert!(!is(&scope, pod, name, path), "{pod:?} {name} {path}");
        }
        assert!(is(&scope, Some("a/web"), ListenOverflows, LossyPath::SameNode));
        let tunnel = Scope {
            tunnels_over_udp: true,
            ..scope.clone()
        };
        assert!(is(&tunnel, None, UDPChecksumErrors, LossyPath::OtherNode));
        assert!(!is(&tunnel, None, UDPChecksumErrors, LossyPath::SameNode));
        let cache = Scope {
            asks_node: true,
            ..scope.clone()
        };
        assert!(is(&cache, None, UDPReceiveBufferErrors, LossyPath::DNS));
        let dns = Scope {
            serves_dns: true,
            ..scope
        };
        assert!(is(&dns, Some("a/web"), UDPReceiveBufferErrors, LossyPath::DNS));
    }

    #[test]
    fn counters_of_udp_are_those_of_both_families() {
        let files = |file: &'static str, each: &mut dyn FnMut(&str)| {
            let text = match file {
                "net/snmp" => {
                    "Tcp: RtoAlgorithm InCsumErrors\nTcp: 1 9\n\
                     Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
                     Udp: 27 0 0 28 3 0 4 0 0\n\
                     UdpLite: InDatagrams RcvbufErrors InCsumErrors\nUdpLite: 1 50 60\n"
                }
                _ => {
                    "Udp6RcvbufErrors                \t10\nUdp6InCsumErrors                \t20\nUdpLite6InCsumErrors\t7\n"
                }
            };
            text.lines().for_each(each);
            Ok(())
        };
        let expected = [
            (LossCounterName::UDPChecksumErrors, 24),
            (LossCounterName::UDPReceiveBufferErrors, 13),
        ];
        assert_eq!(udp(files), expected);
    }

    #[test]
    fn a_counter_that_was_not_read_twice_did_not_rise() {
        let of_web = of(Some("a/web"), LossCounterName::ListenOverflows);
        let with = |others| Reading {
            at: Instant::now(),
            conntrack: None,
            others,
        };
        let reading = |value| with([(of_web.clone(), value)].into());
        let rises: Vec<u32> = reading(3).until(&reading(7)).into_values().collect();
        assert_eq!(rises, [4]);
        // The Pod's network is another one.
        let rises: Vec<u32> = reading(7).until(&reading(1)).into_values().collect();
        assert_eq!(rises, [0]);
        assert!(with(BTreeMap::new()).until(&reading(7)).is_empty());
    }
}
