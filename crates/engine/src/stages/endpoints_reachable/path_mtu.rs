//! Large packets that are lost between nodes: what was seen, and whose MTU is to be lowered.

use std::collections::BTreeSet;

use crate::{
    Finding,
    evidence::{
        Evidence,
        packet_sizes::{NarrowPath, narrow_paths},
    },
    stages::endpoints_reachable::between_nodes,
    text::{self, quoted},
};
use svcdiag_api::{LinkMtu, LinkRole, Reason, TunnelKind};

/// The finding where connections are made. Small requests work, and so do endpoints on the same node.
pub(super) fn judge(evidence: &Evidence<'_>) -> Option<Finding> {
    let (message, remediation) = describe(&narrow_paths(evidence))?;
    Some(Finding::part_fails(Reason::PathMTUTooSmall, message, remediation))
}

/// What is said of paths, and what to do.
pub(super) fn describe(paths: &[NarrowPath<'_>]) -> Option<(String, String)> {
    let first = paths.first()?;
    let (from, to) = first.ends();
    let mut message = format!(
        "UDP packets of {} bytes, as large as TCP sends them, are lost from {from} to {to}, and no ICMP message says that they are too large. Packets of up to {} bytes arrive. \
         So connections are made, and probably hang once they carry that much.",
        first.size.fails, first.size.passes
    );
    let links: Vec<String> = first.size.links.iter().map(describe_link).collect();
    if !links.is_empty() {
        message.push_str(&format!(" MTUs on node {}: {}.", first.node, links.join(", ")));
    }
    let others: BTreeSet<(&str, &str)> = paths.iter().map(|path| (path.node, path.other)).collect();
    let others: Vec<String> = others
        .iter()
        .filter(|of| **of != (first.node, first.other))
        .map(|(node, other)| format!("from node {node} to node {other}"))
        .collect();
    if !others.is_empty() {
        message.push_str(&format!(
            " Large packets are lost {} too.",
            text::list_of(&others, "path")
        ));
    }
    Some((message, remediation(first)))
}

/// `bridge cni0 1500`.
fn describe_link(link: &LinkMtu) -> String {
    let LinkMtu { name, mtu, .. } = link;
    match (link.role, link.tunnel) {
        (LinkRole::Pod, _) => format!("the Pod's {name} {mtu}"),
        (LinkRole::Bridge, _) => format!("bridge {name} {mtu}"),
        (LinkRole::Tunnel, Some(kind)) => format!("tunnel {name} ({}) {mtu}", between_nodes::name(kind)),
        (LinkRole::Tunnel, None) => format!("tunnel {name} {mtu}"),
        (LinkRole::Uplink, _) => format!("uplink {name} {mtu}"),
    }
}

fn remediation(path: &NarrowPath<'_>) -> String {
    let NarrowPath {
        node, other, size, ..
    } = path;
    let passes = size.passes;
    let look = format!(
        "`ip -d link` on node {} and on node {} shows the MTUs.",
        quoted(node),
        quoted(other)
    );
    let links: Vec<String> = size
        .links
        .iter()
        .filter(|link| {
            link.role == LinkRole::Tunnel && (u32::from(passes) + 1..=LARGEST_LINK).contains(&link.mtu)
        })
        .map(|link| format!("of tunnel {}", link.name))
        .collect();
    let links = match links.is_empty() {
        true => String::new(),
        false => format!(", and {},", text::list(&links)),
    };
    let why = why(path).map(|why| format!(" {why}")).unwrap_or_default();
    format!(
        "Lower the MTU of the Pods' links{links} to {passes} or less, in the configuration of the network plugin, and restart the Pods afterwards: links keep the MTU that they were created with.{why} {look}"
    )
}

fn uplink<'a>(path: &NarrowPath<'a>) -> Option<&'a LinkMtu> {
    path.size.links.iter().find(|link| link.role == LinkRole::Uplink)
}

/// Why no larger packets get through, as far as the links show it. With several tunnels it is not known which one takes the
/// packets, and with one it is the reason only if just what it leaves gets through.
fn why(path: &NarrowPath<'_>) -> Option<String> {
    let size = path.size;
    let uplink = uplink(path)?;
    let kinds: BTreeSet<TunnelKind> = size.links.iter().filter_map(|link| link.tunnel).collect();
    let left = |kind: TunnelKind| uplink.mtu.saturating_sub(overhead(kind));
    if let [kind] = kinds.iter().copied().collect::<Vec<_>>()[..] {
        let left = left(kind);
        if (left.saturating_sub(OPTIONS)..=left).contains(&u32::from(size.passes)) {
            return Some(format!(
                "{} adds {} bytes or more to each packet, which leaves at most {left} of the {} bytes that uplink {} takes.",
                between_nodes::name(kind),
                overhead(kind),
                uplink.mtu,
                uplink.name
            ));
        }
    }
    let room = kinds.into_iter().map(left).min().unwrap_or(uplink.mtu);
    (u32::from(size.fails) <= room).then(|| format!(
        "Uplink {} of node {} takes such packets ({} bytes), so something between the nodes does not: a router, a VPN or the cloud's network, or a firewall that drops large packets or the ICMP messages about them.",
        uplink.name, path.node, uplink.mtu
    ))
}

/// Links of hardware take less. What takes more was made so on purpose (genev_sys_6081 of Open vSwitch has 65000): the Pods'
/// links count there.
const LARGEST_LINK: u32 = 16_000;

/// Bytes that a tunnel may add beyond what it adds at least: options of Geneve, IPv6 outside.
const OPTIONS: u32 = 60;

/// Bytes that a tunnel adds to each packet at least: the headers of IPv4, and its own with those that it needs.
fn overhead(kind: TunnelKind) -> u32 {
    match kind {
        // Ethernet, VXLAN or Geneve, UDP, IPv4.
        TunnelKind::Vxlan | TunnelKind::Geneve => 14 + 8 + 8 + 20,
        // With the tag that authenticates the packet.
        TunnelKind::WireGuard => 16 + 16 + 8 + 20,
        TunnelKind::Ipip => 20,
        TunnelKind::Gre => 4 + 20,
    }
}
