//! What a gap in the rules of a node says, and whether it still is one: rules are compared with the EndpointSlices of an
//! earlier moment.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Facts,
    evidence::{reports::Report, targets::node_has_family},
};
use svcdiag_api::{DialPath, GapKind, Reason, RuleGap};
use svcdiag_kube_proxy::{Destination, ExpectedPort, Purpose, Traffic, expected};
use svcdiag_objects::{IpFamily, Object, Service};

/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What is wrong where the rules have a gap; None for what is only told.
pub(super) fn reason(facts: &Facts, service: &Service, report: &Report<'_>, gap: &RuleGap) -> Option<Reason> {
    let proxy = report.facts.kube_proxy.as_ref();
    // Such a kube-proxy leaves out the endpoints of its own node, and no others.
    let takes_local_for_remote = || {
        proxy.is_some_and(|p| p.node_name.is_some())
            && is_local(service)
            && is_of_node(facts, report.node, gap)
    };
    match gap.kind {
        // Who listens on a node port gets its connections only because rules are missing.
        GapKind::Missing | GapKind::EndpointMissing | GapKind::NodePortMissing | GapKind::NodePortInUse
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

/// Whether a gap is about an endpoint on a node, or about none in particular.
fn is_of_node(facts: &Facts, node: &str, gap: &RuleGap) -> bool {
    let endpoint = gap.endpoint.as_deref().and_then(|e| e.parse::<SocketAddr>().ok());
    endpoint.is_none_or(|endpoint| {
        let all = facts.slices.iter().flat_map(|slice| &slice.endpoints);
        let mut here = all.filter(|e| e.node_name.as_deref() == Some(node));
        here.any(|e| e.addresses.iter().any(|a| a.parse() == Ok(endpoint.ip())))
    })
}

/// Whether a traffic policy of the Service asks for endpoints on the node itself.
fn is_local(service: &Service) -> bool {
    service.is_internally_local() || service.spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether a dial of the Service failed on the node.
fn fails(report: &Report<'_>) -> bool {
    report.facts.failures.iter().any(|f| f.path != DialPath::Endpoint)
}

/// What the rules of a node are held against today.
pub(super) struct Today {
    /// What they have to do.
    ports: Vec<ExpectedPort>,
    /// Whether they were compared with these very slices.
    is_compared: bool,
}

impl Today {
    pub(super) fn of(facts: &Facts, service: &Service, report: &Report<'_>) -> Self {
        let compared = report.facts.slices.iter();
        let mut compared: Vec<(&str, &str)> = compared
            .map(|s| (s.name.as_str(), s.resource_version.as_str()))
            .collect();
        let present = facts.slices.iter().map(|s| {
            let version = s.metadata.resource_version.as_deref();
            (s.name(), version.unwrap_or_default())
        });
        let mut present: Vec<(&str, &str)> = present.collect();
        compared.sort_unstable();
        present.sort_unstable();
        let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
        let node = facts.report_of(report.node);
        let seen_from = svcdiag_kube_proxy::Vantage {
            node: report.node,
            zone: node.and_then(|n| n.labels.get(ZONE_LABEL)).map(String::as_str),
        };
        Self {
            ports: expected(service, &slices, seen_from),
            is_compared: compared == present,
        }
    }

    /// Whether a gap still is one: it was found against these very slices, or they still ask for it. An address that
    /// is no longer the Service's says nothing, whatever the slices.
    pub(super) fn has(&self, gap: &RuleGap) -> bool {
        let all = self.ports.iter();
        let mut all = all.flat_map(|port| port.destinations.iter().map(move |d| (port, d)));
        let asked = all.find(|(_, destination)| destination.to_string() == gap.destination);
        asked.is_some_and(|(port, destination)| self.is_compared || is_asked_for(port, destination, gap))
    }
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
pub(super) fn concerns(facts: &Facts, node: &str, gap: &RuleGap) -> bool {
    let address = gap
        .destination
        .rsplit_once('/')
        .map_or(&*gap.destination, |(a, _)| a);
    let address = address.parse::<SocketAddr>();
    address.map_or(true, |a| node_has_family(facts, node, IpFamily::of(a.ip())))
}

/// Whether a node has an address of one of the families that the Service has addresses of.
pub(super) fn has_its_family(facts: &Facts, service: &Service, node: &str) -> bool {
    let addresses = service.cluster_ips();
    let mut families = addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    families.any(|ip| node_has_family(facts, node, IpFamily::of(ip)))
}
