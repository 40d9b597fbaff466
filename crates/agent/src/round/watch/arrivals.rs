//! Packets of clients on other nodes whose dials of this node's endpoints are lost: whether they arrive here, whether answers
//! leave, and who drops them.
//!
//! The controller asks for a watch, has the clients dial again once it goes on, and then has it end (`ended`). So what was
//! not seen was not there. A watch that nobody ends stops by itself, and has seen nothing for certain.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use parking_lot::Mutex;
use svcdiag_api::{
    Arrivals, Arrived, Carrier, NodeFacts, PacketDrop, ProbeArrival, ProbeArrivals, Tunnel, WatchState,
};
use svcdiag_drops::{Drop, Leg, Seen, Sighting, Sightings, Watch};
use svcdiag_netns::links;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    Dialled,
    packets_of::{PacketsOf, count, name, number},
    rules::Before,
    wanted::{Wanted, carrying, distinct, from_elsewhere, masqueraded},
};
use crate::{
    blocking::{Pool, blocking},
    round::Round,
};

/// Such watches at the same time, of all NodeProbes. Every packet of the node passes each of them.
pub(super) const MAX_WATCHES: usize = 4;

/// How long a watch goes on at most: clients dial twice, with the pause between, and the API server is in between.
const LASTS: Duration = Duration::from_secs(60);

/// How long what was seen stands while later watches fail: packets may be lost elsewhere by then.
pub(super) const STANDS: Duration = Duration::from_secs(600);

/// Drops that are reported.
const MAX_DROPS: usize = 16;

/// What is remembered between rounds.
pub(in crate::round) type Known = Mutex<Memory>;

#[derive(Debug, Default)]
pub(in crate::round) struct Memory {
    current: Option<Current>,
    /// What the last watch that ended has seen, and when.
    seen: Option<(Instant, Vec<Arrived>, Vec<PacketDrop>)>,
}

/// The last watch that was asked for and has begun.
#[derive(Debug)]
struct Current {
    token: String,
    id: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Watching(Going),
    Over(WatchState),
}

/// A watch that goes on. Dropping it ends it.
#[derive(Debug)]
struct Going {
    stop: oneshot::Sender<()>,
    end: JoinHandle<Option<Raw>>,
    dials: Vec<Dialled>,
    wanted: Vec<Wanted>,
    tunnels: Vec<Tunnel>,
    rules: Before,
    until: Instant,
}

/// How packets leave the node.
enum Way<'a> {
    Tunnel(&'a Tunnel),
    /// By a link that is no tunnel.
    Direct,
    Unknown,
}

/// What the kernel has counted.
#[derive(Debug)]
struct Raw {
    seen: Seen,
    drops: Vec<Drop>,
}

/// Begins or ends the watch that is asked for, and reports what was seen.
pub(in crate::round) async fn probe(round: &Round<'_>, memory: &Known, facts: &mut NodeFacts) {
    let Some(asked) = &round.spec.arrivals else {
        *memory.lock() = Memory::default();
        (facts.arrivals, facts.arrival_drops) = (None, Vec::new());
        return;
    };
    let known = memory.lock().current.take();
    let current = match known.filter(|known| known.token == asked.token) {
        // One that could not begin is tried again in the next round.
        None => round.begin_arrivals(asked).await,
        Some(Current {
            token,
            id,
            stage: Stage::Watching(going),
        }) if asked.ended == id || going.until <= Instant::now() => {
            let ended = round.end_arrivals(asked, going).await;
            let state = if ended.is_some() {
                WatchState::Ended
            } else {
                WatchState::Failed
            };
            if let Some((seen, drops)) = ended {
                memory.lock().seen = Some((Instant::now(), seen, drops));
            }
            Some(Current {
                token,
                id,
                stage: Stage::Over(state),
            })
        }
        current => current,
    };
    let mut memory = memory.lock();
    memory.current = current;
    let (id, state) = match &memory.current {
        None => (String::new(), WatchState::Failed),
        Some(Current { id, stage, .. }) => match stage {
            Stage::Watching(_) => (id.clone(), WatchState::Watching),
            Stage::Over(state) => (id.clone(), *state),
        },
    };
    memory.seen.take_if(|(at, ..)| at.elapsed() > STANDS);
    let seen = memory.seen.as_ref();
    let (dials, drops) = seen.map_or_else(Default::default, |(_, dials, drops)| {
        (dials.clone(), drops.clone())
    });
    facts.arrivals = Some(Arrivals {
        token: asked.token.clone(),
        id,
        state,
        dials,
    });
    facts.arrival_drops = drops;
}

/// A dial that is asked for, if its addresses are some.
fn parsed(dial: &ProbeArrival) -> Option<(IpAddr, SocketAddr)> {
    let (client, endpoint): (IpAddr, SocketAddr) = (dial.ip.parse().ok()?, dial.endpoint.parse().ok()?);
    (client.is_ipv4() == endpoint.is_ipv4()).then_some((client, endpoint))
}

impl Round<'_> {
    async fn begin_arrivals(&self, asked: &ProbeArrivals) -> Option<Current> {
        let mut dials = Vec::new();
        let mut wanted = Vec::new();
        let tunnels = self.tunnels().await;
        for dial in &asked.dials {
            let (client, endpoint) = parsed(dial)?;
            wanted.extend(from_elsewhere(dials.len(), dial.protocol, client, endpoint));
            for (from, to) in self.carriers(dial, &tunnels) {
                wanted.push(carrying(dials.len(), Leg::FromNode, from, to, endpoint));
                // The answers go to the same port.
                let (own, client) = (to.ip(), SocketAddr::new(from, to.port()));
                wanted.push(carrying(dials.len(), Leg::Answer, own, client, endpoint));
            }
            let nodes = dial.node_ips.iter().filter_map(|ip| ip.parse().ok());
            wanted.extend(masqueraded(dials.len(), dial.protocol, nodes, endpoint));
            dials.push(Dialled {
                from: Some(dial.from.clone()),
                protocol: dial.protocol,
                target: endpoint,
                client: None,
            });
        }
        let watches = &self.node.watches;
        let shared = watches.clone();
        let kernel = self.unless_unwatched(blocking(Pool::Node, move || shared.kernel()).await)?;
        let kernel = self.unless_unwatched(kernel)?;
        let dialled: BTreeSet<IpAddr> = dials.iter().map(|dial| dial.target.ip()).collect();
        let rules = self.rules_before(Vec::new(), &dialled).await;
        let filters = distinct(&wanted);
        let Ok(turn) = watches.arrivals.clone().try_acquire_owned() else {
            self.problem(
                "Dropped packets of clients on other nodes were not watched: too many of such watches go on at the same time."
                    .to_owned(),
            );
            return None;
        };
        let start = move || {
            let watch = Watch::of_opening(&kernel, &filters);
            Ok(watch.and_then(|watch| Ok((watch, Sightings::start(&kernel, &filters)?))))
        };
        let started = self.node.netns.visit(start).await;
        let (watch, sightings) = self.unless_unwatched(self.unless_unwatched(started)?)?;
        let until = Instant::now() + LASTS;
        let (stop, stopped) = oneshot::channel::<()>();
        let netns = self.node.netns.clone();
        let end = tokio::spawn(async move {
            let is_stopped = matches!(timeout(LASTS, stopped).await, Ok(Ok(())));
            let end = move || {
                Ok(Raw {
                    seen: sightings.stop()?,
                    drops: watch.stop()?,
                })
            };
            let raw = netns.visit(end).await;
            drop(turn);
            raw.ok().filter(|_| is_stopped)
        });
        Some(Current {
            token: asked.token.clone(),
            // No other watch of this agent begins at the same time.
            id: format!("{:x}", crate::now().as_nanosecond()),
            stage: Stage::Watching(Going {
                stop,
                end,
                dials,
                wanted,
                tunnels,
                rules,
                until,
            }),
        })
    }

    /// What was seen; None if it ended by itself, or if there was more than it has room for.
    async fn end_arrivals(
        &self,
        asked: &ProbeArrivals,
        going: Going,
    ) -> Option<(Vec<Arrived>, Vec<PacketDrop>)> {
        let Going {
            stop,
            end,
            dials,
            wanted,
            tunnels,
            rules,
            ..
        } = going;
        // It has ended by itself, and says so.
        let _ = stop.send(());
        let Raw { seen, drops } = end.await.ok().flatten().filter(|raw| raw.seen.are_all)?;
        let lost = self.lost(&dials, &wanted, &drops);
        let mut named = self.named(lost, rules).await;
        named.sort_by_key(|(_, packets, _)| std::cmp::Reverse(*packets));
        named.truncate(MAX_DROPS);
        let drops = named.into_iter().map(|(known, packets, droppers)| PacketDrop {
            packets: number(packets),
            droppers,
            ..known
        });
        let drops = drops.collect();
        let mut arrived = Vec::new();
        for dial in &asked.dials {
            arrived.extend(self.arrived(dial, &seen.packets, &tunnels).await);
        }
        Some((arrived, drops))
    }

    /// The node's tunnels. What cannot be listed is not watched.
    async fn tunnels(&self) -> Vec<Tunnel> {
        let listed = self.node.netns.visit(links::tunnels).await;
        let problem = |error: &std::io::Error| {
            self.problem(format!("The node's network links could not be listed: {error}."));
        };
        listed.inspect_err(problem).unwrap_or_default()
    }

    /// How packets to a client on another node leave this one.
    async fn way<'t>(&self, client: IpAddr, tunnels: &'t [Tunnel]) -> Way<'t> {
        let look = move || Ok((links::link_towards(client)?, links::links()?));
        let Ok((Some(index), all)) = self.node.netns.visit(look).await else {
            return Way::Unknown;
        };
        let Some(link) = all.iter().find(|link| link.index == index) else {
            return Way::Unknown;
        };
        match (
            link.tunnel,
            tunnels.iter().find(|tunnel| tunnel.name == link.name),
        ) {
            // It sends from another address than the node's, which is the one that is watched.
            (_, Some(_))
                if link
                    .tunnel_from
                    .is_some_and(|ip| !self.subject.node_ips.contains(&ip)) =>
            {
                Way::Unknown
            }
            (_, Some(tunnel)) => Way::Tunnel(tunnel),
            (None, None) if link.is_plain => Way::Direct,
            (_, None) => Way::Unknown,
        }
    }

    /// Who sends the packets of tunnels over UDP from the client's node, and to which address and port.
    fn carriers(&self, dial: &ProbeArrival, tunnels: &[Tunnel]) -> Vec<(IpAddr, SocketAddr)> {
        let from = dial.node_ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let pairs = from.filter_map(|from| {
            let mut own = self.subject.node_ips.iter().copied();
            Some((from, own.find(|own| own.is_ipv4() == from.is_ipv4())?))
        });
        let pairs: Vec<(IpAddr, IpAddr)> = pairs.collect();
        let ports = tunnels.iter().filter_map(|tunnel| tunnel.port);
        let ports: BTreeSet<u16> = ports.collect();
        let each = pairs.into_iter().flat_map(|(from, to)| {
            let to_port = move |port: &u16| (from, SocketAddr::new(to, *port));
            ports.iter().map(to_port).collect::<Vec<_>>()
        });
        each.collect()
    }

    /// What was seen of one dial; None if its packets seem to have come from another address.
    async fn arrived(&self, dial: &ProbeArrival, seen: &[Sighting], tunnels: &[Tunnel]) -> Option<Arrived> {
        let (client, endpoint) = parsed(dial)?;
        let is_behind = |ips: &[String]| ips.iter().any(|ip| ip.parse() == Ok(endpoint.ip()));
        let pods = self.endpoints.iter().filter(|pod| is_behind(&pod.pod.ips));
        let pods: BTreeSet<u64> = pods.map(|pod| pod.netns.inode()).collect();
        let node = self.node.netns.inode();
        let packets = PacketsOf {
            seen,
            protocol: dial.protocol,
            client,
            endpoint,
        };
        let of_node = |namespace: u64| namespace == node;
        let of_pods = |namespace: u64| pods.contains(&namespace);
        let arrived = packets.most(Leg::ToEndpoint, false, of_node);
        let in_pods = packets.most(Leg::ToEndpoint, false, of_pods);
        let answered = packets.most(Leg::Answer, true, of_pods);
        let returned = packets.most(Leg::Answer, true, of_node);
        let way = self.way(client, tunnels).await;
        let carriers = match way {
            Way::Tunnel(tunnel) => self.carriers(dial, std::slice::from_ref(tunnel)),
            Way::Direct | Way::Unknown => Vec::new(),
        };
        let from_node = |is_it: &dyn Fn(IpAddr, SocketAddr) -> bool| {
            let is_its = |packet: &&Sighting| {
                packet.leg == Leg::FromNode
                    && !packet.is_sent
                    && is_it(packet.tuple.source.ip(), packet.tuple.destination)
                    && packet.namespace.map(u64::from) == Some(node)
            };
            let counts = seen.iter().filter(is_its).map(|packet| packet.count);
            counts.max().unwrap_or(0)
        };
        let nodes = |ip: IpAddr| dial.node_ips.iter().any(|own| own.parse() == Ok(ip));
        if count(arrived) == 0 && from_node(&|from, to| nodes(from) && to == endpoint) > 0 {
            return None;
        }
        let carried = from_node(&|from, to| carriers.contains(&(from, to)));
        let carrier = carriers.first().copied();
        // Links that lead straight into a Pod are none of the node's.
        let is_past_node = arrived.is_none() && returned.is_none() && in_pods.is_some();
        Some(Arrived {
            carrier: carrier.map(|(from, to)| Carrier {
                from: from.to_string(),
                to: to.ip().to_string(),
                port: to.port(),
            }),
            carried: number(carried),
            direct: matches!(way, Way::Direct),
            from: dial.from.clone(),
            protocol: dial.protocol,
            endpoint: dial.endpoint.clone(),
            arrived: count(arrived).max(count(in_pods)),
            interface: name(arrived),
            answered: count(answered),
            returned: count(if is_past_node { answered } else { returned }),
            return_interface: name(returned),
        })
    }
}
