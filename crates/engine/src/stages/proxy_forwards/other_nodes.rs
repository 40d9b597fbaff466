//! Node ports that a node serves to itself, and that another node does not get through to.
//!
//! That is no fault of the Service inside the cluster, and may be what somebody wanted: it is a hint.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{dialling::describe, evidence::Evidence, plan::other_nodes, policies::effects, text};
use svcdiag_api::{Answer, DialPath, OtherNodePort};
use svcdiag_objects::{IpFamily, Object, Service};

/// What is closed, if anything is.
pub(super) fn closed(evidence: &Evidence<'_>) -> Option<String> {
    let service = evidence.service?;
    // With the traffic policy Local the endpoints see who dials, and policies may turn nodes away.
    if effects::may_keep_nodes_away(evidence.facts) {
        return None;
    }
    let mut closed: BTreeMap<(&str, &str), Vec<(&str, Answer)>> = BTreeMap::new();
    for report in &evidence.reports.current {
        let lost = report.facts.other_node_ports.iter();
        for of in lost.filter(|of| is_closed(evidence, service, of)) {
            let from = closed.entry((&of.node, &of.target)).or_default();
            from.push((report.node, of.answer));
        }
    }
    let said: Vec<String> = closed.iter().map(|(to, from)| describe(*to, from)).collect();
    (!said.is_empty()).then(|| {
        format!(
            " {}. If clients outside the cluster use node ports, check the firewalls of the nodes and between them.",
            text::capitalized(&text::list(&said))
        )
    })
}

fn describe((node, target): (&str, &str), from: &[(&str, Answer)]) -> String {
    let nodes: Vec<&str> = from.iter().map(|(node, _)| *node).collect();
    let answers: BTreeSet<&str> = from.iter().map(|(_, answer)| describe::result(*answer)).collect();
    let answers: Vec<&str> = answers.into_iter().collect();
    format!(
        "node port {target} answers node {node} itself, but not {} ({})",
        text::nodes(&nodes),
        text::list(&answers)
    )
}

/// Whether a dial says that the way to the node is closed: the port is the Service's today, and the node itself gets an
/// answer there.
fn is_closed(evidence: &Evidence<'_>, service: &Service, of: &OtherNodePort) -> bool {
    let Ok(target) = of.target.parse::<SocketAddr>() else {
        return false;
    };
    let is_lost = matches!(
        of.answer,
        Answer::TimedOut | Answer::Rejected | Answer::Unreachable | Answer::Refused
    );
    let nodes = &evidence.facts.cluster_nodes;
    let is_its = nodes
        .iter()
        .any(|n| n.name() == of.node && n.internal_ips().contains(&target.ip()));
    let port = evidence.ends.service_port(&of.port);
    is_lost
        && is_its
        && port.is_some_and(|p| p.node_port == Some(i32::from(target.port())))
        && other_nodes::serves(evidence.facts, service, &of.node)
        && answers_itself(evidence, of, IpFamily::of(target.ip()))
}

fn answers_itself(evidence: &Evidence<'_>, of: &OtherNodePort, family: IpFamily) -> bool {
    let mut reports = evidence.reports.current.iter().filter(|r| r.node == of.node);
    reports.any(|report| {
        let mut own = report.facts.dials.iter().filter(|d| {
            d.from.is_none() && d.path == DialPath::NodePort && d.port == of.port && d.family == family
        });
        own.any(|d| d.made > 0 && d.failed == 0)
    })
}
