//! Which packets are watched for which dial, and what it means for that dial when they are dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use futures::future::{join_all, join3};
use svcdiag_api::{Carrier, DropCause};
use svcdiag_drops::{Drop, Filter, Leg, Tuple, explain};
use svcdiag_kube_proxy::Protocol;
use svcdiag_netns::tunnel_ends::{self, TunnelEnds};

use super::Repeated;
use crate::{dial::source_towards, round::Round};

/// Dials of one watch, and endpoints of one dial; of more the first are watched.
const MAX_DIALS: usize = 64;
const MAX_ENDPOINTS: usize = 16;

/// Packets to watch, and the dial and the endpoint that they are for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    /// Its number.
    pub(super) dial: usize,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) sender: Sender,
}

/// Whose the client's address in packets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The client's, whose sockets are known.
    Socket,
    /// That of a client on another node: its sockets are not known, but nobody else sends from there.
    OtherNode,
    /// The node's, from which others send as well.
    Shared,
    /// A tunnel between two nodes, which carries the dial with whatever else goes from the one to the other.
    Tunnel,
}

impl Wanted {
    /// Between which nodes a tunnel carried the packets of a dial, where a drop is of that tunnel.
    pub(super) fn carrier(&self, drop: &Drop) -> Option<Carrier> {
        (self.sender == Sender::Tunnel).then(|| Carrier {
            from: drop.tuple.source.ip().to_string(),
            to: drop.tuple.destination.ip().to_string(),
            port: drop.tuple.destination.port(),
        })
    }

    /// Why a drop of these packets, if it is one, has lost a dial of an address. The same packets may mean something else
    /// for another dial.
    pub(super) fn cause(
        &self,
        drop: &Drop,
        dialled: SocketAddr,
        sources: &BTreeSet<SocketAddr>,
    ) -> Option<DropCause> {
        let Self { filter, sender, .. } = self;
        let client = match filter.leg {
            Leg::Answer => drop.tuple.destination,
            _ => drop.tuple.source,
        };
        let is_others = *sender == Sender::Socket && !sources.contains(&client);
        if !covers(filter.tuple, drop.tuple) || is_others {
            return None;
        }
        let drop = Drop {
            leg: filter.leg,
            ..drop.clone()
        };
        let cause = explain(&drop, dialled)?;
        // These may be due to what another process of the node sends; the rest is so for all who send there.
        let is_of_sender = matches!(
            cause,
            DropCause::Firewall | DropCause::TrafficControl | DropCause::AnswerNotTranslated
        );
        (*sender != Sender::Shared || !is_of_sender).then_some(cause)
    }
}

/// The filters of a watch: dials of several ports may go to the same endpoint.
pub(super) fn distinct(wanted: &[Wanted]) -> Vec<Filter> {
    let mut known = BTreeSet::new();
    let filters = wanted.iter().map(|of| of.filter);
    filters.filter(|filter| known.insert(filter.tuple)).collect()
}

/// Whether a packet is one of those that a filter is for.
fn covers(filter: Tuple, packet: Tuple) -> bool {
    let is_side = |wanted: SocketAddr, found: SocketAddr| {
        wanted.ip() == found.ip() && (wanted.port() == 0 || wanted.port() == found.port())
    };
    filter.protocol == packet.protocol
        && is_side(filter.source, packet.source)
        && is_side(filter.destination, packet.destination)
}

impl Round<'_> {
    /// The packets of dials, before and after translation. Where they come from is asked for all at the same time: a Pod
    /// can make each answer take long.
    pub(super) async fn wanted(&self, dials: &[Repeated<'_>]) -> Vec<Wanted> {
        let dials = dials.get(..MAX_DIALS).unwrap_or(dials);
        let clients = dials.iter().map(|dial| source_towards(dial.netns, dial.target));
        let endpoints = dials.iter().flat_map(|dial| {
            let watched = dial.endpoints.iter().take(MAX_ENDPOINTS).copied();
            watched.filter(|endpoint| is_masqueraded(dial, *endpoint))
        });
        let endpoints: BTreeSet<SocketAddr> = endpoints.collect();
        let of_node = endpoints.into_iter().map(async |endpoint| {
            let node = source_towards(&self.node.netns, endpoint).await;
            Some((endpoint, node.ok()?))
        });
        let tunnels = self.tunnels_of(dials);
        let (clients, of_node, tunnels) = join3(join_all(clients), join_all(of_node), tunnels).await;
        let of_node: BTreeMap<SocketAddr, IpAddr> = of_node.into_iter().flatten().collect();
        let known = dials.iter().zip(clients).enumerate();
        let known = known.filter_map(|(number, (dial, client))| Some((number, dial, client.ok()?)));
        let mut wanted: Vec<Wanted> = known
            .flat_map(|(number, dial, client)| packets(number, dial, client, &of_node))
            .collect();
        // Of too many filters these are the first to go: the others are of the dials' own packets.
        wanted.extend(tunnels);
        wanted
    }

    /// The packets of the tunnels that take dials to other nodes.
    async fn tunnels_of(&self, dials: &[Repeated<'_>]) -> Vec<Wanted> {
        let endpoints = |dial: &Repeated<'_>| -> Vec<SocketAddr> {
            dial.endpoints.iter().take(MAX_ENDPOINTS).copied().collect()
        };
        let ips: BTreeSet<IpAddr> = dials
            .iter()
            .flat_map(endpoints)
            .map(|endpoint| endpoint.ip())
            .collect();
        let known = self.node.netns.visit(move || tunnel_ends::towards(&ips)).await;
        let problem = |error: &std::io::Error| {
            self.problem(format!("The node's tunnels could not be looked up: {error}."));
        };
        let known = known.inspect_err(problem).unwrap_or_default();
        // Many endpoints are on few nodes.
        let nodes: BTreeSet<TunnelEnds> = known.values().copied().collect();
        let of_nodes = nodes.into_iter().map(async |ends| {
            let to = SocketAddr::new(ends.to, ends.port);
            let from = match ends.from {
                Some(from) => from,
                None => source_towards(&self.node.netns, to).await.ok()?,
            };
            Some((ends, (from, to)))
        });
        let of_nodes: BTreeMap<TunnelEnds, (IpAddr, SocketAddr)> =
            join_all(of_nodes).await.into_iter().flatten().collect();
        let mut wanted = Vec::new();
        for (number, dial) in dials.iter().enumerate() {
            for endpoint in endpoints(dial) {
                let ends = known.get(&endpoint.ip()).and_then(|ends| of_nodes.get(ends));
                wanted.extend(ends.map(|(from, to)| carrying(number, Leg::FromNode, *from, *to, endpoint)));
            }
        }
        wanted
    }
}

/// Whether packets to an endpoint may have the node's address. Others send from it as well, so that is looked at only where
/// it is a Pod's way back to itself, which is always masqueraded, or the node's own dial.
fn is_masqueraded(dial: &Repeated<'_>, endpoint: SocketAddr) -> bool {
    let ip = endpoint.ip().to_string();
    dial.from.is_none_or(|pod| pod.pod.ips.contains(&ip))
}

/// The packets of a dial of a client with an address; the node has others towards some endpoints.
fn packets(
    number: usize,
    dial: &Repeated<'_>,
    client: IpAddr,
    of_node: &BTreeMap<SocketAddr, IpAddr>,
) -> Vec<Wanted> {
    let add = |leg, source: SocketAddr, destination: SocketAddr, endpoint, sender| Wanted {
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
        sender,
    };
    let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
    let mut wanted = Vec::new();
    if !dial.endpoints.contains(&dial.target) {
        wanted.push(add(
            Leg::ToService,
            any_port(client),
            dial.target,
            None,
            Sender::Socket,
        ));
    }
    for endpoint in dial.endpoints.iter().take(MAX_ENDPOINTS).copied() {
        let some = Some(endpoint);
        wanted.push(add(
            Leg::ToEndpoint,
            any_port(client),
            endpoint,
            some,
            Sender::Socket,
        ));
        wanted.push(add(Leg::Answer, endpoint, any_port(client), some, Sender::Socket));
        let node = of_node.get(&endpoint).filter(|node| **node != client);
        if let Some(node) = node.filter(|_| is_masqueraded(dial, endpoint)) {
            wanted.push(add(
                Leg::FromNode,
                any_port(*node),
                endpoint,
                some,
                Sender::Shared,
            ));
            wanted.push(add(Leg::Answer, endpoint, any_port(*node), some, Sender::Shared));
        }
    }
    wanted
}

/// The packets of a client on another node to an endpoint, and the answers.
pub(super) fn from_elsewhere(
    number: usize,
    protocol: Protocol,
    client: IpAddr,
    endpoint: SocketAddr,
) -> [Wanted; 2] {
    let client = SocketAddr::new(client, 0);
    [
        (Leg::ToEndpoint, client, endpoint),
        (Leg::Answer, endpoint, client),
    ]
    .map(|(leg, source, destination)| Wanted {
        filter: Filter {
            leg,
            tuple: Tuple {
                protocol,
                source,
                destination,
            },
        },
        dial: number,
        endpoint: Some(endpoint),
        sender: Sender::OtherNode,
    })
}

/// The packets of a dial where the client's node gives them an address of its own.
pub(super) fn masqueraded(
    number: usize,
    protocol: Protocol,
    nodes: impl Iterator<Item = IpAddr>,
    endpoint: SocketAddr,
) -> impl Iterator<Item = Wanted> {
    let of_family = nodes.filter(move |node| node.is_ipv4() == endpoint.is_ipv4());
    of_family.map(move |node| Wanted {
        filter: Filter {
            leg: Leg::FromNode,
            tuple: Tuple {
                protocol,
                source: SocketAddr::new(node, 0),
                destination: endpoint,
            },
        },
        dial: number,
        endpoint: Some(endpoint),
        sender: Sender::Shared,
    })
}

/// The packets of a tunnel between two nodes that may carry a dial, or its answers.
pub(super) fn carrying(
    number: usize,
    leg: Leg,
    from: IpAddr,
    to: SocketAddr,
    endpoint: SocketAddr,
) -> Wanted {
    Wanted {
        filter: Filter {
            leg,
            tuple: Tuple {
                protocol: Protocol::Udp,
                source: SocketAddr::new(from, 0),
                destination: to,
            },
        },
        dial: number,
        endpoint: Some(endpoint),
        sender: Sender::Tunnel,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const CLIENT: &str = "10.244.1.5:0";
    const SOCKET: &str = "10.244.1.5:40000";
    const ENDPOINT: &str = "10.244.2.6:9376";

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple {
            protocol: Protocol::Tcp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn wanted(leg: Leg, tuple: Tuple) -> Wanted {
        Wanted {
            filter: Filter { leg, tuple },
            dial: 0,
            endpoint: None,
            sender: Sender::Socket,
        }
    }

    fn dropped(leg: Leg, tuple: Tuple, reason: &str) -> Drop {
        Drop {
            leg,
            tuple,
            reason: reason.to_owned(),
            location: None,
            interface: None,
            namespace: None,
            count: 1,
        }
    }

    fn cause(of: &Wanted, drop: &Drop, dialled: &str) -> Option<DropCause> {
        of.cause(drop, dialled.parse().unwrap(), &[SOCKET.parse().unwrap()].into())
    }

    /// The address of the Service is also that of an endpoint of another port: one filter counts for both dials.
    #[test]
    fn a_drop_counted_for_one_dial_is_found_for_another_with_the_same_packets() {
        let packets = tuple(CLIENT, ENDPOINT);
        let both = [wanted(Leg::ToService, packets), wanted(Leg::ToEndpoint, packets)];
        assert_eq!(distinct(&both).len(), 1);
        let drop = dropped(Leg::ToService, tuple(SOCKET, ENDPOINT), "NETFILTER_DROP");
        for of in &both {
            assert_eq!(cause(of, &drop, ENDPOINT), Some(DropCause::Firewall));
        }
        let other = dropped(
            Leg::ToService,
            tuple("10.244.1.5:40001", ENDPOINT),
            "NETFILTER_DROP",
        );
        assert_eq!(cause(&both[0], &other, ENDPOINT), None);
    }

    #[test]
    fn a_drop_means_what_its_packets_are_for_the_dial() {
        let packets = tuple(ENDPOINT, CLIENT);
        let drop = dropped(Leg::ToEndpoint, tuple(ENDPOINT, SOCKET), "NO_SOCKET");
        let answer = wanted(Leg::Answer, packets);
        assert_eq!(
            cause(&answer, &drop, "10.96.0.1:80"),
            Some(DropCause::AnswerNotTranslated)
        );
        assert_eq!(
            cause(&wanted(Leg::ToEndpoint, packets), &drop, "10.96.0.1:80"),
            None
        );
    }

    #[test]
    fn packets_from_a_client_elsewhere_are_its_own_by_any_socket() {
        let client: SocketAddr = CLIENT.parse().unwrap();
        let [there, back] = from_elsewhere(0, Protocol::Tcp, client.ip(), ENDPOINT.parse().unwrap());
        let lost = |packet: Tuple, leg| dropped(leg, packet, "NETFILTER_DROP");
        let other = "10.244.1.5:50001";
        for (of, packet) in [(&there, tuple(other, ENDPOINT)), (&back, tuple(ENDPOINT, other))] {
            let drop = lost(packet, of.filter.leg);
            assert_eq!(cause(of, &drop, ENDPOINT), Some(DropCause::Firewall));
        }
        let of_another = lost(tuple("10.244.1.6:50001", ENDPOINT), Leg::ToEndpoint);
        assert_eq!(cause(&there, &of_another, ENDPOINT), None);
    }

    #[test]
    fn packets_of_the_node_may_be_those_of_anybody_on_it() {
        let of_node = |leg, tuple| Wanted {
            sender: Sender::Shared,
            ..wanted(leg, tuple)
        };
        let there = of_node(Leg::FromNode, tuple("10.0.0.1:0", ENDPOINT));
        let reason = |reason: &str| {
            let drop = dropped(Leg::FromNode, tuple("10.0.0.1:33000", ENDPOINT), reason);
            cause(&there, &drop, "10.96.0.1:80")
        };
        assert_eq!(reason("NETFILTER_DROP"), None);
        assert_eq!(reason("IP_INNOROUTES"), Some(DropCause::NoRoute));
        let back = of_node(Leg::Answer, tuple(ENDPOINT, "10.0.0.1:0"));
        let drop = dropped(Leg::Answer, tuple(ENDPOINT, "10.0.0.1:33000"), "NO_SOCKET");
        assert_eq!(cause(&back, &drop, "10.96.0.1:80"), None);
    }
}
