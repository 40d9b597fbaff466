//! What counts of a report: what was asked about.
//!
//! An agent knows its node and nothing else. One that speaks of Pods, names and servers that its question does not
//! name is not the agent any more, and would have users look at, or type, what somebody else has chosen.

use std::collections::BTreeSet;

use svcdiag_api::{NodeFacts, NodeProbeSpec, OtherNodePort, ProbePod};

/// Every cluster has this name, by which its DNS is tried.
const CONTROL: &str = "kubernetes.default";

/// The facts that answer a question.
pub(super) fn of(asked: &NodeProbeSpec, mut facts: NodeFacts) -> NodeFacts {
    let key = |pod: &ProbePod| format!("{}/{}", pod.namespace, pod.name);
    let clients: BTreeSet<String> = asked.clients.iter().map(key).collect();
    let pods: BTreeSet<String> = asked.endpoints.iter().map(key).chain(clients.clone()).collect();
    let is_origin = |from: &Option<String>| from.as_ref().is_none_or(|pod| clients.contains(pod));
    facts.dials.retain(|dial| is_origin(&dial.from));
    facts.failures.retain(|dial| is_origin(&dial.from));
    facts.departures.retain(|of| is_origin(&of.from));
    // A Pod that dials itself is asked as an endpoint.
    let is_dialler = |from: &Option<String>| from.as_ref().is_none_or(|pod| pods.contains(pod));
    facts.drops.retain(|drop| is_dialler(&drop.from));
    facts.losses.retain(|loss| is_origin(&loss.from));
    for loss in &mut facts.losses {
        loss.counters.retain(|of| is_dialler(&of.pod));
    }
    retain_arrivals(asked, &mut facts);
    facts.left.retain(|of| clients.contains(&of.from));
    facts.other_node_ports.retain(|of| is_other_node_port(asked, of));
    facts.packet_sizes.retain(|size| {
        let mut paths = asked.full_size_paths.iter();
        paths.any(|path| (&path.from, &path.to) == (&size.from, &size.to))
    });
    facts
        .wrong_neighbours
        .retain(|of| is_origin(&of.from) && pods.contains(&of.pod));
    facts.listeners.retain(|of| pods.contains(&of.pod));
    facts.hairpins.retain(|of| pods.contains(&of.pod));
    facts.intercepted.retain(|pod| pods.contains(pod));
    facts.resolvers.retain(|of| clients.contains(&of.pod));
    for resolver in &mut facts.resolvers {
        resolver.lookups.retain(|lookup| is_asked(asked, &lookup.name));
    }
    let dns = asked.cluster_dns.iter();
    let dns = dns.flat_map(|dns| dns.addresses.iter().chain(&dns.endpoints));
    let servers: BTreeSet<String> = dns
        .map(|address| host(address).to_owned())
        .chain(facts.resolvers.iter().flat_map(|r| r.servers.clone()))
        .collect();
    facts
        .dns_servers
        .retain(|of| is_origin(&of.from) && servers.contains(host(&of.server)));
    facts
}

/// What a node saw of the dials that it is asked to watch. What it saw of them in an earlier watch stands until the present
/// one has ended.
fn retain_arrivals(asked: &NodeProbeSpec, facts: &mut NodeFacts) {
    let Some((asked, mut said)) = asked.arrivals.as_ref().zip(facts.arrivals.take()) else {
        facts.arrival_drops.clear();
        return;
    };
    let is_asked = |from: Option<&str>, protocol, endpoint: &str| {
        let mut dials = asked.dials.iter();
        dials.any(|dial| {
            Some(dial.from.as_str()) == from
                && (dial.protocol, dial.endpoint.as_str()) == (protocol, endpoint)
        })
    };
    said.dials
        .retain(|dial| is_asked(Some(&dial.from), dial.protocol, &dial.endpoint));
    facts.arrivals = Some(said);
    facts.arrival_drops.retain(|drop| {
        let is_its = drop.endpoint.as_ref() == Some(&drop.target);
        is_its && is_asked(drop.from.as_deref(), drop.protocol, &drop.target)
    });
}

/// Whether the node was asked to dial another one there.
fn is_other_node_port(asked: &NodeProbeSpec, of: &OtherNodePort) -> bool {
    let Ok(target) = of.target.parse::<std::net::SocketAddr>() else {
        return false;
    };
    let number = Some(i32::from(target.port()));
    let is_its = |ip: &String| ip.parse() == Ok(target.ip());
    let mut others = asked.other_nodes.iter().filter(|other| other.name == of.node);
    others.any(|other| other.ips.iter().any(is_its))
        && asked.service.ports.iter().any(|port| port.node_port == number)
}

/// Whether a name is one of the Service's, or the cluster's own. An ExternalName Service stands for another one,
/// which no question names.
fn is_asked(asked: &NodeProbeSpec, name: &str) -> bool {
    let of = |known: &str| {
        name.strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    of(&asked.service_name) || of(CONTROL) || asked.service.without_rules
}

/// An address without its port.
fn host(address: &str) -> &str {
    match address.parse::<std::net::SocketAddr>() {
        Ok(_) => address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host.trim_matches(['[', ']'])),
        Err(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use svcdiag_api::{Answer, LossCounter, LossCounterName, LossyPath, PacketSize, PathLoss};

    use super::*;

    #[test]
    fn a_node_speaks_of_no_node_ports_but_those_that_it_was_asked_to_dial() {
        let asked: NodeProbeSpec = serde_json::from_value(json!({
            "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60,
            "service": { "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }] },
            "otherNodes": [{ "name": "n2", "ips": ["192.168.0.2"] }],
        }))
        .unwrap();
        let of = |node: &str, target: &str| OtherNodePort {
            node: node.to_owned(),
            port: "80/TCP".parse().unwrap(),
            target: target.to_owned(),
            answer: Answer::TimedOut,
        };
        let own = of("n2", "192.168.0.2:30080");
        let said = vec![
            of("n3", "192.168.0.2:30080"),
            of("n2", "192.168.0.3:30080"),
            own.clone(),
            of("n2", "192.168.0.2:22"),
            of("n2", "192.168.0.2"),
        ];
        let facts = NodeFacts {
            other_node_ports: said,
            ..NodeFacts::default()
        };
        assert_eq!(super::of(&asked, facts).other_node_ports, [own]);
    }

    #[test]
    fn a_node_speaks_of_no_paths_but_those_that_it_was_asked_to_try() {
        let asked: NodeProbeSpec = serde_json::from_value(json!({
            "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60,
            "fullSizePaths": [{ "from": "shop/a", "to": "10.0.0.1", "node": "n2" }],
        }))
        .unwrap();
        let of = |from: &str, to: &str| PacketSize {
            from: from.to_owned(),
            to: to.to_owned(),
            passes: 1400,
            fails: 1500,
            links: Vec::new(),
        };
        let facts = NodeFacts {
            packet_sizes: vec![
                of("shop/b", "10.0.0.1"),
                of("shop/a", "10.0.0.1"),
                of("shop/a", "10.0.0.2"),
            ],
            ..NodeFacts::default()
        };
        assert_eq!(super::of(&asked, facts).packet_sizes, [of("shop/a", "10.0.0.1")]);
    }

    #[test]
    fn a_node_speaks_of_no_counters_but_its_own_and_those_of_pods_that_it_was_asked_about() {
        let asked: NodeProbeSpec = serde_json::from_value(json!({
            "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60,
            "clients": [{ "namespace": "shop", "name": "a", "uid": "1" }],
            "endpoints": [{ "namespace": "shop", "name": "web-1", "uid": "2" }],
        }))
        .unwrap();
        let of = |pod: Option<&str>| LossCounter {
            pod: pod.map(str::to_owned),
            counter: LossCounterName::UDPChecksumErrors,
            rose: 4,
            rounds: 3,
        };
        let own = [of(None), of(Some("shop/a")), of(Some("shop/web-1"))];
        let loss = PathLoss {
            from: Some("shop/a".to_owned()),
            path: LossyPath::DNS,
            tries: 100,
            lost: 4,
            counters: [&own[..], &[of(Some("kube-system/x"))]].concat(),
        };
        let facts = NodeFacts {
            losses: vec![loss],
            ..NodeFacts::default()
        };
        assert_eq!(super::of(&asked, facts).losses[0].counters, own);
    }
}
