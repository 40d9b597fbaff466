//! Which file would have told, where all that is known comes from files.

use std::{collections::BTreeSet, net::SocketAddr};

use super::super::{Facts, Finding};
use crate::api::{ConditionType as C, Reason};

/// Adds to an open question what to save and where.
pub(super) fn name(facts: &Facts, condition: C, mut finding: Finding) -> Finding {
    let looked: Vec<_> = facts.nodes.iter().filter(|n| n.probe.is_some()).collect();
    let are_files = !looked.is_empty() && looked.iter().all(|n| n.saved.is_some());
    if are_files && condition == C::EndpointsReachable && finding.reason == Reason::AllEndpointsAnswer {
        finding = if_all_were_dialled(facts, finding);
    }
    let is_open = matches!(finding.reason, Reason::NoVantagePoint | Reason::ProbeFailed);
    if let Some(what) = file(condition).filter(|_| are_files && is_open) {
        finding.message.push_str(" To tell, save ");
        finding.message.push_str(what);
    }
    finding
}

/// Agents dial every endpoint; who types may have left some out.
fn if_all_were_dialled(facts: &Facts, finding: Finding) -> Finding {
    let saved = facts.nodes.iter().filter_map(|n| n.saved.as_ref());
    let dialled: BTreeSet<&str> = saved.flat_map(|s| &s.dialled).map(String::as_str).collect();
    let mut left: BTreeSet<String> = BTreeSet::new();
    for slice in &facts.slices {
        for (_, port) in slice.numbers("TCP") {
            left.extend(slice.ready().map(|(ip, _)| SocketAddr::new(ip, port).to_string()));
        }
    }
    left.retain(|endpoint| !dialled.contains(endpoint.as_str()));
    match left.first() {
        None => finding,
        Some(first) => Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The endpoints that were dialled answer; {} were not, the first is {first}.",
                left.len()
            ),
        ),
    }
}

fn file(condition: C) -> Option<&'static str> {
    Some(match condition {
        C::EndpointsReachable => {
            "`curl IP:PORT` of each endpoint, typed on its node (nodes/NODE/curl.txt) or in a client Pod (pods/NAMESPACE/NAME/curl.txt)."
        }
        C::KubeProxyHealthy => {
            "`ps auxw` and the log of kube-proxy (nodes/NODE/ps.txt and nodes/NODE/kube-proxy.log)."
        }
        C::ProxyRulesPresent => {
            "`iptables-save`, `nft list ruleset` or `ipvsadm -ln` of the node (nodes/NODE/iptables-save.txt, nft.txt or ipvsadm.txt)."
        }
        C::ProxyForwards => "`curl CLUSTER-IP:PORT`, typed on the node (nodes/NODE/curl.txt).",
        C::ServiceReachable => {
            "`curl CLUSTER-IP:PORT`, typed in a client Pod (pods/NAMESPACE/NAME/curl.txt)."
        }
        C::DNSResolves => {
            "`nslookup` of the Service's names, typed in a client Pod (pods/NAMESPACE/NAME/nslookup.txt), and its resolv.conf."
        }
        _ => return None,
    })
}
