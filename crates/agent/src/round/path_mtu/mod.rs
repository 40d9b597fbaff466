//! Packets of full size on the paths to other nodes: once an hour for each path, and after every change, unless another
//! NodeProbe has just found it well; then in the next round. Where nothing was heard of one, the next round finds out whether
//! they are lost; after that the path is tried in each round, so that a fix is noticed.
//!
//! Full size is that of the largest packets that TCP sends on a connection to the endpoint: the MTU of the Pod's route
//! and what the other end asks for (or a firewall between them, which clamps it) are in it. `trial` says what is known of
//! a path, `memory` which paths are due, and `links` reads the MTUs of the node.

mod links;
mod memory;
mod trial;

use std::{net::IpAddr, time::Duration};

use futures::future::join_all;

use self::{
    memory::Before,
    trial::{Found, Path},
};
use super::{LocalPod, Memory, Ready, Round};
use crate::{
    dial::Dial,
    packet_size::{self, Fate, Packets},
    settings::tcp_probes_the_mtu,
};
use svcdiag_api::{Answer, PacketSize, ProbePath};
use svcdiag_kube_proxy::Protocol;

pub(super) use self::memory::{Known, Shared};

/// Time for the connection. Whether the endpoint accepts one is for other dials to say.
const PATIENCE: Duration = Duration::from_secs(1);

/// A path that is tried.
struct Tried<'a> {
    round: &'a Round<'a>,
    client: &'a LocalPod<'a>,
    to: Ready,
}

/// The paths on which packets of full size are lost.
pub(super) async fn probe(round: &Round<'_>, memory: &Memory) -> Vec<PacketSize> {
    let asked = &round.spec.full_size_paths;
    let mut due = memory.path_mtu.lock().due(&round.spec.revision, asked);
    // Not what somebody else has just tried: it is due in the next round.
    let asking = &round.spec.diagnosis.uid;
    let is_news = |(path, before): &(&ProbePath, Before)| {
        *before != Before::Nothing || !round.node.full_size_paths.lock().is_well(path, asking)
    };
    due.retain(is_news);
    let found = join_all(due.into_iter().map(async |(path, before)| {
        let (full, found) = Tried::of(round, path)?.look(before).await?;
        Some((path, full, found))
    }));
    let found: Vec<_> = found.await.into_iter().flatten().collect();
    for (path, _, found) in &found {
        let mut shared = round.node.full_size_paths.lock();
        match found {
            Found::Passes => shared.note_well(path, asking),
            _ => shared.forget(path),
        }
    }
    let lost = memory.path_mtu.lock().learn(found.into_iter());
    let mut reported = Vec::new();
    for (path, limit) in lost {
        // An endpoint that has gone meanwhile proves nothing.
        if let Some(tried) = Tried::of(round, path).filter(|tried| tried.is_there()) {
            reported.push(PacketSize {
                from: path.from.clone(),
                to: path.to.clone(),
                passes: limit.passes,
                fails: limit.fails,
                links: links::of(round, tried.client).await,
            });
        }
    }
    reported
}

impl<'a> Tried<'a> {
    /// A path of which both ends are known, and that leads to a port that connections are made to.
    fn of(round: &'a Round<'a>, path: &ProbePath) -> Option<Self> {
        let ip: IpAddr = path.to.parse().ok()?;
        let mut clients = round.clients.iter();
        let client = clients.find(|client| client.key == path.from && !client.pod.host_network)?;
        let mut ready = super::ready(round, &round.subject).into_iter();
        let to = ready.find(|ready| ready.address.ip() == ip && !ready.port.is_udp())?;
        round
            .has_family(Some(client), ip)
            .then_some(Self { round, client, to })
    }

    /// Whether the endpoint is still one.
    fn is_there(&self) -> bool {
        super::ready(self.round, &self.round.read_again()).contains(&self.to)
    }

    /// What is known of the path, and by packets of which size; nothing if no connection could be made.
    async fn look(&self, before: Before) -> Option<(u16, Found)> {
        // Connections only stall for a moment where TCP looks for the size itself.
        if tcp_probes_the_mtu(&self.client.netns).await.ok()? {
            return Some((0, Found::Unknown));
        }
        let segment = self.largest_segment().await?;
        let Some(full) = self.full_size(segment).await else {
            return Some((0, Found::Unknown));
        };
        let found = match before {
            Before::Lost(of, limit) if of == full => trial::still(self, limit).await,
            Before::Suspect => trial::trial(self, full).await,
            Before::Lost(..) | Before::Nothing => trial::glance(self, full).await,
        };
        Some((full, found))
    }

    /// What TCP sends in its largest packets to the endpoint.
    async fn largest_segment(&self) -> Option<u32> {
        let _permit = self.round.permit().await?;
        let started = Dial::start(&self.client.netns, Protocol::Tcp, self.to.address);
        let dial = started.await.ok()?;
        self.round.seen.note_source(dial.source());
        let dialled = dial.finish(self.round.patience().min(PATIENCE)).await.ok()?;
        let is_made = dialled.answer == Answer::Accepted;
        dialled.largest_segment.filter(|_| is_made)
    }

    /// Size of its largest packets. A connection that could send larger ones than the path takes was made with a proxy in
    /// the Pod itself.
    async fn full_size(&self, segment: u32) -> Option<u16> {
        let ip = self.to.address.ip();
        let size = packet_size::of_tcp(segment, ip);
        let mtu = packet_size::known_mtu(&self.client.netns, ip).await.ok()?;
        u16::try_from(size).ok().filter(|_| size <= mtu)
    }
}

impl Path for Tried<'_> {
    async fn send(&self, packets: Packets) -> Option<Fate> {
        let _permit = self.round.permit().await?;
        // Where no socket can be made the dials of the round say so.
        let sent = packet_size::send(&self.client.netns, self.to.address.ip(), packets);
        sent.await.ok()
    }
}
