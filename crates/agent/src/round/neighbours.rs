//! Endpoints' Pods of this node that do not answer: whether their packets are sent to the Pod's own link-layer address.
//!
//! Nothing is sent to find that out, and no raw packets are needed: the kernel has asked for the address when the endpoint was
//! dialled, and its neighbour table has whoever answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use futures::future::join_all;
use svcdiag_api::{DialFailure, DialPath, WrongNeighbour};
use svcdiag_netns::{
    Netns, links,
    neighbours::{self, LinkAddress},
};

use super::{LocalPod, Round};

/// Origins and Pods that are looked at: failures tend to be alike.
const MAX_NEIGHBOURS: usize = 8;

pub(super) async fn probe(round: &Round<'_>, failures: &[DialFailure]) -> Vec<WrongNeighbour> {
    let failed = failures.iter().filter_map(|failure| {
        let endpoint: SocketAddr = failure.endpoint.as_deref()?.parse().ok()?;
        // What goes through the Service is sent to the endpoint by the node.
        let from = failure
            .from
            .as_deref()
            .filter(|_| failure.path == DialPath::Endpoint);
        (failure.same_node == Some(true)).then_some((from, endpoint.ip()))
    });
    let failed: BTreeSet<(Option<&str>, IpAddr)> = failed.collect();
    let wrong = failed
        .into_iter()
        .take(MAX_NEIGHBOURS)
        .map(|(from, ip)| wrong(round, from, ip));
    join_all(wrong).await.into_iter().flatten().collect()
}

async fn wrong(round: &Round<'_>, from: Option<&str>, ip: IpAddr) -> Option<WrongNeighbour> {
    let has_ip = |pod: &&LocalPod<'_>| pod.pod.ips.iter().any(|own| own.parse() == Ok(ip));
    let pod = round
        .endpoints
        .iter()
        .filter(|pod| !pod.pod.host_network)
        .find(has_ip)?;
    let origin = match from {
        Some(key) => &round.clients.iter().find(|client| client.key == key)?.netns,
        None => &round.node.netns,
    };
    let (own, all) = own_addresses(&pod.netns, ip).await.ok()??;
    let sent_to = sent_to(origin, ip).await.ok()??;
    // An interface answers for the addresses of the others as well (arp_ignore).
    (!all.contains(&sent_to)).then(|| WrongNeighbour {
        from: from.map(str::to_owned),
        pod: pod.key.clone(),
        ip: ip.to_string(),
        sent_to: sent_to.to_string(),
        own: own.to_string(),
    })
}

/// The link-layer address of the interface that has an IP address, and those of all interfaces beside it. There is none where
/// a virtual machine in the Pod has the IP address.
async fn own_addresses(pod: &Netns, ip: IpAddr) -> io::Result<Option<(LinkAddress, Vec<LinkAddress>)>> {
    let find = move || {
        let addresses = links::addresses_of_links()?;
        let Some((index, _)) = addresses.into_iter().find(|(_, own)| *own == ip) else {
            return Ok(None);
        };
        let links = links::links_of_pod()?;
        let own = links.iter().find(|link| link.index == index);
        let all = links.iter().filter_map(|link| link.address).collect();
        Ok(own.and_then(|own| own.address).zip(Some(all)))
    };
    pod.visit(find).await
}

async fn sent_to(from: &Netns, ip: IpAddr) -> io::Result<Option<LinkAddress>> {
    let find = move || neighbours::of(&BTreeSet::from([ip]));
    let found: BTreeMap<IpAddr, LinkAddress> = from.visit(find).await?;
    Ok(found.get(&ip).copied())
}
