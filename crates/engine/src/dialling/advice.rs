//! What to do about dials of which only the answer is known.

use std::net::SocketAddr;

use crate::{Facts, dialling::describe, evidence::dials::Failed, text::quoted};
use svcdiag_api::{Answer, Reason};
use svcdiag_objects::Object;

/// What to do where only the answer is known.
pub(crate) fn advice(facts: &Facts, reason: Reason, failures: &[&Failed<'_>]) -> String {
    let Some(first) = failures.first() else {
        return String::new();
    };
    if let Some(said) = of_requests(facts, first, failures) {
        return said;
    }
    let node = first.node;
    let address = first.dial.endpoint.as_deref().unwrap_or(&first.dial.target);
    let ip = address
        .parse::<SocketAddr>()
        .map_or_else(|_| quoted(address), |a| a.ip().to_string());
    match reason {
        Reason::NoRouteToHost => match rejecting_node(facts, first) {
            Some(by) => format!(
                "Node {by} itself turns the packets away: see whether a rule of its firewall does (`iptables -S FORWARD` or `nft list ruleset` there: REJECT, icmp-host-prohibited), \
                 or whether it has no way to {ip}: `ip route get {ip}`."
            ),
            None => format!(
                "See which way node {node} sends packets to {ip}: `ip route get {ip}` there (a node needs a route, if only the default route, even to the address of a Service); \
                 and whether a rule of a firewall rejects them: `nft list ruleset` (REJECT, icmp-host-prohibited)."
            ),
        },
        Reason::ConnectionRefused => {
            format!(
                "Look for a rule on node {node} that rejects packets to {ip}: `nft list ruleset` there (and `iptables-legacy-save`)."
            )
        }
        _ => format!(
            "Look for what drops packets to {ip} on node {node}, for example a firewall: `nft list ruleset` there (and `iptables-legacy-save`), `tcpdump -ni any host {ip}` while dialling; \
             `dmesg` there tells of a full table of tracked connections (nf_conntrack)."
        ),
    }
}

/// Of connections that were made: what became of the requests.
fn of_requests(facts: &Facts, first: &Failed<'_>, failures: &[&Failed<'_>]) -> Option<String> {
    let namespace = quoted(&facts.namespace);
    let log = match describe::pods(failures).first() {
        Some(pod) => format!("`kubectl -n {namespace} logs {}`", quoted(pod)),
        None => format!(
            "`kubectl -n {namespace} logs service/{}`",
            quoted(&facts.spec.service_name)
        ),
    };
    Some(match first.answer {
        Answer::Unexpected if first.is_by_proxy() => format!(
            "The proxy of a service mesh, beside the client or beside the Pods, does not reach whom it is to pass requests on to (error 111 is a refused connection). See on which port the application listens, and what the proxy says: {log}, in the log of its own container (-c istio-proxy, say)."
        ),
        Answer::Unexpected if first.is_without_status() => {
            "Ask again without -s, or with -v: curl then says whether the connection is refused, times out or is closed.".to_owned()
        }
        Answer::Unexpected => format!(
            "See what the application says of it: {log}; if the status is as it should be, list it in spec.probe.http.expectedStatuses."
        ),
        Answer::Reset => format!(
            "See what the application says of it: {log}; whether it speaks HTTP on that port without TLS; and, with a service mesh, whether it takes connections of its own Pods only (mutual TLS)."
        ),
        Answer::NoAnswer => format!(
            "See whether the application hangs or speaks no HTTP on that port: {log}. Where only large answers are lost, as from other nodes, packets are larger than the way takes (MTU): \
             compare the MTU of the Pods, of the tunnel and of the nodes' link with `ip link` on node {}.",
            quoted(first.node)
        ),
        _ => return None,
    })
}

/// The node that said that there is no way, where its message tells.
pub(crate) fn rejecting_node<'a>(facts: &'a Facts, failed: &Failed<'_>) -> Option<&'a str> {
    let detail = failed.dial.detail.as_deref()?;
    let by = detail.split_whitespace().next_back()?.parse().ok()?;
    let mut nodes = facts.cluster_nodes.iter();
    nodes.find(|n| n.internal_ips().contains(&by)).map(|n| n.name())
}

/// Whether the message said that packets are not let through, as rules do.
pub(crate) fn is_prohibited(failed: &Failed<'_>) -> bool {
    let detail = failed.dial.detail.as_deref();
    detail.is_some_and(|detail| detail.starts_with("prohibited by "))
}
