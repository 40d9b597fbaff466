//! Is kube-proxy writing the rules of this Service?

mod describe;
mod leftovers;
mod remediation;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts, Finding, applicable,
    evidence::{
        Evidence,
        proxies::{self, Proxy},
        reports::Report,
        targets::node_has_family,
    },
    stages::proxy_rules_present::leftovers::Leftover,
    text,
};
use svcdiag_api::{ConditionType, DialPath, GapKind, Reason, RuleGap, Rules};
use svcdiag_kube_proxy::{Backend, Destination, ExpectedPort, ProxyMode, Purpose, Traffic, expected};
use svcdiag_objects::{Object, Service};

const WHAT: &str = "The rules of kube-proxy were not read";

/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Something wrong on a node.
struct Fault<'a> {
    report: &'a Report<'a>,
    reason: Reason,
    rules: &'a Rules,
    gap: Option<&'a RuleGap>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if let Some(finding) = applicable::not_proxied(facts) {
        return finding;
    }
    let reports = &evidence.reports;
    if let Some(finding) = reports.nobody(WHAT) {
        return finding;
    }
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    let mut faults: Vec<Fault> = Vec::new();
    let mut is_stale = false;
    let mut hints: BTreeSet<String> = BTreeSet::new();
    let mut right: Vec<&str> = Vec::new();
    let mut unread: Vec<&str> = Vec::new();
    let mut other_modes: BTreeSet<ProxyMode> = BTreeSet::new();
    let mut leftovers: Vec<Leftover<'_>> = Vec::new();
    let mut of_other_family: Vec<&str> = Vec::new();
    for report in &reports.current {
        if let Proxy::Replaced(by) = proxies::of(report) {
            leftovers.extend(Leftover::of(report, by));
            continue;
        }
        let Some(rules) = &report.facts.rules else {
            match proxies::mode_of(report) {
                Some(mode @ (ProxyMode::Ipvs | ProxyMode::Userspace)) => {
                    other_modes.insert(mode);
                }
                _ => unread.push(report.node),
            }
            continue;
        };
        let before = faults.len();
        let (gaps, of_others): (Vec<_>, Vec<_>) = rules
            .gaps
            .iter()
            .partition(|gap| concerns(facts, report.node, gap));
        if let Some(reason) = conflict(rules) {
            faults.push(Fault {
                report,
                reason,
                rules,
                gap: None,
            });
        }
        for gap in gaps {
            if !still_is(facts, service, report, gap) {
                is_stale = true;
            } else if let Some(reason) = reason(service, report, gap) {
                faults.push(Fault {
                    report,
                    reason,
                    rules,
                    gap: Some(gap),
                });
            } else {
                hints.insert(format!(
                    "on node {}, {}: {}",
                    report.node, gap.destination, gap.detail
                ));
            }
        }
        if !of_others.is_empty() {
            of_other_family.push(report.node);
        }
        if faults.len() == before && (of_others.is_empty() || has_its_family(facts, service, report.node)) {
            right.push(report.node);
        }
    }
    for &reason in ConditionType::ProxyRulesPresent.faults() {
        let of: Vec<&Fault> = faults.iter().filter(|f| f.reason == reason).collect();
        if !of.is_empty() {
            return describe::build(evidence, reason, &of);
        }
    }
    if let Some(harmful) = leftovers.iter().find(|l| l.does_harm()) {
        return harmful.fault(facts);
    }
    if is_stale {
        return Finding::unknown(
            Reason::Pending,
            "The rules were compared with earlier EndpointSlices. Waiting for the next round of the agents.",
        );
    }
    if let Some(finding) = reports.incomplete() {
        return finding;
    }
    if let Some(by) = proxies::replaced_everywhere(reports) {
        return Finding::unknown(
            Reason::ProxyReplaced,
            match leftovers.first() {
                None => format!("There are no kube-proxy rules to compare: {by} replaces kube-proxy."),
                Some(leftover) => format!(
                    "{by} replaces kube-proxy, but {}. {}",
                    leftover.describe(),
                    leftover.cleanup(facts)
                ),
            },
        );
    }
    // Files hold the rules of the nodes that somebody looked at; the message names these.
    let are_files = reports.current.iter().all(|r| r.saved.is_some());
    if !unread.is_empty() && (right.is_empty() || !are_files) {
        let why = reports
            .problem(ConditionType::ProxyRulesPresent)
            .unwrap_or_default();
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("{WHAT} on {}. {why}", text::nodes(&unread))
                .trim_end()
                .to_owned(),
        );
    }
    if right.is_empty() && !of_other_family.is_empty() {
        return Finding::unknown(
            Reason::NoVantagePoint,
            format!("{}.", without_rules(&of_other_family)),
        );
    }
    if right.is_empty() {
        let modes: Vec<String> = other_modes.iter().map(ToString::to_string).collect();
        return Finding::not_applicable(format!(
            "kube-proxy is in {} mode, whose rules are not compared. The dials show whether they work.",
            text::list(&modes)
        ));
    }
    let mut message = format!("The rules on {} match the EndpointSlices", text::nodes(&right));
    if !hints.is_empty() {
        let hints: Vec<String> = hints.into_iter().collect();
        message.push_str(&format!(", but: {}", text::list(&hints)));
    }
    if !of_other_family.is_empty() {
        message.push_str(&format!(". {}", without_rules(&of_other_family)));
    }
    Finding::yes(Reason::RulesMatchEndpoints, format!("{message}."))
}

/// Whether another layout than kube-proxy's own holds the Service's addresses too.
fn conflict(rules: &Rules) -> Option<Reason> {
    let other = rules.conflict.as_deref()?;
    let is_iptables = |layout: &str| Backend::parse(layout).is_some_and(Backend::is_iptables);
    Some(if is_iptables(other) && is_iptables(&rules.layout) {
        Reason::ConflictingBackends
    } else {
        Reason::ConflictingModes
    })
}

/// What is wrong where the rules have a gap; None for what is only told.
fn reason(service: &Service, report: &Report<'_>, gap: &RuleGap) -> Option<Reason> {
    let proxy = report.facts.kube_proxy.as_ref();
    let takes_local_for_remote = || proxy.is_some_and(|p| p.node_name.is_some()) && is_local(service);
    match gap.kind {
        GapKind::Missing | GapKind::EndpointMissing | GapKind::NodePortMissing
            if takes_local_for_remote() =>
        {
            Some(Reason::NodeNameMismatch)
        }
        GapKind::Missing => Some(Reason::RulesMissing),
        GapKind::EndpointMissing => Some(Reason::EndpointMissingFromRules),
        GapKind::EndpointDrained => Some(Reason::EndpointsDrained),
        GapKind::EndpointStale => Some(Reason::StaleEndpointInRules),
        // An endpoint that is gone keeps those who know it, until its connections have ended; it does harm
        // where somebody's dials fail.
        GapKind::EndpointStuck => fails(report).then_some(Reason::StaleEndpointInRules),
        GapKind::NodePortMissing => Some(Reason::NodePortRulesMissing),
        GapKind::NodePortInUse => Some(Reason::NodePortInUse),
        GapKind::Incomplete => None,
    }
}

/// Whether a traffic policy of the Service asks for endpoints on the node itself.
fn is_local(service: &Service) -> bool {
    service.is_internally_local() || service.spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether a dial of the Service failed on the node.
fn fails(report: &Report<'_>) -> bool {
    report.facts.failures.iter().any(|f| f.path != DialPath::Endpoint)
}

/// Whether a gap is one today: it was found against these very slices, or they still ask for it.
fn still_is(facts: &Facts, service: &Service, report: &Report<'_>, gap: &RuleGap) -> bool {
    let mut compared: Vec<(&str, &str)> = report
        .facts
        .slices
        .iter()
        .map(|s| (s.name.as_str(), s.resource_version.as_str()))
        .collect();
    let mut present: Vec<(&str, &str)> = facts
        .slices
        .iter()
        .map(|s| {
            (
                s.name(),
                s.metadata.resource_version.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    compared.sort_unstable();
    present.sort_unstable();
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let node = facts.nodes.iter().find(|n| n.name == report.node);
    let zone = node.and_then(|n| n.labels.get(ZONE_LABEL)).map(String::as_str);
    let seen_from = svcdiag_kube_proxy::Vantage {
        node: report.node,
        zone,
    };
    let ports = expected(service, &slices, seen_from);
    let asked = ports
        .iter()
        .flat_map(|port| port.destinations.iter().map(move |d| (port, d)))
        .find(|(_, destination)| destination.to_string() == gap.destination);
    // An address that is no longer the Service's says nothing, whatever the slices.
    let Some((port, destination)) = asked else {
        return false;
    };
    compared == present || is_asked_for(port, destination, gap)
}

fn is_asked_for(port: &ExpectedPort, destination: &Destination, gap: &RuleGap) -> bool {
    let endpoint = gap.endpoint.as_deref().and_then(|e| e.parse().ok());
    let leads = |traffic: &Traffic| match (traffic, endpoint) {
        (Traffic::To(all), Some(endpoint)) => all.contains(&endpoint),
        (Traffic::To(all), None) => !all.is_empty(),
        (Traffic::Reject | Traffic::Drop, _) => false,
    };
    let is_led = leads(&destination.inside) || destination.outside.as_ref().is_some_and(leads);
    match gap.kind {
        GapKind::Missing | GapKind::EndpointMissing | GapKind::EndpointDrained => is_led,
        GapKind::NodePortMissing | GapKind::NodePortInUse => {
            destination.purpose == Purpose::NodePort && is_led
        }
        GapKind::EndpointStale | GapKind::EndpointStuck => {
            endpoint.is_some_and(|e| !port.serving.contains(&e))
        }
        GapKind::Incomplete => true,
    }
}

/// Whether a difference is about an IP family that the node has addresses of: kube-proxy may write none of
/// another, and nobody is reached in it.
fn concerns(facts: &Facts, node: &str, gap: &RuleGap) -> bool {
    let address = gap
        .destination
        .rsplit_once('/')
        .map_or(&*gap.destination, |(a, _)| a);
    let family = address.parse::<SocketAddr>().map(|a| a.is_ipv4());
    family.map_or(true, |is_v4| node_has_family(facts, node, is_v4))
}

/// Whether a node has an address of one of the families that the Service has addresses of.
fn has_its_family(facts: &Facts, service: &Service, node: &str) -> bool {
    let addresses = service.cluster_ips();
    let mut families = addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    families.any(|ip| node_has_family(facts, node, ip.is_ipv4()))
}

/// What is said of rules that nobody can ask for.
fn without_rules(nodes: &[&str]) -> String {
    let on = text::nodes(nodes);
    format!(
        "On {on}, rules are missing for Service addresses of an IP family in which the Node has no InternalIP; kube-proxy may write none for it"
    )
}
