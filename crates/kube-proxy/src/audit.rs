//! The comparison of what a node has to hold with what it holds.

use std::{collections::BTreeSet, net::SocketAddr};

use ipnet::IpNet;

use super::{
    Destination, ExpectedPort, IpFamily, Layout, Protocol, Purpose, ReadError, Ruleset, Traffic, iptables,
    nftables, once::Once, walk::Held,
};

/// A difference between what the node has to hold and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// What kind of difference.
    pub fault: RuleFault,
    /// The address or node port it is about.
    pub destination: String,
    /// The endpoint it is about, where it is about one.
    pub endpoint: Option<SocketAddr>,
    /// What is missing or too much, in words.
    pub detail: String,
}

/// Kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleFault {
    /// Nothing takes the packets to an address of the Service to its endpoints.
    RulesMissing,
    /// The rules leave out an endpoint.
    EndpointMissing,
    /// The rules hold an endpoint but send no new connection to it.
    EndpointDrained,
    /// The rules lead to an endpoint that is gone.
    StaleEndpoint,
    /// The rules hold an endpoint that is gone for those whom affinity keeps there, and for nobody else.
    EndpointStuck,
    /// Nothing takes the packets to the Service's node port to its endpoints.
    NodePortRulesMissing,
    /// The endpoints are reached, but not as the Service asks: session affinity, source ranges, or the
    /// refusal where there is no endpoint.
    Incomplete,
}

/// Compares the rules of a node with what it has to hold for a port of a Service.
///
/// # Errors
/// When the rules cannot be read or understood: then nothing is known.
pub fn audit(rules: &dyn Ruleset, expected: &ExpectedPort) -> Result<Vec<Gap>, ReadError> {
    let rules = &Once::of(rules);
    let mut gaps = BTreeSet::new();
    for destination in &expected.destinations {
        // Saved rules are often those of the table nat alone: the refusals are looked up where they matter.
        let is_refused = |traffic: &Traffic| !matches!(traffic, Traffic::To(_));
        let with_refusal =
            is_refused(&destination.inside) || destination.outside.as_ref().is_some_and(is_refused);
        let held = held(rules, expected.family, destination, with_refusal)?;
        compare(expected, destination, &held, &mut gaps);
    }
    Ok(gaps.into_iter().collect())
}

fn held(
    rules: &dyn Ruleset,
    family: IpFamily,
    destination: &Destination,
    with_refusal: bool,
) -> Result<Held, ReadError> {
    match rules.layout() {
        Layout::Iptables => iptables::held(rules, family, destination, with_refusal),
        Layout::Nftables => nftables::held(rules, family, destination, with_refusal),
    }
}

/// Whether the rules give an endpoint's packets to itself another source, so that the answer comes back
/// through the node. By the layout that is a rule of the endpoint's chain or an element of a set.
///
/// # Errors
/// When the rules cannot be read or understood.
pub fn hairpin_is_masqueraded(
    rules: &dyn Ruleset,
    service_address: (std::net::IpAddr, u16),
    protocol: Protocol,
    endpoint: SocketAddr,
) -> Result<bool, ReadError> {
    match rules.layout() {
        Layout::Iptables => iptables::masquerades(rules, service_address, protocol, endpoint),
        Layout::Nftables => nftables::masquerades(rules, service_address, protocol, endpoint),
    }
}

/// Whether node ports are served at an address of the node: kube-proxy may be told some of them alone
/// (nodePortAddresses).
///
/// # Errors
/// When the rules cannot be read or understood.
pub fn serves_node_ports_at(
    rules: &dyn Ruleset,
    address: std::net::IpAddr,
    protocol: Protocol,
    port: u16,
) -> Result<bool, ReadError> {
    match rules.layout() {
        Layout::Iptables => iptables::serves_node_ports_at(rules, address, protocol, port),
        Layout::Nftables => nftables::serves_node_ports_at(rules, address),
    }
}

/// Tells the differences of one destination.
pub(super) fn compare(
    expected: &ExpectedPort,
    destination: &Destination,
    held: &Held,
    gaps: &mut BTreeSet<Gap>,
) {
    let mut report = |fault, endpoint, detail: String| {
        gaps.insert(Gap {
            fault,
            destination: destination.to_string(),
            endpoint,
            detail,
        });
    };
    let missing = match destination.purpose {
        Purpose::NodePort => RuleFault::NodePortRulesMissing,
        _ => RuleFault::RulesMissing,
    };
    if let Some(why) = &held.unserved {
        report(RuleFault::Incomplete, None, why.clone());
        return;
    }
    if let Some(why) = &held.unhooked {
        report(missing, None, why.clone());
        return;
    }
    let ways = [
        Some((&destination.inside, &held.inside)),
        destination.outside.as_ref().map(|t| (t, &held.outside)),
    ];
    for (traffic, reached) in ways.into_iter().flatten() {
        for endpoint in reached.endpoints.difference(&expected.serving) {
            report(
                RuleFault::StaleEndpoint,
                Some(*endpoint),
                format!(
                    "{} leads to {endpoint}, which is no longer an endpoint",
                    held.entrance
                ),
            );
        }
        match traffic {
            Traffic::To(endpoints) if reached.endpoints.is_disjoint(endpoints) => report(
                missing,
                None,
                format!("{} does not lead to any endpoint", held.entrance),
            ),
            Traffic::To(endpoints) => {
                for endpoint in endpoints.difference(&reached.endpoints) {
                    report(
                        RuleFault::EndpointMissing,
                        Some(*endpoint),
                        format!("{} does not lead to {endpoint}", held.entrance),
                    );
                }
                for endpoint in endpoints
                    .difference(&reached.sticky)
                    .filter(|_| expected.affinity)
                {
                    report(
                        RuleFault::Incomplete,
                        Some(*endpoint),
                        format!("no rule returns clients to {endpoint}, as session affinity requires"),
                    );
                }
            }
            Traffic::Reject | Traffic::Drop if held.refusal.is_none() => report(
                RuleFault::Incomplete,
                None,
                "no rule rejects packets although there is no endpoint for them".to_owned(),
            ),
            Traffic::Reject | Traffic::Drop => {}
        }
    }
    // Where nothing leads to the endpoints, nobody asks which sources are let through to them.
    if !held.inside.endpoints.is_empty() && !destination.source_ranges.is_empty() {
        if !held.guarded {
            report(
                RuleFault::Incomplete,
                None,
                "loadBalancerSourceRanges are not enforced".to_owned(),
            );
        }
        let lists = |range: &IpNet| held.admitted.as_ref().is_none_or(|nets| nets.contains(range));
        for range in destination.source_ranges.iter().filter(|range| !lists(range)) {
            report(
                RuleFault::Incomplete,
                None,
                format!("no rule admits {range} of loadBalancerSourceRanges"),
            );
        }
    }
}

/// Whether rules take packets to the Service's addresses anywhere, be it to be refused: two sets of
/// rules that do so get in each other's way.
///
/// # Errors
/// When the rules cannot be read or understood.
pub fn holds(rules: &dyn Ruleset, expected: &ExpectedPort) -> Result<bool, ReadError> {
    let rules = &Once::of(rules);
    for destination in &expected.destinations {
        let held = held(rules, expected.family, destination, true)?;
        let takes = !held.inside.endpoints.is_empty() || held.refusal.is_some();
        if held.unhooked.is_none() && held.unserved.is_none() && takes {
            return Ok(true);
        }
    }
    Ok(false)
}
