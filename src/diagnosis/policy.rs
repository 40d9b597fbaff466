//! NetworkPolicies, evaluated as the API's documentation of `networking.k8s.io/v1` says.
//!
//! A Pod that no policy selects for a direction is free in it. One that is selected is isolated:
//! only what a rule of one of the selecting policies admits may pass. Whether the cluster enforces
//! policies at all cannot be seen in the API.

use std::net::IpAddr;

use crate::objects::{IpBlock, Labels, NetworkPolicy, Object, Peer, Pod, PolicyPort};

/// What the policies say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// No rule admits it.
    Denied,
    /// Only a block of addresses could admit it, and whether those match the addresses of Pods is
    /// left to the network plugin; or the labels that decide could not be read.
    Undecided,
    /// A rule admits it.
    Admitted,
    /// No policy isolates the Pod.
    Free,
}

impl Access {
    /// Whether traffic passes for sure.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::Admitted | Self::Free)
    }
}

/// The direction in which a policy isolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Into the Pod.
    Ingress,
    /// Out of the Pod.
    Egress,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    /// The Pod there, if it is one.
    pub pod: Option<&'a Pod>,
    /// Labels of that Pod's Namespace; `None` where they are not known.
    pub namespace_labels: Option<&'a Labels>,
    /// Further addresses by which the network plugin may know that end.
    pub addresses: &'a [String],
}

/// A destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port<'a> {
    /// Number on the destination.
    pub number: i32,
    /// TCP, UDP or SCTP.
    pub protocol: &'a str,
}

/// A rule's peers and ports, whatever its direction.
type Rule<'a> = (&'a [Peer], &'a [PolicyPort]);

/// The policies that isolate a Pod in a direction, by name. The network plugin knows a hostNetwork
/// Pod by its node's address only, so that no policy selects it.
pub(super) fn isolating<'a>(
    policies: &[&'a NetworkPolicy],
    pod: &Pod,
    direction: Direction,
) -> Vec<&'a NetworkPolicy> {
    if pod.is_host_network() {
        return Vec::new();
    }
    let selects = |p: &&NetworkPolicy| {
        p.namespace() == pod.namespace()
            && has_type(p, direction)
            && p.spec.pod_selector.matches(pod.labels())
    };
    let mut selected: Vec<&NetworkPolicy> = policies.iter().copied().filter(selects).collect();
    selected.sort_by(|a, b| a.name().cmp(b.name()));
    selected
}

/// Whether a policy is for a direction. Absent types mean Ingress, and Egress if there is an egress rule.
fn has_type(policy: &NetworkPolicy, direction: Direction) -> bool {
    let types = &policy.spec.policy_types;
    match direction {
        Direction::Ingress if types.is_empty() => true,
        Direction::Egress if types.is_empty() => !policy.spec.egress.is_empty(),
        Direction::Ingress => types.iter().any(|t| t == "Ingress"),
        Direction::Egress => types.iter().any(|t| t == "Egress"),
    }
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> impl Iterator<Item = Rule<'_>> {
    let (ingress, egress) = match direction {
        Direction::Ingress => (policy.spec.ingress.as_slice(), [].as_slice()),
        Direction::Egress => ([].as_slice(), policy.spec.egress.as_slice()),
    };
    let ingress = ingress.iter().map(|r| (r.from.as_slice(), r.ports.as_slice()));
    ingress.chain(egress.iter().map(|r| (r.to.as_slice(), r.ports.as_slice())))
}

/// Whether policies that isolate a Pod let it talk to `other`. The port is one of the destination:
/// of the Pod itself for ingress, of the other end for egress; `destination` is the Pod whose
/// containers give a port's name its number.
pub(super) fn access(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    other: End,
    port: Port,
    destination: Option<&Pod>,
) -> Access {
    if isolating.is_empty() {
        return Access::Free;
    }
    let of_rule = |policy: &NetworkPolicy, (peers, ports): Rule| {
        if !covers(ports, port, destination) {
            Access::Denied
        } else if peers.is_empty() {
            Access::Admitted
        } else {
            peers
                .iter()
                .map(|peer| of_peer(policy, peer, other))
                .max()
                .unwrap_or(Access::Denied)
        }
    };
    isolating
        .iter()
        .flat_map(|p| rules(p, direction).map(|r| of_rule(p, r)))
        .max()
        .unwrap_or(Access::Denied)
}

/// Whether any rule admits anybody to a port.
pub(super) fn admits_anybody(
    isolating: &[&NetworkPolicy],
    direction: Direction,
    port: Port,
    destination: Option<&Pod>,
) -> bool {
    isolating.is_empty()
        || isolating
            .iter()
            .any(|p| rules(p, direction).any(|(_, ports)| covers(ports, port, destination)))
}

/// Whether nothing but one port number may leave (or enter), whoever the peer is.
pub(super) fn is_closed_but_for(isolating: &[&NetworkPolicy], direction: Direction, number: i32) -> bool {
    use crate::objects::IntOrString::Int;
    isolating
        .iter()
        .flat_map(|p| rules(p, direction))
        .all(|(_, ports)| {
            !ports.is_empty()
                && ports
                    .iter()
                    .all(|p| p.port == Some(Int(number)) && p.end_port.is_none_or(|end| end == number))
        })
}

/// Whether any rule admits a block of addresses to a port.
pub(super) fn admits_a_block(isolating: &[&NetworkPolicy], direction: Direction, port: Port) -> bool {
    isolating
        .iter()
        .flat_map(|p| rules(p, direction))
        .any(|(peers, ports)| covers(ports, port, None) && peers.iter().any(|peer| peer.ip_block.is_some()))
}

/// Whether a rule's ports hold a port; an empty list holds all.
fn covers(ports: &[PolicyPort], port: Port, destination: Option<&Pod>) -> bool {
    use crate::objects::IntOrString;
    ports.is_empty()
        || ports.iter().any(|p| {
            let number = match &p.port {
                None => true,
                Some(IntOrString::Int(first)) => match p.end_port {
                    Some(last) => (*first..=last).contains(&port.number),
                    None => *first == port.number,
                },
                Some(name) => {
                    destination.and_then(|d| d.resolve_port(name, port.protocol)) == Some(port.number)
                }
            };
            p.protocol.as_deref().unwrap_or("TCP") == port.protocol && number
        })
}

fn of_peer(policy: &NetworkPolicy, peer: &Peer, other: End) -> Access {
    if let Some(block) = &peer.ip_block {
        let known = other
            .pod
            .into_iter()
            .flat_map(Pod::ips)
            .chain(other.addresses.iter().map(String::as_str));
        return match (known.into_iter().any(|ip| contains(block, ip)), other.pod) {
            (false, _) => Access::Denied,
            (true, Some(_)) => Access::Undecided,
            (true, None) => Access::Admitted,
        };
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return Access::Denied;
    }
    let Some(pod) = other.pod else {
        return Access::Denied;
    };
    if pod.is_host_network() {
        return Access::Undecided;
    }
    if peer
        .pod_selector
        .as_ref()
        .is_some_and(|s| !s.matches(pod.labels()))
    {
        return Access::Denied;
    }
    match (&peer.namespace_selector, other.namespace_labels) {
        (None, _) if pod.namespace() == policy.namespace() => Access::Admitted,
        (None, _) => Access::Denied,
        (Some(selector), _) if selector.is_empty() => Access::Admitted,
        (Some(_), None) => Access::Undecided,
        (Some(selector), Some(labels)) if selector.matches(labels) => Access::Admitted,
        (Some(_), Some(_)) => Access::Denied,
    }
}

/// Whether a block of addresses holds an address. What cannot be parsed holds nothing.
fn contains(block: &IpBlock, ip: &str) -> bool {
    let Ok(ip) = ip.parse() else { return false };
    in_cidr(&block.cidr, ip) && !block.except.iter().any(|cidr| in_cidr(cidr, ip))
}

fn in_cidr(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if length <= 32 => {
            (network.to_bits() ^ ip.to_bits())
                .checked_shr(32 - length)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if length <= 128 => {
            (network.to_bits() ^ ip.to_bits())
                .checked_shr(128 - length)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": spec }))
            .unwrap()
    }

    fn pod(namespace: &str, labels: Value, ip: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "x", "namespace": namespace, "labels": labels },
            "spec": { "containers": [{ "name": "c", "ports": [
                { "name": "web", "containerPort": 8080 }, { "name": "dns", "containerPort": 5353, "protocol": "UDP" },
            ] }] },
            "status": { "podIP": ip },
        }))
        .unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    const WEB: Port = Port {
        number: 8080,
        protocol: "TCP",
    };

    /// Access of a Pod `app=front` of a namespace labelled `team=a` to a Pod `app=web` of namespace shop.
    fn into_web(spec: Value, client_namespace: &str, port: Port) -> Access {
        let policy = policy(spec);
        let target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
        let client = pod(
            client_namespace,
            json!({ "app": "front", "tier": "1" }),
            "10.1.0.3",
        );
        let team = labels(&[("team", "a")]);
        let other = End {
            pod: Some(&client),
            namespace_labels: Some(&team),
            addresses: &[],
        };
        let isolating = isolating(&[&policy], &target, Direction::Ingress);
        access(&isolating, Direction::Ingress, other, port, Some(&target))
    }

    fn ingress(rule: Value) -> Value {
        json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule] })
    }

    #[test]
    fn a_pod_is_isolated_only_by_policies_of_its_namespace_that_select_it_for_the_direction() {
        let free = json!({ "podSelector": { "matchLabels": { "app": "db" } } });
        assert_eq!(into_web(free, "shop", WEB), Access::Free);
        let egress_only = json!({ "podSelector": {}, "policyTypes": ["Egress"] });
        assert_eq!(into_web(egress_only, "shop", WEB), Access::Free);
        let absent_types = json!({ "podSelector": {} });
        assert_eq!(into_web(absent_types, "shop", WEB), Access::Denied);
    }

    #[test]
    fn absent_policy_types_mean_egress_only_with_an_egress_rule() {
        let target = pod("shop", json!({}), "10.1.0.2");
        let without = policy(json!({ "podSelector": {}, "ingress": [{}] }));
        assert!(isolating(&[&without], &target, Direction::Egress).is_empty());
        let with = policy(json!({ "podSelector": {}, "egress": [{}] }));
        assert_eq!(isolating(&[&with], &target, Direction::Egress).len(), 1);
        assert_eq!(isolating(&[&with], &target, Direction::Ingress).len(), 1);
    }

    #[test]
    fn absent_and_empty_peers_and_ports_admit_all() {
        assert_eq!(into_web(ingress(json!({})), "shop", WEB), Access::Admitted);
        assert_eq!(
            into_web(ingress(json!({ "from": [], "ports": [] })), "other", WEB),
            Access::Admitted
        );
        assert_eq!(
            into_web(json!({ "podSelector": {}, "ingress": [] }), "shop", WEB),
            Access::Denied
        );
        assert_eq!(
            into_web(json!({ "podSelector": {}, "ingress": null }), "shop", WEB),
            Access::Denied
        );
    }

    #[test]
    fn peers_are_matched_by_pod_and_namespace_labels() {
        let by = |peer: Value| ingress(json!({ "from": [peer] }));
        let front = json!({ "podSelector": { "matchLabels": { "app": "front" } } });
        assert_eq!(into_web(by(front.clone()), "shop", WEB), Access::Admitted);
        assert_eq!(
            into_web(by(front), "other", WEB),
            Access::Denied,
            "a Pod selector alone means the own namespace"
        );
        let team = json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } });
        assert_eq!(into_web(by(team), "other", WEB), Access::Admitted);
        let both = json!({ "namespaceSelector": { "matchLabels": { "team": "a" } }, "podSelector": { "matchLabels": { "app": "x" } } });
        assert_eq!(
            into_web(by(both), "other", WEB),
            Access::Denied,
            "both selectors of one peer have to match"
        );
        assert_eq!(
            into_web(by(json!({ "namespaceSelector": {} })), "other", WEB),
            Access::Admitted
        );
        assert_eq!(
            into_web(by(json!({ "podSelector": {} })), "shop", WEB),
            Access::Admitted
        );
        assert_eq!(into_web(by(json!({})), "shop", WEB), Access::Denied);
    }

    #[test]
    fn every_operator_of_a_selector_counts() {
        let by = |key: &str, operator: &str, values: Value| {
            let expression = json!({ "key": key, "operator": operator, "values": values });
            into_web(
                ingress(json!({ "from": [{ "podSelector": { "matchExpressions": [expression] } }] })),
                "shop",
                WEB,
            )
        };
        assert_eq!(by("app", "In", json!(["front", "x"])), Access::Admitted);
        assert_eq!(by("app", "In", json!(["x"])), Access::Denied);
        assert_eq!(by("app", "NotIn", json!(["x"])), Access::Admitted);
        assert_eq!(by("absent", "NotIn", json!(["x"])), Access::Admitted);
        assert_eq!(by("app", "NotIn", json!(["front"])), Access::Denied);
        assert_eq!(by("tier", "Exists", json!(null)), Access::Admitted);
        assert_eq!(by("absent", "Exists", json!([])), Access::Denied);
        assert_eq!(by("absent", "DoesNotExist", json!([])), Access::Admitted);
        assert_eq!(by("tier", "DoesNotExist", json!([])), Access::Denied);
    }

    #[test]
    fn ports_are_matched_by_number_name_range_and_protocol() {
        let to = |ports: Value, port: Port| into_web(ingress(json!({ "ports": ports })), "shop", port);
        assert_eq!(to(json!([{ "port": 8080 }]), WEB), Access::Admitted);
        assert_eq!(
            to(json!([{ "port": 80 }]), WEB),
            Access::Denied,
            "the Service's port is not the Pod's"
        );
        assert_eq!(to(json!([{ "port": "web" }]), WEB), Access::Admitted);
        assert_eq!(to(json!([{ "port": "dns" }]), WEB), Access::Denied);
        assert_eq!(
            to(
                json!([{ "port": "dns", "protocol": "UDP" }]),
                Port {
                    number: 5353,
                    protocol: "UDP"
                }
            ),
            Access::Admitted
        );
        assert_eq!(
            to(json!([{ "port": 8000, "endPort": 8080 }]), WEB),
            Access::Admitted
        );
        assert_eq!(
            to(json!([{ "port": 8000, "endPort": 8079 }]), WEB),
            Access::Denied
        );
        assert_eq!(to(json!([{ "protocol": "TCP" }]), WEB), Access::Admitted);
        assert_eq!(to(json!([{ "protocol": "UDP" }]), WEB), Access::Denied);
    }

    #[test]
    fn several_policies_are_united() {
        let deny = policy(json!({ "podSelector": {} }));
        let admit = policy(
            json!({ "podSelector": { "matchLabels": { "app": "web" } }, "ingress": [{ "ports": [{ "port": 8080 }] }] }),
        );
        let target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
        let both = isolating(&[&deny, &admit], &target, Direction::Ingress);
        let client = pod("shop", json!({}), "10.1.0.3");
        let other = End {
            pod: Some(&client),
            namespace_labels: None,
            addresses: &[],
        };
        assert_eq!(
            access(&both, Direction::Ingress, other, WEB, Some(&target)),
            Access::Admitted
        );
    }

    #[test]
    fn a_block_of_addresses_decides_about_hosts_but_not_about_pods() {
        let block = |except: Value| {
            policy(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [
            { "to": [{ "ipBlock": { "cidr": "10.1.0.0/16", "except": except } }] }
        ] }))
        };
        let client = pod("shop", json!({}), "10.1.0.3");
        let to = |policy: &NetworkPolicy, pod: Option<&Pod>, ip: &str| {
            let isolating = isolating(&[policy], &client, Direction::Egress);
            let addresses = [ip.to_owned()];
            access(
                &isolating,
                Direction::Egress,
                End {
                    pod,
                    namespace_labels: None,
                    addresses: &addresses,
                },
                WEB,
                pod,
            )
        };
        let server = pod("shop", json!({}), "10.1.0.9");
        assert_eq!(
            to(&block(json!([])), Some(&server), "10.1.0.9"),
            Access::Undecided
        );
        assert_eq!(to(&block(json!([])), None, "10.1.0.9"), Access::Admitted);
        assert_eq!(
            to(&block(json!(["10.1.0.8/29"])), None, "10.1.0.9"),
            Access::Denied
        );
        assert_eq!(to(&block(json!([])), None, "10.2.0.9"), Access::Denied);
    }

    #[test]
    fn blocks_of_both_families_and_all_lengths_are_understood() {
        let holds = |cidr: &str, ip: &str| in_cidr(cidr, ip.parse().unwrap());
        assert!(holds("0.0.0.0/0", "1.2.3.4") && holds("::/0", "fd00::1") && holds("1.2.3.4/32", "1.2.3.4"));
        assert!(holds("fd00:1::/32", "fd00:1:2::3") && holds("fd00::1/128", "fd00::1"));
        assert!(
            !holds("0.0.0.0/0", "fd00::1")
                && !holds("1.2.3.4/32", "1.2.3.5")
                && !holds("fd00:1::/32", "fd00:2::")
        );
        assert!(
            !holds("1.2.3.4/33", "1.2.3.4") && !holds("nonsense", "1.2.3.4") && !holds("1.2.3.4", "1.2.3.4")
        );
    }

    #[test]
    fn policies_do_not_select_pods_of_the_host_network() {
        let mut target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
        target.spec.host_network = Some(true);
        assert!(
            isolating(
                &[&policy(json!({ "podSelector": {} }))],
                &target,
                Direction::Ingress
            )
            .is_empty()
        );
    }
}
