//! Which file would have told, where all that is known comes from files.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{Facts, Finding, NodeReport, Origin, Saved, SavedText};
use svcdiag_api::{ConditionType as C, DialCount, DialPath, Reason};
use svcdiag_objects::{Open, Protocol};

/// Adds to an open question what to save and where.
pub(super) fn name(facts: &Facts, condition: C, mut finding: Finding) -> Finding {
    let looked: Vec<_> = facts.nodes.iter().filter(|n| n.probe.is_some()).collect();
    let are_files = !looked.is_empty() && looked.iter().all(|n| n.saved.is_some());
    if are_files && condition == C::EndpointsReachable && finding.reason == Reason::AllEndpointsAnswer {
        finding = if_all_were_dialled(facts, finding);
    }
    let is_open = matches!(finding.reason, Reason::NoVantagePoint | Reason::ProbeFailed);
    // Where the Service fails, how its endpoints answer is what would tell why.
    let told_by = match condition {
        C::ProxyForwards if looked.iter().any(|n| fails(n)) => C::EndpointsReachable,
        other => other,
    };
    if let Some(what) = missing(facts, told_by).filter(|_| are_files && is_open) {
        // What a parser says has no full stop.
        if !finding.message.ends_with('.') {
            finding.message.push('.');
        }
        finding.message.push_str(&format!(" To find out, {what}."));
    }
    finding
}

/// Whether a dial of a node to the Service failed.
fn fails(node: &NodeReport) -> bool {
    let seen = node.probe.as_ref().and_then(|p| p.facts.as_ref());
    let mut failures = seen.iter().flat_map(|seen| &seen.failures);
    failures.any(|f| f.from.is_none() && f.path == DialPath::Service)
}

/// Agents dial every endpoint; who types may have left some out.
fn if_all_were_dialled(facts: &Facts, finding: Finding) -> Finding {
    let left = not_dialled(facts);
    match left.first() {
        None => finding,
        Some(first) => Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The endpoints that were dialled answer, but {} not dialled, for example {first}.",
                match left.len() {
                    1 => "1 was".to_owned(),
                    n => format!("{n} were"),
                }
            ),
        ),
    }
}

/// Ready endpoints that nobody has dialled.
fn not_dialled(facts: &Facts) -> BTreeSet<String> {
    let dialled: BTreeSet<&str> = saved(facts)
        .flat_map(|s| &s.dialled)
        .map(String::as_str)
        .collect();
    let mut left: BTreeSet<String> = BTreeSet::new();
    for slice in &facts.slices {
        for (_, port) in slice.numbers(&Open::Known(Protocol::Tcp)) {
            left.extend(slice.ready().map(|(ip, _)| SocketAddr::new(ip, port).to_string()));
        }
    }
    left.retain(|endpoint| !dialled.contains(endpoint.as_str()));
    left
}

fn saved(facts: &Facts) -> impl Iterator<Item = &Saved> {
    facts.nodes.iter().filter_map(|n| n.saved.as_deref())
}

/// What to do for a stage that is open. What is there already is not asked for: why it did not tell enough is in the message.
fn missing(facts: &Facts, condition: C) -> Option<String> {
    match condition {
        C::EndpointsReachable => endpoint_dials(facts),
        C::KubeProxyHealthy => on_nodes(
            facts,
            &[
                (
                    SavedText::Processes,
                    "the output of `ps auxw` (nodes/NODE/ps.txt)",
                ),
                (
                    SavedText::KubeProxyLog,
                    "the log of kube-proxy (nodes/NODE/kube-proxy.log)",
                ),
            ],
        ),
        C::ProxyRulesPresent => on_nodes(
            facts,
            &[(
                SavedText::Rules,
                "the output of `iptables-save`, `nft list ruleset` or `ipvsadm -ln` on the node (nodes/NODE/iptables-save.txt, nft.txt or ipvsadm.txt)",
            )],
        ),
        C::ProxyForwards => service_dials(facts, Origin::Node, "run on the node (nodes/NODE/curl.txt)"),
        C::ServiceReachable => service_dials(
            facts,
            Origin::Client,
            "run in a client Pod (pods/NAMESPACE/NAME/curl.txt)",
        ),
        C::DNSResolves => lookups(facts),
        _ => None,
    }
}

/// Texts that a node lacks, of those of which anything was saved.
fn on_nodes(facts: &Facts, texts: &[(SavedText, &str)]) -> Option<String> {
    let with_texts = facts
        .nodes
        .iter()
        .filter_map(|n| Some((&*n.name, n.saved.as_deref()?)));
    let nodes: Vec<(&str, &Saved)> = with_texts
        .filter(|(_, saved)| saved.texts.iter().any(|text| text.is_of_node()))
        .collect();
    let asked = texts.iter().filter_map(|(text, what)| {
        let has = |(_, saved): &&(&str, &Saved)| saved.texts.contains(text);
        match nodes.iter().find(|node| !has(node)) {
            None if nodes.is_empty() => Some((*what).to_owned()),
            None => None,
            Some(_) if !nodes.iter().any(|node| has(&node)) => Some((*what).to_owned()),
            Some((node, _)) => Some(what.replace("NODE", node)),
        }
    });
    let asked: Vec<String> = asked.collect();
    (!asked.is_empty()).then(|| format!("save {}", asked.join(" and ")))
}

fn endpoint_dials(facts: &Facts) -> Option<String> {
    const WHERE: &str =
        "run on its node (nodes/NODE/curl.txt) or in a client Pod (pods/NAMESPACE/NAME/curl.txt)";
    let left = not_dialled(facts);
    let are_some_dialled = saved(facts).any(|s| !s.dialled.is_empty());
    match left.first() {
        _ if !are_some_dialled && saved(facts).any(|s| s.silent_endpoint) => Some(format!(
            "repeat the request so that it says how it ends, `curl -v IP:PORT`, {WHERE}"
        )),
        _ if !are_some_dialled => Some(format!(
            "save the output of `curl IP:PORT` for each endpoint, {WHERE}"
        )),
        None => None,
        Some(first) if left.len() == 1 => Some(format!("save the output of `curl {first}`, {WHERE}")),
        Some(first) => Some(format!(
            "save the output of `curl {first}`, and of the same for the other endpoints, {WHERE}"
        )),
    }
}

fn service_dials(facts: &Facts, origin: Origin, place: &str) -> Option<String> {
    let seen = facts
        .nodes
        .iter()
        .filter_map(|n| n.probe.as_ref()?.facts.as_ref());
    let mut dials = seen.flat_map(|seen| &seen.dials);
    let is_it = |d: &DialCount| Origin::of(d) == origin && d.path != DialPath::Endpoint;
    if dials.any(is_it) {
        return None;
    }
    // Without an error and without a body, nobody knows what became of it.
    Some(match saved(facts).any(|s| s.silent.contains(&origin)) {
        true => format!("repeat the request so that it says how it ends, `curl -v CLUSTER-IP:PORT`, {place}"),
        false => format!("save the output of `curl CLUSTER-IP:PORT`, {place}"),
    })
}

fn lookups(facts: &Facts) -> Option<String> {
    const WHERE: &str = "run in a client Pod (pods/NAMESPACE/NAME/nslookup.txt)";
    const CONF: &str = "resolv.conf of the client Pod (pods/NAMESPACE/NAME/resolv.conf)";
    let name = &facts.spec.service_name;
    let is_short =
        |looked_up: &str| *looked_up == **name || looked_up == format!("{name}.{}", facts.namespace);
    let is_long = |looked_up: &str| looked_up.starts_with(&format!("{name}.{}.", facts.namespace));
    let seen = facts
        .nodes
        .iter()
        .filter_map(|n| n.probe.as_ref()?.facts.as_ref());
    let looked_up: Vec<&str> = seen
        .flat_map(|seen| &seen.resolvers)
        .flat_map(|r| &r.lookups)
        .map(|l| l.name.as_str())
        .collect();
    let has_short = looked_up.iter().any(|name| is_short(name));
    let has_conf = saved(facts).any(|s| s.texts.contains(&SavedText::ResolvConf));
    Some(
        match (has_short, looked_up.iter().any(|name| is_long(name)), has_conf) {
            (true, _, true) => return None,
            (true, _, false) => format!("save {CONF}"),
            (false, true, true) => {
                format!("save the output of `nslookup` for the Service's short name, {WHERE}")
            }
            (false, true, false) => {
                format!("save the output of `nslookup` for the Service's short name, {WHERE}, and {CONF}")
            }
            (false, false, _) => format!(
                "save the output of `nslookup` or `getent hosts` for the Service's names, {WHERE}, and its resolv.conf"
            ),
        },
    )
}
