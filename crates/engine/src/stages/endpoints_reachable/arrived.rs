//! Dials that are lost between nodes, of which the endpoint's node saw something: in words.

use crate::{
    evidence::{
        Evidence,
        arrivals::{self, Arrival, Reach},
        dials::Failed,
    },
    text::quoted,
};
use svcdiag_api::Carrier;

/// How the tunnels are named of which the kernel's forwarding database says where they send: of flannel and of Calico. Others
/// decide that for each packet, as Cilium does.
const OF_FORWARDING_DATABASE: [&str; 2] = ["flannel.", "vxlan.calico"];

/// What was seen, and what to do about it where that is known.
pub(super) struct Arrived {
    pub message: String,
    pub remediation: Option<String>,
    /// Whether packets are lost on the endpoint's node, and not on the way between the nodes.
    pub is_on_its_node: bool,
}

/// What the endpoints' nodes saw of failures, of the first of which they saw anything.
pub(super) fn describe(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<Arrived> {
    let (failed, arrival) = failures
        .iter()
        .find_map(|failed| Some((failed, arrivals::of(evidence, failed)?)))?;
    let Arrival { node, seen, .. } = &arrival;
    let client = format!("Pod {} on node {}", seen.from, failed.node);
    let by = |interface: &Option<String>| match interface {
        Some(interface) => format!(" (interface {interface})"),
        None => String::new(),
    };
    let message = match arrival.reach() {
        Reach::NotThere => {
            let carrier = seen.carrier.as_ref().filter(|_| arrival.has_no_carrier());
            let carrier = carrier.map(|carrier| {
                format!(
                    " Nor did any packet of the tunnel from node {} arrive ({}).",
                    failed.node,
                    arrivals::carrier(carrier)
                )
            });
            let left = arrival.left.map(|left| {
                let packets = packets(left.sent);
                match left
                    .interface
                    .as_ref()
                    .filter(|_| arrival.left_by_tunnel == Some(true))
                {
                    Some(tunnel) => format!(
                        " When the dial was repeated, {packets} went into tunnel {tunnel} on node {}.",
                        failed.node
                    ),
                    None => format!(
                        " When the dial was repeated, {packets} left node {}{}.",
                        failed.node,
                        by(&left.interface)
                    ),
                }
            });
            format!(
                "Node {node} saw none of the packets that {client} sent to {} while it watched for them.{}{}",
                seen.endpoint,
                left.unwrap_or_default(),
                carrier.unwrap_or_default()
            )
        }
        Reach::There => format!(
            "{} from {client} to {} arrived on node {node}{}, but no answer left that node.",
            packets(seen.arrived),
            seen.endpoint,
            by(&seen.interface)
        ),
        Reach::Answered => format!(
            "The Pod of endpoint {} answered {client}, but no answer left node {node}.",
            seen.endpoint
        ),
        Reach::Returned => {
            let came = arrival.left.map(|left| match left.answers {
                0 => format!(" None of them came in on node {}.", failed.node),
                answers => {
                    let (packets, by) = (packets(answers), by(&left.answer_interface));
                    format!(" On node {}, {packets} of the answer came in{by}.", failed.node)
                }
            });
            format!(
                "Endpoint {} answered: node {node} passed {} for {client} on{}, but the dial still timed out.{}",
                seen.endpoint,
                packets(seen.returned),
                match &seen.return_interface {
                    Some(interface) => format!(" to interface {interface}"),
                    None => String::new(),
                },
                came.unwrap_or_default()
            )
        }
    };
    // What only some failures have in common is no remedy for all.
    let all_got = |reaches: &[Reach]| {
        failures.iter().all(|other| {
            arrivals::of(evidence, other)
                .is_some_and(|there| there.node == *node && reaches.contains(&there.reach()))
        })
    };
    let is_on_its_node = all_got(&[Reach::There, Reach::Answered]);
    let is_of_one_client = || failures.iter().all(|other| other.node == failed.node);
    let remediation = match arrival.reach() {
        _ if is_on_its_node => Some(on_its_node(evidence, failed, &arrival)),
        _ if !arrival.is_lost_between() || !all_got(&[arrival.reach()]) || !is_of_one_client() => None,
        Reach::Returned => Some(way_back(evidence, failed, &arrival)),
        _ => arrival
            .seen
            .carrier
            .as_ref()
            .map(|carrier| let_tunnel_through(failed, &arrival, carrier)),
    };
    Some(Arrived {
        message,
        remediation,
        is_on_its_node,
    })
}

fn packets(count: u32) -> String {
    match count {
        1 => "1 packet".to_owned(),
        _ => format!("{count} packets"),
    }
}

/// The address of the client whose packets were watched.
fn client_ip<'a>(evidence: &Evidence<'a>, arrival: &Arrival<'a>) -> &'a str {
    let mut reports = evidence.reports.current.iter();
    let asked = reports
        .find(|report| report.node == arrival.node)
        .and_then(|report| report.asked.arrivals.as_ref());
    let client = asked.and_then(|asked| asked.dials.iter().find(|dial| dial.from == arrival.seen.from));
    client.map_or("", |dial| dial.ip.as_str())
}

/// What to do where nothing of a tunnel arrives.
fn let_tunnel_through(failed: &Failed<'_>, arrival: &Arrival<'_>, carrier: &Carrier) -> String {
    let (from, to) = (quoted(failed.node), quoted(arrival.node));
    let link = arrival.left.and_then(|left| left.interface.as_deref());
    let link = link.filter(|link| OF_FORWARDING_DATABASE.iter().any(|name| link.starts_with(name)));
    let where_to = link.map(|link| {
        format!(
            " If they already do, check where the tunnel sends: `bridge fdb show dev {}` on node {from} must list {}. The network plugin writes these entries; check its Pod there: \
             `kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={from}`.",
            quoted(link),
            carrier.to
        )
    });
    format!(
        "Let {} through: the cloud's security groups must allow it, and the firewalls of nodes {from} and {to} as well.{}",
        arrivals::carrier(carrier),
        where_to.unwrap_or_default()
    )
}

/// What to look at where answers leave the endpoint's node and do not arrive at the client's.
fn way_back(evidence: &Evidence<'_>, failed: &Failed<'_>, arrival: &Arrival<'_>) -> String {
    format!(
        "Look at the way back: `ip route get {}` on node {} shows where answers are sent, and from there they must get to node {}. No tunnel carries them, so what is between the nodes \
         (routers, a cloud's route table and security groups) must know the Pods' addresses and let them through.",
        quoted(client_ip(evidence, arrival)),
        quoted(arrival.node),
        quoted(failed.node),
    )
}

/// What to look at on the node that packets come in on.
fn on_its_node(evidence: &Evidence<'_>, failed: &Failed<'_>, arrival: &Arrival<'_>) -> String {
    let node = arrival.node;
    let ip = client_ip(evidence, arrival);
    format!(
        "Packets get from node {} to node {node}, so look at node {node} itself: `ip route get {}` shows the way back to the client. \
         Routes and rules for Pods are written by the network plugin; check its Pod there: \
         `kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={}`.",
        failed.node,
        quoted(ip),
        quoted(node),
    )
}
