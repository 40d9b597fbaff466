//! Dials that somebody rejected as administratively prohibited: who that was, and what to do.

use std::collections::BTreeSet;

use crate::{
    dialling::Case,
    evidence::{
        Evidence,
        dials::Failed,
        dropped_text::firewall_of_pods,
        lossy_settings::Places,
        sender::{Sender, claimants, sender},
    },
    text,
};
use svcdiag_objects::Object;

/// Who rejects, each once, and what to do about the first of them. A setting that explains it names the rule.
pub(crate) fn describe(evidence: &Evidence<'_>, cases: &[&Case<'_, '_>]) -> Option<(String, String)> {
    let mut found: Vec<(Sender<'_>, &Failed<'_>)> = cases
        .iter()
        .filter_map(|c| Some((sender(evidence, c.failed)?, c.failed)))
        .collect();
    found.sort_by_key(|(sender, _)| *sender);
    found.dedup_by_key(|(sender, _)| *sender);
    let (first, failed) = *found.first()?;
    let mut sentences: Vec<String> = found
        .iter()
        .take(text::SHOWN)
        .map(|(s, f)| sentence(evidence, *s, f))
        .collect();
    let (rules, remedy) = super::found(cases).unzip();
    sentences.extend(rules);
    let nodes: BTreeSet<&str> = found.iter().filter_map(|(s, _)| node(*s)).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let remediation = remedy.unwrap_or_else(|| remediation(evidence, first, failed, &nodes));
    Some((sentences.join(". "), remediation))
}

fn node(sender: Sender<'_>) -> Option<&str> {
    match sender {
        Sender::Node(node) | Sender::Probably(node, _) => Some(node),
        _ => None,
    }
}

fn sentence(evidence: &Evidence<'_>, sender: Sender<'_>, failed: &Failed<'_>) -> String {
    let prohibited = "as administratively prohibited (ICMP)";
    match sender {
        Sender::Node(node) if node == failed.node && failed.from_host => format!(
            "Node {node} rejects its own packets {prohibited}, so a firewall rule or a prohibit route on that node stops them"
        ),
        Sender::Node(node) if node == failed.node => format!(
            "Node {node}, on which the client runs, rejects the packets {prohibited}, so a firewall rule or a prohibit route on that node stops them, not the network between the nodes"
        ),
        Sender::Node(node) => format!(
            "Node {node} rejects the packets {prohibited}, so a firewall rule or a prohibit route on that node stops them"
        ),
        Sender::Probably(node, ip) => format!(
            "{ip}, which is probably an address of node {node} (it is in the Pod range of that Node, and no Pod is known to have it), rejects the packets {prohibited}, as a firewall rule or a prohibit route does"
        ),
        Sender::Client(pod) => format!(
            "The packets of Pod {pod} are rejected {prohibited} in its own network namespace, so a rule or a route there stops them"
        ),
        Sender::Endpoint(endpoint) => format!(
            "Endpoint {endpoint} itself rejects the packets {prohibited}, so a rule or a route in the network namespace of its Pod stops them"
        ),
        Sender::Hidden(target) => format!(
            "Packets to {target} are rejected {prohibited}, so a firewall rule or a prohibit route stops them. Address translation hides where: it is on node {} or further on the way to the endpoint",
            failed.node
        ),
        Sender::Other(ip) => match claimants(evidence, ip).as_slice() {
            [] => format!(
                "A machine with the address {ip}, which is not the InternalIP of a Node, rejects the packets {prohibited}, as firewalls and gateways do"
            ),
            nodes => format!(
                "{ip}, which is the InternalIP of {} ({}), rejects the packets {prohibited}, as firewalls and gateways do",
                text::count(nodes.len(), "Node"),
                text::list(nodes)
            ),
        },
    }
}

/// What to do about a sender; where it is a node, on all nodes that reject.
fn remediation(evidence: &Evidence<'_>, sender: Sender<'_>, failed: &Failed<'_>, nodes: &[&str]) -> String {
    let facts = evidence.facts;
    match sender {
        Sender::Node(_) | Sender::Probably(..) => find_rule(&format!("On {}", text::nodes(nodes))),
        Sender::Hidden(_) => find_rule(&format!(
            "On node {}, and then on the nodes of the endpoints",
            failed.node
        )),
        Sender::Client(_) | Sender::Endpoint(_) => {
            let pod = match sender {
                Sender::Client(client) => client.split_once('/'),
                _ => failed
                    .target
                    .and_then(|t| Some((facts.namespace.as_str(), t.pod?.name()))),
            };
            let pod = pod.map(|(namespace, name)| format!("{namespace}/{name}"));
            firewall_of_pods(&Places {
                of: pod.iter().map(String::as_str).collect(),
                ..Places::default()
            })
        }
        Sender::Other(ip) => match claimants(evidence, ip).as_slice() {
            [] => format!(
                "Find out which machine has the address {ip}; `ip route get {}` on node {} shows the way. Then have that firewall accept the packets of Pods.",
                failed.endpoint.map_or(ip, |e| e.ip()),
                failed.node
            ),
            claimants => find_rule(&format!("On {}", text::nodes(claimants))),
        },
    }
}

/// What to do on machines that can be looked at.
fn find_rule(on: &str) -> String {
    format!(
        "{on}, find the rule that rejects with admin-, host- or net-prohibited (`nft list ruleset`, `iptables-legacy-save`), or the route (`ip route show table all type prohibit`). If the network plugin wrote it, check its policies; otherwise have it spare the packets of Pods."
    )
}
