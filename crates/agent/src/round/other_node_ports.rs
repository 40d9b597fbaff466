//! Node ports of other nodes, dialled as somebody outside the cluster would: what a node serves to itself may be closed to
//! everybody else.
//!
//! Over TCP only: whoever sends a datagram learns nothing from silence.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;

use super::{CONFIRM_AFTER, Memory, Round, rules::age};
use crate::{dial::Dial, kubeproxy::samples::MAY_WAIT};
use svcdiag_api::{Answer, OtherNodePort, PortProtocol};
use svcdiag_engine::asked::{OtherNode, Subject};
use svcdiag_kube_proxy::{IpFamily, Protocol};
use svcdiag_objects::Open;

/// Node ports dialled in one round.
const MAX_TARGETS: usize = 16;

/// Time for one dial: TCP sends its first packet a second time within it. All else that a round finds waits for it, and a
/// port that somebody has closed on purpose is closed in every round.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node port to dial.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    node: String,
    /// The Service port.
    port: PortProtocol,
    address: SocketAddr,
}

impl Target {
    fn is_of(&self, port: &OtherNodePort) -> bool {
        self.node == port.node && self.port == port.port && self.address.to_string() == port.target
    }
}

/// Those that are closed. While kube-proxy of the other node may not have written a change yet nothing is dialled, and
/// what was found before holds.
pub(super) async fn probe(round: &Round<'_>, memory: &Memory) -> Vec<OtherNodePort> {
    let known = memory.closed_node_ports.lock().clone();
    let targets = match round.spec.from_node {
        true => targets(&round.subject, round),
        false => Vec::new(),
    };
    let closed = if is_new(&round.subject) {
        still_there(known, &targets)
    } else {
        let closed = closed(round, targets).await;
        let (known, new) = closed
            .into_iter()
            .partition(|(target, _)| known.iter().any(|port| target.is_of(port)));
        let mut closed: Vec<(Target, Answer)> = known;
        closed.extend(confirmed(round, new).await);
        closed.into_iter().map(report).collect()
    };
    memory.closed_node_ports.lock().clone_from(&closed);
    closed
}

fn is_new(subject: &Subject) -> bool {
    subject.changed.is_some_and(|changed| age(changed) < MAY_WAIT)
}

fn still_there(mut known: Vec<OtherNodePort>, targets: &[Target]) -> Vec<OtherNodePort> {
    known.retain(|port| targets.iter().any(|target| target.is_of(port)));
    known
}

/// Those that a second dial, some seconds later, does not reach either.
async fn confirmed(round: &Round<'_>, failed: Vec<(Target, Answer)>) -> Vec<(Target, Answer)> {
    if failed.is_empty() {
        return failed;
    }
    tokio::time::sleep(CONFIRM_AFTER).await;
    let again = closed(round, failed.into_iter().map(|(target, _)| target).collect()).await;
    let subject = round.read_again();
    let today = targets(&subject, round);
    let is_there = |(target, _): &(Target, Answer)| !is_new(&subject) && today.contains(target);
    again.into_iter().filter(is_there).collect()
}

/// Dials once, and returns those that do not accept the connection.
async fn closed(round: &Round<'_>, targets: Vec<Target>) -> Vec<(Target, Answer)> {
    let dials = targets.into_iter().map(async |target| {
        let answer = dial(round, &target).await?;
        (answer != Answer::Accepted).then_some((target, answer))
    });
    join_all(dials).await.into_iter().flatten().collect()
}

async fn dial(round: &Round<'_>, target: &Target) -> Option<Answer> {
    let _permit = round.permit().await?;
    let started = Dial::start(&round.node.netns, Protocol::Tcp, target.address)
        .await
        .ok()?;
    let dialled = started.finish(round.patience().min(PATIENCE)).await.ok()?;
    Some(dialled.answer)
}

fn report((target, answer): (Target, Answer)) -> OtherNodePort {
    OtherNodePort {
        node: target.node,
        port: target.port,
        target: target.address.to_string(),
        answer,
    }
}

/// The node ports of the requested ports, at one address for each family of the Service.
fn targets(subject: &Subject, round: &Round<'_>) -> Vec<Target> {
    let mut all = Vec::new();
    let ports = subject.service.spec.ports.iter().filter(|p| round.is_asked(p));
    for port in ports.filter(|p| p.protocol == Protocol::Tcp) {
        let number = port.node_port.and_then(|number| u16::try_from(number).ok());
        let number = number.filter(|number| *number > 0);
        let Some((number, asked)) = number.zip(port.port_protocol()) else {
            continue;
        };
        for other in &subject.other_nodes {
            all.extend(addresses(subject, other).map(|ip| Target {
                node: other.name.clone(),
                port: asked,
                address: SocketAddr::new(ip, number),
            }));
        }
    }
    all.truncate(MAX_TARGETS);
    all
}

/// A node's first address of each family of the Service, where its own agent dials its node ports as well.
fn addresses(subject: &Subject, other: &OtherNode) -> impl Iterator<Item = IpAddr> {
    let families = subject.service.spec.ip_families.iter().filter_map(Open::known);
    families.filter_map(|family| other.ips.iter().copied().find(|ip| IpFamily::of(*ip) == family))
}
