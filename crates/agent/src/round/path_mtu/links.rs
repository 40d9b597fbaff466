//! The MTUs of the links that a Pod's packets may take on its node.

use std::io;

use crate::round::{LocalPod, Round};
use svcdiag_api::{LinkMtu, LinkRole};
use svcdiag_netns::links::{self, Link};

/// Tunnels that are reported; network plugins have one or two.
const MAX_TUNNELS: usize = 4;

/// The links, in the order in which packets may take them. What could not be read becomes a problem.
pub(super) async fn of(round: &Round<'_>, client: &LocalPod<'_>) -> Vec<LinkMtu> {
    let problem = |error: &io::Error| {
        round.problem(format!(
            "The MTUs of the node's links could not be read: {error}."
        ));
    };
    read(round, client).await.inspect_err(problem).unwrap_or_default()
}

async fn read(round: &Round<'_>, client: &LocalPod<'_>) -> io::Result<Vec<LinkMtu>> {
    let inside = client.netns.visit(links::links_of_pod).await?;
    let outside = round.node.netns.visit(links::links).await?;
    let addresses = round.node.netns.visit(links::addresses_of_links).await?;
    let of_pod = inside.iter().find(|link| link.name == "eth0");
    let numbered = |index: Option<u32>| outside.iter().find(|link| Some(link.index) == index);
    let bridge = numbered(numbered(of_pod.and_then(|link| link.peer)).and_then(|port| port.bridge));
    let mut tunnels: Vec<&Link> = outside.iter().filter(|link| link.tunnel.is_some()).collect();
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    tunnels.truncate(MAX_TUNNELS);
    let own = addresses
        .iter()
        .find(|(_, ip)| round.subject.node_ips.contains(ip));
    // Nodes whose routers find them by BGP may have their address on the loopback.
    let uplink = numbered(own.map(|(index, _)| *index)).filter(|link| link.name != "lo");
    let links = of_pod
        .map(|link| (LinkRole::Pod, link))
        .into_iter()
        .chain(bridge.map(|link| (LinkRole::Bridge, link)))
        .chain(tunnels.into_iter().map(|link| (LinkRole::Tunnel, link)))
        .chain(uplink.map(|link| (LinkRole::Uplink, link)));
    let with_mtu = links.filter_map(|(role, link)| {
        Some(LinkMtu {
            role,
            name: link.name.clone(),
            mtu: link.mtu?,
            tunnel: link.tunnel,
        })
    });
    Ok(with_mtu.collect())
}
