//! Pods that dial themselves through the Service.
//!
//! With few endpoints on the node they do so in every round. With more, whose dials mostly go elsewhere, they do so when
//! anything relevant has changed, which is checked in every round, and once an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::{CONFIRM_AFTER, LocalPod, Memory, Round, dials::Look, watch::Repeated};
use crate::{
    dial::{BEFORE_RETRANSMISSION, Dial},
    settings,
};
use svcdiag_api::{Answer, Hairpin};
use svcdiag_engine::asked::Subject;
use svcdiag_kube_proxy::{
    Backend, ExpectedPort, Protocol, Purpose, Traffic, expected, hairpin_is_masqueraded,
};
use svcdiag_netns::links;

/// Maximum attempts until one comes back to the Pod itself: after a change, and in later rounds.
const MAX_ATTEMPTS: usize = 100;
const MAX_REPEATED_ATTEMPTS: usize = 32;

/// Lost attempts that are waited for concurrently.
const MAX_LOST: usize = 8;

/// The kernel may process a packet a moment after the call that sent it.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Up to this many endpoints on the node, each dials itself in every round.
const IN_EVERY_ROUND: usize = 3;

/// Pods that dial themselves in one round.
const PODS: usize = 4;

/// Without a change, time before Pods dial themselves again.
const PAUSE: Duration = Duration::from_secs(3600);

/// A result, with what decided it, and when.
type Found = (Setup, Instant, Hairpin);

/// Results by Pod, as namespace/name.
pub(super) type Known = BTreeMap<String, Found>;

/// What decides whether a Pod reaches itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setup {
    target: SocketAddr,
    own: SocketAddr,
    bridge_port: Option<String>,
    hairpin_mode: Option<bool>,
    bridge_netfilter: Option<bool>,
    masqueraded: Option<bool>,
    /// The rules in use.
    backend: Option<Backend>,
}

/// A Pod that dials itself in this round.
struct Dialler<'a> {
    pod: &'a LocalPod<'a>,
    route: Route,
    setup: Setup,
    /// The known result of the same setup.
    before: Option<Found>,
    /// How a dial that came back has ended.
    answer: Option<Answer>,
    /// When the last of its dials began.
    begun: Option<tokio::time::Instant>,
}

impl Dialler<'_> {
    fn has_failed(&self) -> bool {
        self.answer.is_some_and(|answer| answer != Answer::Accepted)
    }
}

pub(super) async fn probe(round: &Round<'_>, memory: &Memory) -> Vec<Hairpin> {
    let usable = |pod: &&LocalPod<'_>| !pod.pod.host_network && !pod.pod.not_ready;
    let pods: Vec<_> = round.endpoints.iter().filter(usable).collect();
    let known = memory.hairpins().clone();
    let is_every_round = pods.len() <= IN_EVERY_ROUND;
    let (mut found, mut diallers) = (Vec::new(), Vec::new());
    for pod in pods.into_iter().take(PODS) {
        let Some(route) = Route::of(round, &round.subject, pod) else {
            continue;
        };
        let setup = setup(round, pod, &route).await;
        match known.get(&pod.key).filter(|(of, ..)| *of == setup).cloned() {
            Some(before) if before.1.elapsed() < PAUSE && !is_every_round => found.push(before),
            before => diallers.push(Dialler {
                pod,
                route,
                setup,
                before,
                answer: None,
                begun: None,
            }),
        }
    }
    join_all(diallers.iter_mut().map(async |of| {
        let most = of.before.as_ref().map_or(MAX_ATTEMPTS, |_| MAX_REPEATED_ATTEMPTS);
        of.answer = pinned(round, of.pod, &of.route, most, Look::First, &mut of.begun).await;
    }))
    .await;
    let diallers = confirmed(round, diallers).await;
    found.extend(join_all(diallers.into_iter().map(|of| result(round, of))).await);
    let lasting = found.iter().filter(|(_, _, hairpin)| lasts(hairpin));
    *memory.hairpins() = lasting.map(|f| (f.2.pod.clone(), f.clone())).collect();
    found.into_iter().map(|(_, _, hairpin)| hairpin).collect()
}

/// Repeats what failed, under one watch. What is not reached again stays unknown, and a Pod that is no longer an endpoint is
/// left out.
async fn confirmed<'a>(round: &Round<'_>, diallers: Vec<Dialler<'a>>) -> Vec<Dialler<'a>> {
    let (mut failed, mut all): (Vec<_>, Vec<_>) = diallers.into_iter().partition(Dialler::has_failed);
    if failed.is_empty() {
        return all;
    }
    if let Some(begun) = failed.iter().filter_map(|of| of.begun).max() {
        tokio::time::sleep_until(begun + CONFIRM_AFTER).await;
    }
    let repeated = failed.iter().map(|of| Repeated {
        from: Some(of.pod),
        netns: &of.pod.netns,
        protocol: Protocol::Tcp,
        target: of.route.target,
        endpoints: vec![of.route.own],
    });
    let again = failed.iter().map(async |of| {
        let mut begun = None;
        pinned(round, of.pod, &of.route, MAX_ATTEMPTS, Look::Second, &mut begun).await
    });
    let answers = round.watched(repeated.collect(), join_all(again)).await;
    for (of, answer) in failed.iter_mut().zip(answers) {
        of.answer = answer;
    }
    let ready = super::ready(round, &round.read_again());
    failed.retain(|of| ready.iter().any(|ready| ready.address == of.route.own));
    all.extend(failed);
    all
}

async fn result(round: &Round<'_>, dialler: Dialler<'_>) -> Found {
    let Dialler {
        pod,
        route,
        setup: first,
        before,
        answer,
        begun: _,
    } = dialler;
    // By chance no dial came back: the known result holds, unless it is old.
    if let Some(before) = before.filter(|(_, at, _)| answer.is_none() && at.elapsed() < PAUSE) {
        return before;
    }
    let setup = setup(round, pod, &route).await;
    let hairpin = Hairpin {
        pod: pod.key.clone(),
        target: route.target.to_string(),
        answer,
        bridge_port: setup.bridge_port,
        hairpin_mode: setup.hairpin_mode,
        masqueraded: setup.masqueraded,
    };
    (first, Instant::now(), hairpin)
}

/// Whether a result is kept for long. A failure is repeated in the next round, to notice a fix, and so is an inconclusive
/// result where the settings do not allow hairpin: kube-proxy may just be writing its rules.
fn lasts(hairpin: &Hairpin) -> bool {
    match hairpin.answer {
        Some(answer) => answer == Answer::Accepted,
        None => hairpin.masqueraded != Some(false) && hairpin.hairpin_mode != Some(false),
    }
}

/// A path from a Pod to itself through the Service.
struct Route {
    target: SocketAddr,
    own: SocketAddr,
    endpoints: BTreeSet<SocketAddr>,
}

impl Route {
    /// Through the first requested TCP port that has the Pod behind it: bridge and rules are the same for all.
    fn of(round: &Round<'_>, subject: &Subject, pod: &LocalPod<'_>) -> Option<Self> {
        let slices: Vec<_> = subject.slices.iter().collect();
        let is_asked = |port: &ExpectedPort| {
            let mut ports = subject.service.spec.ports.iter().filter(|p| round.is_asked(p));
            port.protocol == Protocol::Tcp
                && ports.any(|p| p.name() == port.name && p.protocol == port.protocol)
        };
        let ports = expected(&subject.service, &slices, round.vantage());
        ports.into_iter().filter(is_asked).find_map(|port| {
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
            Some(Self {
                target: SocketAddr::new(cluster.address?, cluster.port),
                own: *own,
                endpoints: endpoints.clone(),
            })
        })
    }
}

async fn setup(round: &Round<'_>, pod: &LocalPod<'_>, route: &Route) -> Setup {
    let link = port_of(round, pod).await;
    let rules = super::rules::open(round, None);
    let service = (route.target.ip(), route.target.port());
    Setup {
        target: route.target,
        own: route.own,
        bridge_port: link
            .as_ref()
            .filter(|l| l.bridge.is_some())
            .map(|l| l.name.clone()),
        hairpin_mode: link.and_then(|link| link.hairpin_mode),
        bridge_netfilter: settings::bridge_netfilter(&round.node.netns).unwrap_or_default(),
        masqueraded: rules.as_ref().and_then(|(_, rules)| {
            hairpin_is_masqueraded(rules.as_ref(), service, Protocol::Tcp, route.own).ok()
        }),
        backend: rules.map(|(backend, _)| backend),
    }
}

/// How a dial that comes back to the Pod ends; None if none did. Notes when the last dial began.
///
/// Conntrack shows at once where a dial goes, so those that go elsewhere are dropped. Those that it does not show were
/// lost before the node finished with them: they went to the Pod itself if every other endpoint was reached.
async fn pinned(
    round: &Round<'_>,
    pod: &LocalPod<'_>,
    route: &Route,
    most: usize,
    look: Look,
    begun: &mut Option<tokio::time::Instant>,
) -> Option<Answer> {
    let Route {
        target,
        own,
        endpoints,
    } = route;
    let (target, own) = (*target, *own);
    let mut met = BTreeSet::new();
    let mut lost = Vec::new();
    for _ in 0..most {
        let _permit = round.permit().await?;
        let dial = Dial::start(&pod.netns, Protocol::Tcp, target).await.ok()?;
        *begun = Some(tokio::time::Instant::now());
        let source = dial.source()?;
        round.seen.note_source(Some(source));
        let mut sent_to = round.sent_to(Protocol::Tcp, source, target);
        if sent_to.is_none() {
            tokio::time::sleep(A_MOMENT).await;
            sent_to = round.sent_to(Protocol::Tcp, source, target);
        }
        match sent_to {
            Some(endpoint) if endpoint == own => {
                return dial.finish(round.patience_of(look)).await.ok().map(|d| d.answer);
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
        // An entry that merely appeared late is there by now.
        let sent_to = source.and_then(|source| round.sent_to(Protocol::Tcp, source, target));
        if sent_to.is_some_and(|e| e != own) {
            None
        } else if !is_settled && sent_to.is_none() {
            Some(Answer::TimedOut)
        } else {
            dial.finish(round.patience_of(look))
                .await
                .ok()
                .map(|dialled| dialled.answer)
        }
    }))
    .await;
    let mut answers = answers.into_iter().flatten();
    if endpoints.len() == 1 {
        // Nothing else can have answered, even if conntrack does not show it (for example a proxy in eBPF).
        let answers: Vec<Answer> = answers.collect();
        let accepted = answers.iter().find(|a| **a == Answer::Accepted);
        return accepted.or(answers.first()).copied();
    }
    answers.find(|a| *a != Answer::Accepted)
}

/// The node's end of a Pod's link.
async fn port_of(round: &Round<'_>, pod: &LocalPod<'_>) -> Option<links::Link> {
    let inside = pod.netns.visit(links::links_of_pod).await.ok()?;
    let peer = inside.iter().find(|l| l.name == "eth0")?.peer?;
    let outside = round.node.netns.visit(links::links).await.ok()?;
    outside.into_iter().find(|l| l.index == peer)
}

/// The bridge that a Pod's link is a port of.
pub(super) async fn bridge_of(round: &Round<'_>, pod: &LocalPod<'_>) -> Option<u32> {
    port_of(round, pod).await?.bridge
}
