//! Dials that are lost through the Service alone, and what masquerading has to do with it: with which source address the
//! packets left the node, and with which the node reaches the endpoint directly.

use std::{
    collections::BTreeSet,
    mem,
    net::{IpAddr, SocketAddr},
};

use crate::{
    evidence::{Evidence, dials::Failed},
    text::{self, quoted},
};
use svcdiag_api::{Answer, Departure};

/// What is known of the source address of packets that were lost.
enum Source {
    /// The node does not masquerade its own packets, though what it sends directly has another source.
    NotMasqueraded { left_as: IpAddr, direct: IpAddr },
    /// They have the source of what the node sends directly, so that nothing but the translation is different.
    OnlyTranslated { left_as: IpAddr },
    /// They are masqueraded, and have another source than what the node sends directly.
    ToAnotherAddress { left_as: IpAddr, direct: IpAddr },
    /// They are a Pod's, are masqueraded, and what it sends directly is not.
    OfPod { pod: String, left_as: IpAddr },
}

/// What masquerading has to do with failures.
pub(crate) struct Masquerading {
    /// What is known, as a sentence.
    pub said: String,
    /// What to do.
    pub remediation: String,
    /// Whether answers go to another address than those to a direct dial, so that they may take another way.
    pub changes_the_way_back: bool,
}

/// What is known of it. Nothing where packets left in different ways, or nothing is known of those of a node or a client: of
/// many failures agents look at some.
pub(crate) fn masquerading(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<Masquerading> {
    let known = failures
        .iter()
        .filter_map(|failed| Some((*failed, source(evidence, failed)?)));
    let known: Vec<(&Failed<'_>, Source)> = known.collect();
    let (first, source) = known.first()?;
    let is_alike = |other: &Source| mem::discriminant(other) == mem::discriminant(source);
    let is_known = |failed: &Failed<'_>| {
        let mut known = known.iter();
        known.any(|(of, _)| (of.node, &of.dial.from) == (failed.node, &failed.dial.from))
    };
    if !known.iter().all(|(_, other)| is_alike(other)) || !failures.iter().all(|failed| is_known(failed)) {
        return None;
    }
    let mut said = source.describe(first.node, first.endpoint?);
    let others: BTreeSet<&str> = failures.iter().map(|failed| failed.node).collect();
    let others: Vec<&str> = others.into_iter().filter(|node| *node != first.node).collect();
    if !others.is_empty() {
        said.push_str(&format!(" The same is true of {}.", text::nodes(&others)));
    }
    Some(Masquerading {
        said,
        remediation: source.remediation(evidence, first.node),
        changes_the_way_back: matches!(
            source,
            Source::NotMasqueraded { .. } | Source::ToAnotherAddress { .. }
        ),
    })
}

/// Whether a node that was lost on its way through the Service reaches that endpoint past it; None if it did not try.
pub(crate) fn reaches_directly(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<bool> {
    let direct = departure(evidence, failed)?.direct.as_ref()?;
    Some(direct.answer == Answer::Accepted)
}

/// How packets of a dial left the node.
fn departure<'a>(evidence: &Evidence<'a>, failed: &Failed<'_>) -> Option<&'a Departure> {
    let endpoint = failed.endpoint.filter(|_| failed.answer == Answer::TimedOut)?;
    let mut reports = evidence.reports.current.iter();
    let report = reports.find(|report| report.node == failed.node)?;
    report.facts.departures.iter().find(|of| {
        of.from == failed.dial.from && of.target == failed.dial.target && of.endpoint.parse() == Ok(endpoint)
    })
}

/// What that shows: only where the endpoint answers past the Service.
fn source(evidence: &Evidence<'_>, failed: &Failed<'_>) -> Option<Source> {
    let departure = departure(evidence, failed)?;
    let left_as: IpAddr = departure.left_as.parse().ok()?;
    let is_masqueraded = departure.source.parse() != Ok(left_as);
    match &departure.from {
        Some(pod) => (is_masqueraded && answers_directly(evidence, failed)).then(|| Source::OfPod {
            pod: pod.clone(),
            left_as,
        }),
        None => of_node(departure, left_as, is_masqueraded),
    }
}

fn of_node(departure: &Departure, left_as: IpAddr, is_masqueraded: bool) -> Option<Source> {
    let dial = departure.direct.as_ref();
    let direct = dial.filter(|dial| dial.answer == Answer::Accepted)?;
    let direct: IpAddr = direct.source.parse().ok()?;
    match (is_masqueraded, left_as == direct) {
        (false, false) => Some(Source::NotMasqueraded { left_as, direct }),
        (true, true) => Some(Source::OnlyTranslated { left_as }),
        (true, false) => Some(Source::ToAnotherAddress { left_as, direct }),
        // Where the node has one address for all, there is nothing to masquerade.
        (false, true) => None,
    }
}

/// Whether the client that was lost through the Service gets an answer from endpoints on other nodes past it.
fn answers_directly(evidence: &Evidence<'_>, failed: &Failed<'_>) -> bool {
    let mut counts = evidence.direct.counts.iter();
    counts.any(|count| {
        count.node == failed.node
            && count.from == failed.dial.from.as_deref()
            && count.port == failed.dial.port
            && count.same_node == Some(false)
            && count.succeeded > 0
    })
}

impl Source {
    fn describe(&self, node: &str, endpoint: SocketAddr) -> String {
        match self {
            Self::NotMasqueraded { left_as, direct } => format!(
                "Node {node} itself reaches {endpoint} directly, with the source address {direct}. Through the Service its packets leave with {left_as}: they are not masqueraded, so answers go to that address instead."
            ),
            Self::OnlyTranslated { left_as } => format!(
                "Node {node} itself reaches {endpoint} directly, with the same source address ({left_as}) as its packets through the Service have, so only packets that the node translates are lost."
            ),
            Self::ToAnotherAddress { left_as, direct } => format!(
                "Node {node} itself reaches {endpoint} directly, with the source address {direct}. Through the Service its packets are masqueraded and leave with {left_as}, so answers go to that address instead."
            ),
            Self::OfPod { pod, left_as } => format!(
                "Pod {pod} reaches endpoints on other nodes directly. Through the Service its packets are masqueraded and leave node {node} with the source address {left_as}, and only these are lost."
            ),
        }
    }

    fn remediation(&self, evidence: &Evidence<'_>, node: &str) -> String {
        let on = quoted(node);
        match self {
            Self::NotMasqueraded { .. } => format!(
                "Set clusterCIDR, or another detectLocalMode, in kube-proxy's configuration: without it kube-proxy does not know which addresses belong to Pods, and masquerades nothing that the node itself sends. \
                 If it is set, look on node {on} for a rule that comes first: `nft list ruleset` (and `iptables-legacy-save`)."
            ),
            Self::OnlyTranslated { .. } => format!("Check whether {}", checksums(evidence, node)),
            Self::ToAnotherAddress { left_as, .. } => format!(
                "Find the rule that translates the source to {left_as} on node {on}, for example of the network plugin or of ip-masq-agent, and have it leave out packets to Pods: `nft list ruleset` (and `iptables-legacy-save`), SNAT or MASQUERADE in POSTROUTING."
            ),
            Self::OfPod { .. } => format!(
                "Find out why node {on} masquerades packets of its Pods to the Service: masqueradeAll, or a clusterCIDR without their addresses, in kube-proxy's configuration. Check also whether {}",
                checksums(evidence, node)
            ),
        }
    }
}

/// What a saved output of ethtool says of it.
fn saved_offload(evidence: &Evidence<'_>, node: &str) -> String {
    let saved = evidence.facts.nodes.iter().find(|n| *n.name == *node);
    let links = saved.and_then(|n| n.saved.as_ref()).map(|s| &s.checksum_offload);
    let said = links.into_iter().flatten().map(|(link, is_on)| {
        let state = if *is_on { "on" } else { "off" };
        format!("{state} for {}", quoted(link))
    });
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => String::new(),
        false => format!(" It was {} when that was saved.", text::list(&said)),
    }
}

/// What to check where translated packets are lost: they get new checksums, which the card computes, or should.
pub(crate) fn checksums(evidence: &Evidence<'_>, node: &str) -> String {
    let mut reports = evidence.reports.current.iter();
    let tunnels = reports
        .find(|report| report.node == node)
        .and_then(|report| report.facts.tunnels.as_deref())
        .unwrap_or_default();
    let links: Vec<String> = tunnels.iter().map(|tunnel| quoted(&tunnel.name)).collect();
    let whose = match links.len() {
        0 => "the tunnel's link (`ip -d link`)".to_owned(),
        _ => text::list(&links),
    };
    format!(
        "the checksums of translated packets survive the tunnel: on node {}, see `ethtool -k` for {whose}, where tx-checksum-ip-generic may have to be off.{}",
        quoted(node),
        saved_offload(evidence, node)
    )
}
