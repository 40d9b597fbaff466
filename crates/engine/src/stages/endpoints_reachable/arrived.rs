//! Dials that are lost between nodes, of which the endpoint's node saw something: in words.

use crate::{
    evidence::{
        Evidence,
        arrivals::{self, Arrival, Reach},
        dials::Failed,
    },
    text::quoted,
};

/// What was seen, and what to do where that is not the way between the nodes.
pub(super) struct Arrived {
    pub message: String,
    pub remediation: Option<String>,
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
                let (packets, by) = (packets(left.sent), by(&left.interface));
                format!(
                    " When the dial was repeated, {packets} left node {}{by}.",
                    failed.node
                )
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
            let came = arrival.left.filter(|left| left.answers > 0);
            let came = came.map(|left| {
                let (packets, by) = (packets(left.answers), by(&left.answer_interface));
                format!(" On node {}, {packets} of the answer came in{by}.", failed.node)
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
    let is_of_its_node = |failed: &&Failed<'_>| {
        let there = arrivals::of(evidence, failed);
        there.is_some_and(|there| {
            there.node == *node && matches!(there.reach(), Reach::There | Reach::Answered)
        })
    };
    Some(Arrived {
        message,
        remediation: failures
            .iter()
            .all(is_of_its_node)
            .then(|| on_its_node(evidence, failed, &arrival)),
    })
}

fn packets(count: u32) -> String {
    match count {
        1 => "1 packet".to_owned(),
        _ => format!("{count} packets"),
    }
}

/// What to look at on the node that packets come in on.
fn on_its_node(evidence: &Evidence<'_>, failed: &Failed<'_>, arrival: &Arrival<'_>) -> String {
    let node = arrival.node;
    let asked = evidence.reports.current.iter().find(|report| report.node == node);
    let asked = asked.and_then(|report| report.asked.arrivals.as_ref());
    let client = asked.and_then(|asked| asked.dials.iter().find(|dial| dial.from == arrival.seen.from));
    let ip = client.map_or("", |dial| dial.ip.as_str());
    format!(
        "Packets get from node {} to node {node}, so look at node {node} itself: `ip route get {}` shows the way back to the client. \
         Routes and rules for Pods are written by the network plugin; check its Pod there: \
         `kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={}`.",
        failed.node,
        quoted(ip),
        quoted(node),
    )
}
