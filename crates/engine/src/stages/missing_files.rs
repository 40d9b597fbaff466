//! Which file would have told, where all that is known comes from files.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{Facts, Finding, NodeReport};
use svcdiag_api::{ConditionType as C, DialPath, Reason};
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
    if let Some(what) = file(told_by).filter(|_| are_files && is_open) {
        // What a parser says has no full stop.
        if !finding.message.ends_with('.') {
            finding.message.push('.');
        }
        finding.message.push_str(" To find out, save ");
        finding.message.push_str(what);
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
    let saved = facts.nodes.iter().filter_map(|n| n.saved.as_ref());
    let dialled: BTreeSet<&str> = saved.flat_map(|s| &s.dialled).map(String::as_str).collect();
    let mut left: BTreeSet<String> = BTreeSet::new();
    for slice in &facts.slices {
        for (_, port) in slice.numbers(&Open::Known(Protocol::Tcp)) {
            left.extend(slice.ready().map(|(ip, _)| SocketAddr::new(ip, port).to_string()));
        }
    }
    left.retain(|endpoint| !dialled.contains(endpoint.as_str()));
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

fn file(condition: C) -> Option<&'static str> {
    Some(match condition {
        C::EndpointsReachable => {
            "the output of `curl IP:PORT` for each endpoint, run on its node (nodes/NODE/curl.txt) or in a client Pod (pods/NAMESPACE/NAME/curl.txt)."
        }
        C::KubeProxyHealthy => {
            "the output of `ps auxw` and the log of kube-proxy (nodes/NODE/ps.txt and nodes/NODE/kube-proxy.log)."
        }
        C::ProxyRulesPresent => {
            "the output of `iptables-save`, `nft list ruleset` or `ipvsadm -ln` on the node (nodes/NODE/iptables-save.txt, nft.txt or ipvsadm.txt)."
        }
        C::ProxyForwards => "the output of `curl CLUSTER-IP:PORT`, run on the node (nodes/NODE/curl.txt).",
        C::ServiceReachable => {
            "the output of `curl CLUSTER-IP:PORT`, run in a client Pod (pods/NAMESPACE/NAME/curl.txt)."
        }
        C::DNSResolves => {
            "the output of `nslookup` or `getent hosts` for the Service's names, run in a client Pod (pods/NAMESPACE/NAME/nslookup.txt), and its resolv.conf."
        }
        _ => return None,
    })
}
