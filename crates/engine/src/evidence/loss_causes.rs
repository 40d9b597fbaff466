//! What probably loses packets at times, by the counters of the kernel that rose with the losses.
//!
//! A counter has the packets of everybody: what rose when packets were lost need not have been these. So the causes are
//! probable, but for a full table, which the counter proves.

use std::collections::BTreeMap;

use crate::text;
use svcdiag_api::{LossCounterName, LossyPath, PathLoss};

/// Causes that are described; more of them would explain less.
const MAX_CAUSES: usize = 3;

/// Something that counts: the conntrack of a node, the network of a node or of a Pod there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    node: &'a str,
    pod: Option<&'a str>,
}

/// By how much counters rose in a place. Several paths may have seen the same packets.
type Rises = BTreeMap<LossCounterName, u32>;

/// What the counters beside losses say, of the first losses first, as sentences with a space before each; nothing where none rose.
pub(super) fn describe(losses: &[(&str, &PathLoss)]) -> String {
    let is_dns = losses.iter().any(|(_, loss)| loss.path == LossyPath::DNS);
    let mut places: Vec<(Place<'_>, Rises)> = Vec::new();
    for (node, loss) in losses {
        for counter in loss.counters.iter().filter(|counter| counter.rose > 0) {
            let pod = counter.pod.as_deref();
            let place = Place { node, pod };
            let rose = (counter.counter, counter.rose);
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, rises)) => {
                    let known = rises.entry(rose.0).or_default();
                    *known = rose.1.max(*known);
                }
                None => places.push((place, [rose].into())),
            }
        }
    }
    let causes = places
        .iter()
        .flat_map(|(place, rises)| causes(*place, rises, is_dns));
    causes.take(MAX_CAUSES).map(|said| format!(" {said}")).collect()
}

fn causes(place: Place<'_>, rises: &Rises, is_dns: bool) -> impl Iterator<Item = String> {
    let rose = |name| rises.get(&name).copied();
    let conntrack = [
        full_table(
            place,
            rose(LossCounterName::ConntrackTableFull),
            rose(LossCounterName::ConntrackEarlyDrop),
        ),
        rose(LossCounterName::ConntrackInsertFailed).map(|rose| collisions(place, rose, is_dns)),
    ];
    let others = [
        rose(LossCounterName::UDPChecksumErrors).map(|rose| checksums(place, rose)),
        rose(LossCounterName::UDPReceiveBufferErrors).map(|rose| receive_buffer(place, rose)),
        rose(LossCounterName::ListenOverflows).map(|rose| accept_queue(place, rose)),
    ];
    // The conntrack of a node is nobody else's.
    let conntrack = conntrack.into_iter().filter(move |_| place.pod.is_none());
    conntrack.chain(others).flatten()
}

fn full_table(place: Place<'_>, dropped: Option<u32>, evicted: Option<u32>) -> Option<String> {
    let node = place.node;
    let seen = match (evicted, dropped) {
        (Some(evicted), Some(dropped)) => format!(
            "In the same rounds the conntrack table of node {node} was full: {} had no room (drop), and connections not yet established were removed {} for new ones (early_drop).",
            packets(dropped),
            times(evicted)
        ),
        (Some(evicted), None) => format!(
            "In the same rounds the conntrack table of node {node} was full: connections not yet established were removed {} for new ones (early_drop).",
            times(evicted)
        ),
        (None, Some(dropped)) => format!(
            "In the same rounds conntrack on node {node} dropped {} (drop), probably because its table was full.",
            packets(dropped)
        ),
        (None, None) => return None,
    };
    Some(format!(
        "{seen} `conntrack -L` there shows who fills it. If it is too small, run `sysctl -w net.netfilter.nf_conntrack_max=$((2 * $(sysctl -n net.netfilter.nf_conntrack_max)))` on node {node} to double its size until the next boot or start of kube-proxy; conntrack.maxPerCore in kube-proxy's configuration lasts."
    ))
}

fn collisions(place: Place<'_>, rose: u32, is_dns: bool) -> String {
    let (node, packets) = (place.node, packets(rose));
    match is_dns {
        true => format!(
            "In the same rounds conntrack on node {node} dropped {packets} because connections collided (insert_failed). Clients that ask for A and AAAA over one socket lose answers by that (kubernetes/kubernetes issue 56903); svcdiag, which asks one question over each, need not have lost its own so. NodeLocal DNSCache avoids it, and so does the option single-request-reopen in resolv.conf for clients with glibc. `conntrack -S` on node {node} shows the counter."
        ),
        false => format!(
            "In the same rounds conntrack on node {node} dropped {packets} because connections collided (insert_failed). Probably they are masqueraded to the same port at the same moment, which --random-fully makes rare if the masquerading rule lacks it. `conntrack -S` on node {node} shows the counter."
        ),
    }
}

fn checksums(place: Place<'_>, rose: u32) -> String {
    format!(
        "In the same rounds {} dropped {} for wrong checksums (InCsumErrors). Probably a network card or a tunnel on the way computes them wrongly: `ethtool -k` shows the checksum offload of a link.",
        network(place),
        udp_packets(rose)
    )
}

fn receive_buffer(place: Place<'_>, rose: u32) -> String {
    format!(
        "In the same rounds {} dropped {} because the receive buffer of a socket was full (RcvbufErrors). Probably the DNS server there is overloaded.",
        network(place),
        udp_packets(rose)
    )
}

fn accept_queue(place: Place<'_>, rose: u32) -> String {
    format!(
        "In the same rounds {} dropped {} because an accept queue was full (ListenOverflows). Probably the application accepts connections too slowly.",
        network(place),
        number_of(rose, "connection")
    )
}

/// In whose network packets were dropped.
fn network(place: Place<'_>) -> String {
    match place.pod {
        Some(pod) => format!("Pod {pod} on node {}", place.node),
        None => format!("node {}", place.node),
    }
}

fn packets(n: u32) -> String {
    number_of(n, "packet")
}

fn udp_packets(n: u32) -> String {
    number_of(n, "UDP packet")
}

fn times(n: u32) -> String {
    number_of(n, "time")
}

fn number_of(n: u32, noun: &str) -> String {
    text::count(usize::try_from(n).unwrap_or(usize::MAX), noun)
}
