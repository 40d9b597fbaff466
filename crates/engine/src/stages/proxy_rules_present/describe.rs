//! What is said of the faults of one reason. Each command stands beside the nodes that it is for: what fits the rules
//! of one node may do harm on another.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Finding,
    evidence::{Evidence, proxies, reports::Report},
    stages::proxy_rules_present::{
        remediation::{self, Gap, HeldPort},
        survey::Fault,
    },
    text::{self, SHOWN},
};
use svcdiag_api::{GapKind, Reason};
use svcdiag_kube_proxy::Backend;

/// A message, and what to do.
type Description = (String, String);

pub(super) fn build(evidence: &Evidence<'_>, reason: Reason, faults: &[&Fault<'_>]) -> Finding {
    let (message, remediation) = match reason {
        Reason::ConflictingBackends => conflicts(faults, |on, own, other| {
            format!(
                "On {on}, both iptables backends hold rules for the Service's addresses. kube-proxy uses {}, so those in {} are leftovers.",
                backend(own),
                backend(other)
            )
        }),
        Reason::ConflictingModes => conflicts(faults, |on, own, other| {
            format!(
                "On {on}, rules of another kube-proxy mode also match the Service's addresses. kube-proxy uses {own}, so those in {other} are leftovers."
            )
        }),
        Reason::EndpointsDrained => (
            format!(
                "In kube-proxy's IPVS rules, ready endpoints have weight 0, so they get no new connections: {}.",
                gaps(faults)
            ),
            remediation::weights(&by_gap(faults)),
        ),
        Reason::StaleEndpointInRules => stale(faults),
        Reason::NodeNameMismatch => other_name(faults),
        Reason::NodePortInUse => in_use(faults),
        Reason::EndpointMissingFromRules => (
            format!("kube-proxy's rules lack ready endpoints: {}.", gaps(faults)),
            rewrite(faults),
        ),
        Reason::RulesMissing => (
            format!("Rules for the Service are missing: {}.", gaps(faults)),
            rewrite(faults),
        ),
        _ => (
            format!("Rules for the node port are missing: {}.", gaps(faults)),
            rewrite(faults),
        ),
    };
    let message = format!("{message}{}", write_failures(faults));
    let nodes: BTreeSet<&str> = faults.iter().map(|f| f.report.node).collect();
    if evidence.leaves_nothing(&nodes) {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    }
}

/// The program of a backend of iptables, which tells it from the other one.
fn backend(layout: &str) -> &str {
    match Backend::parse(layout) {
        Some(Backend::IptablesNft) => "iptables-nft",
        _ => layout,
    }
}

/// Rules in another layout than kube-proxy's own. Nodes with the same pair of layouts are named together: the command
/// that flushes the leftovers of one pair flushes kube-proxy's own rules of another.
fn conflicts(faults: &[&Fault<'_>], describe: impl Fn(&str, &str, &str) -> String) -> Description {
    let mut pairs: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for fault in faults {
        let other = fault.rules.conflict.as_deref().unwrap_or_default();
        let nodes = pairs.entry((&fault.rules.layout, other)).or_default();
        nodes.push(fault.report.node);
    }
    let described = pairs.iter().take(SHOWN).map(|((own, other), nodes)| {
        let on = text::nodes(nodes);
        (
            describe(&on, own, other),
            remediation::empty_entrance(Backend::parse(own), Backend::parse(other), &on),
        )
    });
    let (messages, remediations): (Vec<String>, Vec<String>) = described.unzip();
    (messages.join(" "), remediations.join(" "))
}

/// Endpoints that are gone. Those that affinity keeps in the rules of ipvs are not removed by a restart.
fn stale(faults: &[&Fault<'_>]) -> Description {
    let is_stuck = |f: &&Fault<'_>| f.gap.is_some_and(|gap| gap.kind == GapKind::EndpointStuck);
    let (stuck, left): (Vec<&Fault<'_>>, Vec<&Fault<'_>>) = faults.iter().copied().partition(is_stuck);
    let mut described = Vec::new();
    if !stuck.is_empty() {
        described.push((
            format!(
                "Session affinity keeps clients on endpoints that are gone, but are still in the IPVS rules with weight 0: {}.",
                gaps(&stuck)
            ),
            remediation::expire(&by_gap(&stuck), &on(&stuck)),
        ));
    }
    if !left.is_empty() {
        described.push((
            format!(
                "kube-proxy's rules still lead to endpoints that are gone: {}.",
                gaps(&left)
            ),
            rewrite(&left),
        ));
    }
    let (messages, remediations): (Vec<String>, Vec<String>) = described.into_iter().unzip();
    (messages.join(" "), remediations.join(" "))
}

/// kube-proxies that do not know which endpoints are on their own node.
fn other_name(faults: &[&Fault<'_>]) -> Description {
    let reports = reports(faults);
    let names: Vec<String> = reports
        .iter()
        .map(|report| {
            let proxy = report.facts.kube_proxy.as_ref();
            let name = proxy.and_then(|p| p.node_name.as_deref()).unwrap_or_default();
            format!("{name} instead of {}", report.node)
        })
        .collect();
    (
        format!(
            "kube-proxy on {} does not run under the name of its Node ({}), so it treats the endpoints there as remote, and their rules are missing: {}.",
            on(faults),
            text::list(&names),
            gaps(faults)
        ),
        proxies::under_own_name(&reports),
    )
}

/// Node ports without rules on which another process listens.
fn in_use(faults: &[&Fault<'_>]) -> Description {
    let mut ports: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (node, gap) in faults.iter().filter_map(|f| Some((f.report.node, f.gap?))) {
        let nodes = ports.entry((&gap.destination, &gap.detail)).or_default();
        nodes.insert(node);
    }
    let held = ports.into_iter().map(|((port, detail), nodes)| {
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let on = text::nodes(&nodes);
        HeldPort { port, detail, on }
    });
    let held: Vec<HeldPort<'_>> = held.collect();
    let each: Vec<String> = held
        .iter()
        .map(|HeldPort { port, detail, on }| format!("{port} on {on} ({detail})"))
        .collect();
    let (each, remediation) = (text::list(&each), remediation::node_ports(&held));
    // Versions of kube-proxy that listen on node ports say in their log that they could not.
    match faults.iter().all(|f| f.report.saved.is_some()) {
        true => (
            format!("Another process uses a node port of the Service, so kube-proxy does not serve {each}."),
            format!("{remediation} A restart of kube-proxy alone changes nothing."),
        ),
        false => (
            format!(
                "Rules for the node port are missing, and connections to it reach another process that listens there: {each}."
            ),
            format!("{remediation} {}", rewrite(faults)),
        ),
    }
}

/// Why kube-proxy could not write rules since changes became pending, as far as its counters tell.
fn write_failures(faults: &[&Fault<'_>]) -> String {
    let each: Vec<String> = reports(faults)
        .iter()
        .filter_map(|report| {
            let why = report.facts.kube_proxy.as_ref()?.sync_error.as_deref()?;
            Some(format!(
                " kube-proxy on node {} fails to write rules: {why}.",
                report.node
            ))
        })
        .take(SHOWN)
        .collect();
    each.concat()
}

/// How the rules are written again, with a command for each way in which kube-proxy is run on the nodes.
fn rewrite(faults: &[&Fault<'_>]) -> String {
    let fails = |report: &&Report<'_>| {
        let proxy = report.facts.kube_proxy.as_ref();
        proxy.is_some_and(|p| p.sync_error.is_some())
    };
    let (failing, others): (Vec<&Report<'_>>, Vec<&Report<'_>>) =
        reports(faults).into_iter().partition(fails);
    let read = proxies::for_each_way_to_run(&failing, |first, others| {
        format!(
            "The log of kube-proxy on node {} names the rule, the program or the kernel feature that fails: {}.{others} Until that is fixed, a restart changes nothing.",
            first.node,
            proxies::logs(first)
        )
    });
    let restart = proxies::for_each_way_to_run(&others, |first, others| {
        format!("{}{others}", proxies::rewrite(first))
    });
    match (read.is_empty(), restart.is_empty()) {
        (false, false) => format!("{read} {restart}"),
        _ => read + &restart,
    }
}

/// What is wrong, each thing once, with the nodes where it is.
fn gaps(faults: &[&Fault<'_>]) -> String {
    let each: Vec<String> = by_gap(faults)
        .iter()
        .map(|(gap, on)| match gap.endpoint {
            Some(endpoint) => format!("endpoint {endpoint} of {} on {on}", gap.destination),
            None => format!("{} on {on}", gap.destination),
        })
        .collect();
    text::list(&each)
}

/// The differences, each with the nodes that have it.
fn by_gap<'a>(faults: &[&Fault<'a>]) -> Vec<(Gap<'a>, String)> {
    let mut found: BTreeMap<Gap<'a>, BTreeSet<&str>> = BTreeMap::new();
    for (node, gap) in faults.iter().filter_map(|f| Some((f.report.node, f.gap?))) {
        let gap = Gap {
            destination: &gap.destination,
            endpoint: gap.endpoint.as_deref(),
        };
        found.entry(gap).or_default().insert(node);
    }
    let with_nodes = |(gap, nodes): (Gap<'a>, BTreeSet<&str>)| {
        let nodes: Vec<&str> = nodes.into_iter().collect();
        (gap, text::nodes(&nodes))
    };
    found.into_iter().map(with_nodes).collect()
}

/// The nodes that have faults.
fn on(faults: &[&Fault<'_>]) -> String {
    let nodes: Vec<&str> = reports(faults).iter().map(|r| r.node).collect();
    text::nodes(&nodes)
}

/// The reports of these nodes, each once.
fn reports<'b, 'a>(faults: &[&Fault<'a>]) -> Vec<&'b Report<'a>>
where
    'a: 'b,
{
    let by_node: BTreeMap<&str, &Report<'a>> = faults.iter().map(|f| (f.report.node, f.report)).collect();
    by_node.into_values().collect()
}
