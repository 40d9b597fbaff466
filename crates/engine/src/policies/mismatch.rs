//! Why no rule admits a connection: the rule that comes nearest, and what of it does not match.

use crate::{
    policies::rules::{Direction, End, Port, contains, covers, names_front, rules, selects},
    text,
};
use svcdiag_objects::{
    IntOrString, IpBlock, LabelSelector, Labels, NetworkPolicy, Object, Peer, Pod, PolicyPort,
};

/// What keeps the nearest rule from matching.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mismatch {
    /// How far the rule is from matching.
    distance: u8,
    /// The policy that the rule belongs to.
    pub policy: String,
    /// What does not match, to be read after "NetworkPolicy NAME does not admit it:".
    pub why: String,
    /// What would make it match, one change for each part that does not; empty where that is not plain.
    pub fixes: Vec<String>,
    /// Which of the policy's rules it is; none where it has none.
    pub rule: Option<usize>,
}

/// A part of a rule that does not match.
struct Miss {
    distance: u8,
    why: String,
    fix: Option<String>,
}

fn miss(distance: u8, why: impl Into<String>) -> Miss {
    Miss {
        distance,
        why: why.into(),
        fix: None,
    }
}

impl Miss {
    fn fixed_by(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// The rule that comes nearest to admitting a connection that none admits. Without another end only the ports
/// are compared: nobody is admitted to these.
pub(crate) fn nearest(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    other: Option<End>,
    port: Port,
    front: Option<Port>,
    destination: Option<&Pod>,
) -> Option<Mismatch> {
    let of_rule = |policy: &NetworkPolicy, rule: usize, peers: &[Peer], ports: &[PolicyPort]| {
        let of_peers = other.and_then(|other| nearest_peer(policy, peers, other));
        let of_ports = wrong_port(ports, port, front, destination);
        let parts: Vec<Miss> = of_peers.into_iter().chain(of_ports).collect();
        let why: Vec<&str> = parts.iter().map(|m| m.why.as_str()).collect();
        let fixes: Option<Vec<String>> = parts.iter().map(|m| m.fix.clone()).collect();
        Mismatch {
            distance: parts.iter().map(|m| m.distance).sum(),
            policy: policy.name().to_owned(),
            why: why.join(", and "),
            fixes: fixes.unwrap_or_default(),
            rule: Some(rule),
        }
    };
    let all = isolating.iter().flat_map(|p| {
        let rules = rules(p, direction).enumerate();
        rules.map(|(i, (peers, ports))| of_rule(p, i, peers, ports))
    });
    let nearest = all.filter(|m| !m.why.is_empty()).min();
    nearest.or_else(|| {
        let first = isolating.first()?;
        let has_rules = isolating.iter().any(|p| rules(p, direction).next().is_some());
        let direction = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        (!has_rules).then(|| Mismatch {
            distance: u8::MAX,
            policy: first.name().to_owned(),
            why: format!("there is no {direction} rule"),
            fixes: Vec::new(),
            rule: None,
        })
    })
}

fn nearest_peer(policy: &NetworkPolicy, peers: &[Peer], other: End) -> Option<Miss> {
    let is_met = |peer: &Peer| crate::policies::rules::of_peer(policy, peer, other).passes();
    if peers.is_empty() || peers.iter().any(is_met) {
        return None;
    }
    let misses = peers.iter().map(|peer| wrong_peer(policy, peer, other));
    misses.min_by(|a, b| (a.distance, &a.why).cmp(&(b.distance, &b.why)))
}

fn wrong_peer(policy: &NetworkPolicy, peer: &Peer, other: End) -> Miss {
    if let Some(block) = &peer.ip_block {
        return wrong_block(block, peer, other);
    }
    let Some(pod) = other.pod else {
        return miss(
            3,
            format!(
                "the selectors of its rule match only Pods, but {} {}",
                text::list(other.addresses),
                if other.addresses.len() == 1 {
                    "is not one"
                } else {
                    "are not"
                }
            ),
        )
        .fixed_by(blocks(other.addresses));
    };
    let mut parts = Vec::new();
    if !selects(peer.pod_selector.as_ref(), pod.labels()) {
        let wanted = peer.pod_selector.as_ref().into_iter();
        let wanted: Vec<String> = wanted
            .flat_map(|s| unmet(s, pod.labels(), &format!("Pod {}", pod.name())))
            .collect();
        let distance = u8::try_from(2 * wanted.len()).unwrap_or(u8::MAX / 4);
        parts.push(miss(
            distance,
            format!("the podSelector of its rule requires {}", text::list(&wanted)),
        ));
    }
    let namespace = pod.namespace();
    match (&peer.namespace_selector, other.namespace_labels) {
        (None, _) if namespace != policy.namespace() => {
            let selector = peer.pod_selector.as_ref().filter(|s| !s.is_empty());
            let distance = if selector.is_some() { 1 } else { 2 };
            parts.push(
                miss(
                    distance,
                    format!(
                        "the podSelector {}of its rule has no namespaceSelector, so it matches only Pods in namespace {}, but Pod {} is in namespace {namespace}",
                        selector.map(|s| format!("{} ", in_words(s))).unwrap_or_default(),
                        policy.namespace(),
                        pod.name()
                    ),
                )
                .fixed_by(format!(
                    "add a namespaceSelector (kubernetes.io/metadata.name: {namespace}) to the same peer as the podSelector"
                )),
            );
        }
        (Some(selector), Some(labels)) if !selector.matches(labels) => {
            let wanted = unmet(selector, labels, &format!("Namespace {namespace}"));
            let is_renamed = selector
                .match_labels
                .values()
                .all(|value| labels.values().any(|v| v == value));
            let m = miss(
                if is_renamed { 1 } else { 3 },
                format!(
                    "the namespaceSelector of its rule requires {}",
                    text::list(&wanted)
                ),
            );
            parts.push(if is_renamed {
                m.fixed_by(format!(
                    "select the Namespace by a label that it has (kubernetes.io/metadata.name: {namespace})"
                ))
            } else {
                m
            });
        }
        _ => {}
    }
    if pod.is_host_network() && parts.is_empty() {
        let addresses: Vec<String> = pod.ips().map(str::to_owned).collect();
        return miss(
            1,
            format!(
                "Pod {} uses the host network, so its packets come from the address of its node ({}), which network plugins match only by an ipBlock",
                pod.name(),
                text::list(&addresses)
            ),
        )
        .fixed_by("add an ipBlock with the addresses of the nodes");
    }
    let why: Vec<&str> = parts.iter().map(|m| m.why.as_str()).collect();
    let fix = parts
        .first()
        .filter(|_| parts.len() == 1)
        .and_then(|m| m.fix.clone());
    Miss {
        distance: parts.iter().map(|m| m.distance).sum(),
        why: why.join(", and "),
        fix,
    }
}

fn wrong_block(block: &IpBlock, peer: &Peer, other: End) -> Miss {
    let cidr = &block.cidr;
    let fix = match other.pod {
        Some(_) => "select the Pods with a podSelector instead of the ipBlock".to_owned(),
        None => blocks(other.addresses),
    };
    if other.front.is_some_and(|front| names_front(peer, &front)) {
        let seen = match other.pod {
            Some(_) => "a Pod".to_owned(),
            None => format!("an endpoint ({})", text::list(other.addresses)),
        };
        return miss(
            1,
            format!(
                "the ipBlock {cidr} of its rule contains the Service's cluster IP, but most network plugins see the address of {seen} instead"
            ),
        )
        .fixed_by(fix);
    }
    let own = other.pod.into_iter().flat_map(Pod::ips).map(str::to_owned);
    let own: Vec<String> = own.chain(other.addresses.iter().cloned()).collect();
    if own.iter().any(|ip| contains(block, ip)) {
        return miss(
            1,
            format!("whether its ipBlock {cidr} applies to Pods depends on the network plugin"),
        )
        .fixed_by(fix);
    }
    // What the block excepts is not far from it, but out of it.
    let excepts = match block.except.is_empty() {
        true => String::new(),
        false => format!(" (except {})", text::list(&block.except)),
    };
    let m = miss(
        3,
        format!(
            "the ipBlock {cidr}{excepts} of its rule does not contain {}",
            text::list(&own)
        ),
    );
    if other.pod.is_none() { m.fixed_by(fix) } else { m }
}

/// The blocks that hold some addresses and nothing else.
fn blocks(addresses: &[String]) -> String {
    let block = |ip: &String| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 });
    let blocks: Vec<String> = addresses.iter().map(block).collect();
    format!("add an ipBlock for {}", text::list(&blocks))
}

fn wrong_port(
    ports: &[PolicyPort],
    port: Port,
    front: Option<Port>,
    destination: Option<&Pod>,
) -> Option<Miss> {
    if covers(ports, port, destination) {
        return None;
    }
    let whose = if destination.is_some() {
        "the Pods"
    } else {
        "the endpoints"
    };
    let listed: Vec<String> = ports.iter().map(port_in_words).collect();
    let is_fronts = front.is_some_and(|front| covers(ports, front, None));
    let fix = format!("list port {} ({})", port.number, port.protocol);
    if let Some(front) = front.filter(|_| is_fronts) {
        return Some(
            miss(
                1,
                format!(
                    "it lists port {} of the Service, but policies see port {} of {whose}",
                    front.number, port.number
                ),
            )
            .fixed_by(fix),
        );
    }
    let is_of_protocol = ports.iter().any(|p| p.protocol == *port.protocol);
    let m = miss(
        if is_of_protocol { 3 } else { 4 },
        format!(
            "it lists only {}, not port {} ({})",
            text::list(&listed),
            port.number,
            port.protocol
        ),
    );
    Some(m.fixed_by(fix))
}

fn port_in_words(port: &PolicyPort) -> String {
    let protocol = &port.protocol;
    match (&port.port, port.end_port) {
        (None, _) => format!("all {protocol} ports"),
        (Some(IntOrString::Int(first)), Some(last)) => format!("ports {first}-{last} ({protocol})"),
        (Some(IntOrString::Int(number)), None) => format!("port {number} ({protocol})"),
        (Some(name), _) => format!("port {name} ({protocol})"),
    }
}

/// What a selector wants and an object does not have: `app=db, and Pod x has app=web`.
fn unmet(selector: &LabelSelector, labels: &Labels, whose: &str) -> Vec<String> {
    let missing = selector
        .match_labels
        .iter()
        .filter(|(k, v)| labels.get(*k) != Some(*v));
    let missing = missing.map(|(key, value)| {
        let same_value = || labels.iter().find(|(_, v)| *v == value).map(|(k, _)| k);
        match (labels.get(key), same_value()) {
            (Some(other), _) => format!("{key}={value}, but {whose} has {key}={other}"),
            (None, Some(other)) => format!("{key}={value}, but {whose} has {other}={value} instead"),
            (None, None) => format!("{key}={value}, a label that {whose} does not have"),
        }
    });
    let expressions = selector.match_expressions.iter().filter(|r| {
        let alone = LabelSelector {
            match_labels: Labels::default(),
            match_expressions: vec![(*r).clone()],
        };
        !alone.matches(labels)
    });
    let expressions = expressions.map(|r| {
        let has = labels
            .get(&r.key)
            .map_or("no label with that key".to_owned(), |v| format!("{}={v}", r.key));
        let values = if r.values.is_empty() {
            String::new()
        } else {
            format!(" ({})", r.values.join(", "))
        };
        format!("{} {:?}{values}, but {whose} has {has}", r.key, r.operator)
    });
    missing.chain(expressions).collect()
}

fn in_words(selector: &LabelSelector) -> String {
    let labels: Vec<String> = selector
        .match_labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    labels.join(",")
}
