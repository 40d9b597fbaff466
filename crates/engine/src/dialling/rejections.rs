//! Dials that somebody rejected as administratively prohibited: who that was, and what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    dialling::{Case, cause},
    evidence::{
        Evidence,
        dials::Failed,
        dropped_text::firewall_of_pods,
        lossy_settings::Places,
        sender::{Sender, claimants},
        targets::key,
    },
    text::{self, SHOWN},
};

/// Who rejects, each once with one of its dials.
type Senders<'a, 'b> = BTreeMap<Sender<'a>, &'b Failed<'a>>;

/// Who rejects, and what to do about each. A setting that explains it names the rule.
pub(super) fn describe(evidence: &Evidence<'_>, cases: &[&Case<'_, '_>]) -> Option<(String, String)> {
    let found = senders(cases.iter().copied());
    if found.is_empty() {
        return None;
    }
    let shown = found.iter().take(SHOWN);
    let mut sentences: Vec<String> = shown.map(|(s, f)| sentence(evidence, *s, f)).collect();
    if found.len() > SHOWN
        && let Some(last) = sentences.last_mut()
    {
        last.push_str(&format!(" ({} more such findings)", found.len() - SHOWN));
    }
    let (rules, remedy) = cause::found(cases).unzip();
    sentences.extend(rules);
    // Where a rule of a node is known, that is the one to look at.
    let known: BTreeSet<&str> = cases
        .iter()
        .filter_map(|c| Some(c.explanation.as_ref()?.node.as_str()))
        .collect();
    let is_open = |c: &&Case<'_, '_>| {
        let node = c.failed.sender().and_then(Sender::node);
        c.explanation.is_none() && node.is_none_or(|node| !known.contains(node))
    };
    let open = senders(cases.iter().copied().filter(is_open));
    let remediations: Vec<String> = remedy.into_iter().chain(remediations(evidence, &open)).collect();
    Some((sentences.join(". "), remediations.join(" ")))
}

fn senders<'a, 'b: 'c, 'c>(cases: impl Iterator<Item = &'c Case<'a, 'b>>) -> Senders<'a, 'b>
where
    'a: 'c,
{
    let mut found = Senders::new();
    for case in cases {
        if let Some(by) = case.failed.sender() {
            found.entry(by).or_insert(case.failed);
        }
    }
    found
}

fn sentence(evidence: &Evidence<'_>, sender: Sender<'_>, failed: &Failed<'_>) -> String {
    let prohibited = match failed.is_prohibited() {
        true => "as administratively prohibited (ICMP)",
        false => "(ICMP)",
    };
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
        Sender::Other(ip) => match claimants(evidence.facts, ip).as_slice() {
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

/// What to do about the senders: nodes together, Pods together, and each machine that is no node.
fn remediations(evidence: &Evidence<'_>, senders: &Senders<'_, '_>) -> Vec<String> {
    let facts = evidence.facts;
    let mut nodes: BTreeSet<&str> = BTreeSet::new();
    let mut pods: BTreeSet<String> = BTreeSet::new();
    let mut machines: Vec<(IpAddr, &Failed<'_>)> = Vec::new();
    for (sender, failed) in senders {
        match sender {
            Sender::Node(node) | Sender::Probably(node, _) => nodes.extend([*node]),
            Sender::Hidden(_) => nodes.extend([failed.node]),
            Sender::Client(client) => pods.extend([(*client).to_owned()]),
            Sender::Endpoint(endpoint) => {
                let pod = evidence.ends.targets.get(endpoint).and_then(|target| target.pod);
                pods.extend(pod.map(key));
            }
            Sender::Other(ip) => match claimants(facts, *ip).as_slice() {
                [] => machines.push((*ip, failed)),
                claimants => nodes.extend(claimants),
            },
        }
    }
    let is_hidden = senders.keys().any(|s| matches!(s, Sender::Hidden(_)));
    let is_in_pods = senders
        .keys()
        .any(|s| matches!(s, Sender::Client(_) | Sender::Endpoint(_)));
    let on_nodes = (!nodes.is_empty()).then(|| {
        let nodes: Vec<&str> = nodes.iter().copied().collect();
        let then = if is_hidden {
            ", and then on the nodes of the endpoints"
        } else {
            ""
        };
        find_rule(&format!("On {}{then}", text::nodes(&nodes)))
    });
    let in_pods = is_in_pods.then(|| {
        firewall_of_pods(&Places {
            of: pods.iter().map(String::as_str).collect(),
            ..Places::default()
        })
    });
    let elsewhere = machines.into_iter().take(SHOWN).map(|(ip, failed)| {
        format!(
            "Find out which machine has the address {ip}; `ip route get {}` on node {} shows the way. Then have that firewall accept the packets of Pods.",
            failed.endpoint.map_or(ip, |e| e.ip()),
            failed.node
        )
    });
    on_nodes.into_iter().chain(in_pods).chain(elsewhere).collect()
}

/// What to do on machines that can be looked at.
fn find_rule(on: &str) -> String {
    format!(
        "{on}, find the rule that rejects with admin-, host- or net-prohibited (`nft list ruleset`, `iptables-legacy-save`), or the route (`ip route show table all type prohibit`). If the network plugin wrote it, check its policies; otherwise have it spare the packets of Pods."
    )
}
