//! Pods that dial themselves through the Service.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{LocalPod, Memory, Round, SECOND_LOOK};
use crate::{
    agent::{dial::Dial, links, netfilter::conntrack::Conntrack},
    api::{Answer, Hairpin},
    objects::Object,
    proxy::{Protocol, Purpose, Traffic, expected, hairpin_is_masqueraded},
};

/// Tries until one comes back to the Pod itself.
const MAX_TRIES: usize = 100;

/// Tries that are under way at once; each is dropped when it went elsewhere.
const PODS: usize = 4;

/// Without a change so long passes before Pods dial themselves again.
const PAUSE: Duration = Duration::from_secs(3600);

pub(super) async fn look(round: &Round<'_>, memory: &Memory) -> Vec<Hairpin> {
    let key = what_it_depends_on(round);
    if let Some((known, at, hairpins)) = memory
        .hairpins
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .as_ref()
        && *known == key
        && at.elapsed() < PAUSE
    {
        return hairpins.clone();
    }
    let mut hairpins = Vec::new();
    for pod in round.endpoints.iter().filter(|p| !p.pod.host_network).take(PODS) {
        hairpins.extend(hairpin(round, pod).await);
    }
    *memory
        .hairpins
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some((key, Instant::now(), hairpins.clone()));
    hairpins
}

fn what_it_depends_on(round: &Round<'_>) -> String {
    let service = round
        .subject
        .service
        .as_ref()
        .and_then(|s| s.metadata.resource_version.clone());
    let slices: Vec<String> = round
        .subject
        .slices
        .iter()
        .map(|s| {
            format!(
                "{}={}",
                s.name(),
                s.metadata.resource_version.as_deref().unwrap_or_default()
            )
        })
        .collect();
    format!("{} {service:?} {slices:?}", round.spec.revision)
}

async fn hairpin(round: &Round<'_>, pod: &LocalPod<'_>) -> Option<Hairpin> {
    let service = round.subject.service.as_ref()?;
    let slices: Vec<_> = round.subject.slices.iter().collect();
    // The first TCP address that has the Pod behind it will do: bridge and rules are the same for all.
    let (target, protocol, own) =
        expected(service, &slices, round.vantage())
            .into_iter()
            .find_map(|port| {
                let cluster = port
                    .destinations
                    .iter()
                    .find(|d| d.purpose == Purpose::ClusterIp)?;
                let Traffic::To(endpoints) = &cluster.inside else {
                    return None;
                };
                let own = endpoints
                    .iter()
                    .find(|e| pod.pod.ips.contains(&e.ip().to_string()))?;
                let target = SocketAddr::new(cluster.address?, cluster.port);
                (port.protocol == Protocol::Tcp).then_some((target, port.protocol, *own))
            })?;
    let mut answer = pinned(round, pod, target, own).await;
    if answer.is_some_and(|a| a != Answer::Accepted) {
        tokio::time::sleep(SECOND_LOOK).await;
        // What was not met again stays unknown.
        answer = pinned(round, pod, target, own).await;
    }
    Some(Hairpin {
        pod: pod.key.clone(),
        target: target.to_string(),
        answer,
        hairpin_mode: port_of(round, pod).and_then(|link| link.hairpin_mode),
        masqueraded: super::rules::open(round, None).and_then(|(_, rules)| {
            hairpin_is_masqueraded(rules.as_ref(), (target.ip(), target.port()), protocol, own).ok()
        }),
    })
}

/// How a dial that comes back to the Pod ends; None if none did.
async fn pinned(
    round: &Round<'_>,
    pod: &LocalPod<'_>,
    target: SocketAddr,
    own: SocketAddr,
) -> Option<Answer> {
    let conntrack = round.node.netns.run(Conntrack::open).ok()?;
    for _ in 0..MAX_TRIES {
        let _permit = round.node.dials.acquire().await.ok()?;
        let dial = Dial::start(&pod.netns, Protocol::Tcp, target).ok()?;
        let source = dial.source()?;
        let connection = conntrack.find(Protocol::Tcp, source, target).ok()?;
        if connection.is_some_and(|c| c.answers == own) {
            return dial.finish(round.patience()).await.ok().map(|d| d.answer);
        }
    }
    None
}

/// The node's end of a Pod's link.
fn port_of(round: &Round<'_>, pod: &LocalPod<'_>) -> Option<links::Link> {
    let inside = pod.netns.run(links::links).ok()?;
    let peer = inside.iter().find(|l| l.name == "eth0")?.peer?;
    let outside = round.node.netns.run(links::links).ok()?;
    outside.into_iter().find(|l| l.index == peer)
}

/// The bridge that a Pod's link is a port of.
pub(super) fn bridge_of(round: &Round<'_>, pod: &LocalPod<'_>) -> Option<u32> {
    port_of(round, pod)?.bridge
}
