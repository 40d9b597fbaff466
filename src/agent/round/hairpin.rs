//! Pods that dial themselves through the Service.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::{LocalPod, Memory, Round, SECOND_LOOK};
use crate::{
    agent::{
        dial::{BEFORE_RETRANSMISSION, Dial},
        links,
    },
    api::{Answer, Hairpin},
    objects::Object,
    proxy::{Protocol, Purpose, Traffic, expected, hairpin_is_masqueraded},
};

/// Tries until one comes back to the Pod itself.
const MAX_TRIES: usize = 100;

/// Lost tries that are waited for at once.
const MAX_LOST: usize = 8;

/// The kernel may work a packet off a moment after the call that sent it.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Pods that dial themselves in one round.
const PODS: usize = 4;

/// Without a change so long passes before Pods dial themselves again.
const PAUSE: Duration = Duration::from_secs(3600);

pub(super) async fn look(round: &Round<'_>, memory: &Memory) -> Vec<Hairpin> {
    let key = what_it_depends_on(round);
    if let Some((known, at, hairpins)) = memory.hairpins().as_ref()
        && *known == key
        && at.elapsed() < PAUSE
    {
        return hairpins.clone();
    }
    let own_namespace = |pod: &&LocalPod<'_>| !pod.pod.host_network;
    let pods = round.endpoints.iter().filter(own_namespace).take(PODS);
    let hairpins: Vec<Hairpin> = join_all(pods.map(|pod| hairpin(round, pod)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let lasts = hairpins.iter().all(lasts);
    *memory.hairpins() = lasts.then(|| (key, Instant::now(), hairpins.clone()));
    hairpins
}

/// Whether a result holds for long. What fails is tried again in the next round, to see it mended, and so is
/// what came to nothing where the settings would not let it: kube-proxy may just be writing its rules.
fn lasts(hairpin: &Hairpin) -> bool {
    match hairpin.answer {
        Some(answer) => answer == Answer::Accepted,
        None => hairpin.masqueraded != Some(false) && hairpin.hairpin_mode != Some(false),
    }
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
    let (target, own, endpoints) =
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
                (port.protocol == Protocol::Tcp).then(|| (target, *own, endpoints.clone()))
            })?;
    let mut answer = pinned(round, pod, target, own, &endpoints).await;
    if answer.is_some_and(|a| a != Answer::Accepted) {
        tokio::time::sleep(SECOND_LOOK).await;
        // What was not met again stays unknown, and so does a Pod that is no endpoint any more.
        answer = pinned(round, pod, target, own, &endpoints).await;
        let subject = round.read_again().await?;
        if !super::ready(round, &subject).iter().any(|r| r.address == own) {
            return None;
        }
    }
    let link = port_of(round, pod);
    Some(Hairpin {
        pod: pod.key.clone(),
        target: target.to_string(),
        answer,
        bridge_port: link
            .as_ref()
            .filter(|l| l.bridge.is_some())
            .map(|l| l.name.clone()),
        hairpin_mode: link.and_then(|link| link.hairpin_mode),
        masqueraded: super::rules::open(round, None).and_then(|(_, rules)| {
            let service = (target.ip(), target.port());
            hairpin_is_masqueraded(rules.as_ref(), service, Protocol::Tcp, own).ok()
        }),
    })
}

/// How a dial that comes back to the Pod ends; None if none did.
///
/// Conntrack shows at once where a dial goes, so that those that go elsewhere are dropped. Those that it
/// does not show were lost before the node was done with them: they were on their way to the Pod itself
/// if every other endpoint was met.
async fn pinned(
    round: &Round<'_>,
    pod: &LocalPod<'_>,
    target: SocketAddr,
    own: SocketAddr,
    endpoints: &BTreeSet<SocketAddr>,
) -> Option<Answer> {
    let mut met = BTreeSet::new();
    let mut lost = Vec::new();
    for _ in 0..MAX_TRIES {
        let _permit = round.permit().await?;
        let dial = Dial::start(&pod.netns, Protocol::Tcp, target).ok()?;
        let source = dial.source()?;
        let mut sent_to = round.sent_to(Protocol::Tcp, source, target);
        if sent_to.is_none() {
            tokio::time::sleep(A_MOMENT).await;
            sent_to = round.sent_to(Protocol::Tcp, source, target);
        }
        match sent_to {
            Some(endpoint) if endpoint == own => {
                return dial.finish(round.patience()).await.ok().map(|d| d.answer);
            }
            Some(endpoint) => {
                met.insert(endpoint);
            }
            None if lost.len() < MAX_LOST => lost.push(dial),
            None => {}
        }
        let all_others_met = endpoints.iter().all(|e| *e == own || met.contains(e));
        if all_others_met && lost.len() == MAX_LOST {
            break;
        }
    }
    if !endpoints.iter().all(|e| *e == own || met.contains(e)) {
        return None;
    }
    let answers = join_all(lost.into_iter().map(|dial| async {
        let source = dial.source();
        let is_settled = dial.settles_within(BEFORE_RETRANSMISSION).await;
        // One that was merely not seen in time is seen by now.
        let sent_to = source.and_then(|source| round.sent_to(Protocol::Tcp, source, target));
        if sent_to.is_some_and(|e| e != own) {
            None
        } else if !is_settled && sent_to.is_none() {
            Some(Answer::TimedOut)
        } else {
            dial.finish(round.patience())
                .await
                .ok()
                .map(|dialled| dialled.answer)
        }
    }))
    .await;
    let mut answers = answers.into_iter().flatten();
    if endpoints.len() == 1 {
        // Nobody else can have answered, though conntrack does not show it (a proxy in eBPF, say).
        let answers: Vec<Answer> = answers.collect();
        let accepted = answers.iter().find(|a| **a == Answer::Accepted);
        return accepted.or(answers.first()).copied();
    }
    answers.find(|a| *a != Answer::Accepted)
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
