//! Paths between nodes on which packets of full size are lost, held against the Pods of today.

use std::net::{IpAddr, SocketAddr};

use crate::evidence::{Evidence, dials::Failed, targets::Target};
use svcdiag_api::{Answer, PacketSize};
use svcdiag_objects::{Object, Pod};

/// A path that takes smaller packets than TCP sends on it.
#[derive(Clone, Copy)]
pub(crate) struct NarrowPath<'a> {
    /// The node of the client.
    pub node: &'a str,
    /// The client Pod.
    pub from: &'a Pod,
    /// The node of the endpoint.
    pub other: &'a str,
    /// The endpoint's Pod.
    pub to: &'a Pod,
    /// What was seen.
    pub size: &'a PacketSize,
}

/// All such paths, in an order of their own. A connection of a Pod with a sidecar is the sidecar's, and does not tell how
/// large its packets are.
pub(crate) fn narrow_paths<'a>(evidence: &Evidence<'a>) -> Vec<NarrowPath<'a>> {
    let mut paths: Vec<NarrowPath<'a>> = Vec::new();
    for report in &evidence.reports.current {
        let sizes = report.facts.packet_sizes.iter();
        paths.extend(sizes.filter_map(|size| narrow_path(evidence, report.node, size)));
    }
    paths.sort_by_key(|p| {
        let PacketSize {
            from,
            to,
            passes,
            fails,
            links,
        } = p.size;
        (p.node, p.other, from, to, passes, fails, links)
    });
    paths
}

fn narrow_path<'a>(evidence: &Evidence<'a>, node: &'a str, size: &'a PacketSize) -> Option<NarrowPath<'a>> {
    let ip: IpAddr = size.to.parse().ok()?;
    let from = evidence.ends.pod(&size.from)?;
    let (other, to) = target(evidence, ip)?;
    let is_path = other != node && from.spec.node_name.as_deref() == Some(node);
    let may_tell = !from.is_host_network() && !evidence.ends.has_sidecar(&size.from);
    (is_path && may_tell && size.passes < size.fails).then_some(NarrowPath {
        node,
        from,
        other,
        to,
        size,
    })
}

/// The node and the Pod of an endpoint of today.
fn target<'a>(evidence: &Evidence<'a>, ip: IpAddr) -> Option<(&'a str, &'a Pod)> {
    let of_ip = |(endpoint, _): &(&SocketAddr, &Target<'a>)| endpoint.ip() == ip;
    let (_, target) = evidence.ends.targets.iter().find(of_ip)?;
    let pod = target.pod.filter(|pod| !pod.is_host_network())?;
    Some((target.node?, pod))
}

/// Whether a connection was made and its answer is lost between two nodes between which large packets are.
pub(crate) fn explains(paths: &[NarrowPath<'_>], failed: &Failed<'_>) -> bool {
    let Some(target) = failed.target.filter(|target| !target.is_host_network()) else {
        return false;
    };
    let is_between = |path: &NarrowPath<'_>| {
        let there = (path.node, Some(path.other)) == (failed.node, target.node);
        let back = (path.other, Some(path.node)) == (failed.node, target.node);
        there || back
    };
    failed.answer == Answer::NoAnswer && !failed.from_host && paths.iter().any(is_between)
}

impl NarrowPath<'_> {
    /// `Pod shop/client on node n1`, and the other end.
    pub(crate) fn ends(&self) -> (String, String) {
        let end = |pod: &Pod, node: &str| format!("Pod {}/{} on node {node}", pod.namespace(), pod.name());
        (end(self.from, self.node), end(self.to, self.other))
    }
}
