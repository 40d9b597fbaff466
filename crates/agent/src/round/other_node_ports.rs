//! Node ports of other nodes, dialled as somebody outside the cluster would: what a node serves to itself may be closed to
//! everybody else.
//!
//! Over TCP only: whoever sends a datagram learns nothing from silence.

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;

use super::{CONFIRM_AFTER, Round, rules::age};
use crate::kubeproxy::samples::MAY_WAIT;
use svcdiag_api::{Answer, OtherNodePort};
use svcdiag_engine::asked::{OtherNode, Subject};
use svcdiag_kube_proxy::{IpFamily, Protocol};
use svcdiag_objects::Open;

/// Node ports dialled in one round.
const MAX_TARGETS: usize = 16;

/// A node port to dial.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    node: String,
    /// The Service port, as number/protocol.
    port: String,
    address: SocketAddr,
}

pub(super) async fn probe(round: &Round<'_>) -> Vec<OtherNodePort> {
    if !round.spec.from_node {
        return Vec::new();
    }
    let targets = targets(round, &round.subject);
    let answers = join_all(targets.iter().map(|target| dial(round, target))).await;
    let dialled: Vec<(Target, Answer)> = targets
        .into_iter()
        .zip(answers)
        .filter_map(|(target, answer)| Some((target, answer?)))
        .collect();
    let (failed, answered): (Vec<_>, Vec<_>) = dialled
        .into_iter()
        .partition(|(_, answer)| *answer != Answer::Accepted);
    let mut known: Vec<OtherNodePort> = answered.into_iter().map(report).collect();
    if !failed.is_empty() {
        known.extend(confirmed(round, failed).await);
    }
    known.sort_by(|a, b| (&a.node, &a.target).cmp(&(&b.node, &b.target)));
    known
}

/// What a second dial of those that failed says. Nothing is known of what is not served any more, nor of what kube-proxy
/// of the other node may not have written yet.
async fn confirmed(round: &Round<'_>, failed: Vec<(Target, Answer)>) -> Vec<OtherNodePort> {
    tokio::time::sleep(CONFIRM_AFTER).await;
    let again = join_all(failed.iter().map(|(target, _)| dial(round, target))).await;
    let subject = round.read_again();
    if subject.changed.is_some_and(|changed| age(changed) < MAY_WAIT) {
        return Vec::new();
    }
    let today = self::targets(round, &subject);
    failed
        .into_iter()
        .zip(again)
        .filter(|((target, _), _)| today.contains(target))
        .filter_map(|((target, _), answer)| Some(report((target, answer?))))
        .collect()
}

async fn dial(round: &Round<'_>, target: &Target) -> Option<Answer> {
    let dialled = round.dial(&round.node.netns, Protocol::Tcp, target.address, None);
    dialled.await.ok().map(|(answer, _)| answer)
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
fn targets(round: &Round<'_>, subject: &Subject) -> Vec<Target> {
    let mut all = Vec::new();
    let ports = subject.service.spec.ports.iter().filter(|p| round.is_asked(p));
    for port in ports.filter(|p| p.protocol == Protocol::Tcp) {
        let number = port.node_port.and_then(|number| u16::try_from(number).ok());
        let Some(number) = number.filter(|number| *number > 0) else {
            continue;
        };
        for other in &subject.other_nodes {
            all.extend(addresses(subject, other).map(|ip| Target {
                node: other.name.clone(),
                port: format!("{}/{}", port.port, port.protocol),
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
