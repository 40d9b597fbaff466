//! Node ports that a node serves to itself, and that another node does not get through to.
//!
//! That is no fault of the Service inside the cluster, and may be what somebody wanted: it is a hint.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{evidence::Evidence, plan::other_nodes, policies::effects, text};
use svcdiag_api::{Answer, DialPath, OtherNodePort};
use svcdiag_objects::{Endpoint, EndpointSlice, IpFamily, Object, Service, ServicePort};

/// What is closed, if anything is.
pub(super) fn closed(evidence: &Evidence<'_>) -> Option<String> {
    let service = evidence.service?;
    // With the traffic policy Local the endpoints see who dials, and policies may turn nodes away.
    if effects::may_keep_nodes_away(evidence.facts) {
        return None;
    }
    let mut closed: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for report in &evidence.reports.current {
        let lost = report.facts.other_node_ports.iter();
        for of in lost.filter(|of| is_closed(evidence, service, of)) {
            closed
                .entry((&of.node, &of.target))
                .or_default()
                .push(report.node);
        }
    }
    let said: Vec<String> = closed
        .iter()
        .map(|((node, target), from)| {
            format!(
                "node port {target} answers node {node} itself, but not {}",
                text::nodes(from)
            )
        })
        .collect();
    (!said.is_empty()).then(|| {
        format!(
            " {}. If clients outside the cluster use node ports, check the firewalls of the nodes and between them.",
            text::capitalized(&text::list(&said))
        )
    })
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
    let port = evidence.ends.service_port(of.port);
    let port = port.filter(|p| p.node_port == Some(i32::from(target.port())));
    is_lost
        && is_its
        && port.is_some_and(|port| takes_from_outside(evidence, service, (&of.node, target), port))
        && answers_itself(evidence, of, IpFamily::of(target.ip()))
}

/// Whether a node takes what comes from outside for a port: with the traffic policy Local, only for ready endpoints of its
/// own that have the port.
fn takes_from_outside(
    evidence: &Evidence<'_>,
    service: &Service,
    (node, target): (&str, SocketAddr),
    port: &ServicePort,
) -> bool {
    let has_port = |slice: &&Arc<EndpointSlice>| {
        let mut ports = slice.ports.iter();
        ports.any(|p| p.name() == port.name() && p.protocol == port.protocol)
    };
    let is_there = |endpoint: &Endpoint| {
        let ips = endpoint
            .addresses
            .iter()
            .filter_map(|ip| ip.parse::<IpAddr>().ok());
        let mut of_family = ips.filter(|ip| ip.is_ipv4() == target.is_ipv4());
        endpoint.is_ready() && endpoint.node_name.as_deref() == Some(node) && of_family.next().is_some()
    };
    let slices = evidence.facts.slices.iter().filter(has_port);
    !other_nodes::is_local(service) || slices.flat_map(|s| &s.endpoints).any(is_there)
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
