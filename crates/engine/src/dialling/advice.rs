//! What to do about dials of which only the answer is known.

use std::net::SocketAddr;

use crate::{
    Facts,
    dialling::describe,
    evidence::{Evidence, dials::Failed, sender::rejecting_node},
    text::quoted,
};
use svcdiag_api::{Answer, DialPath, Reason};

/// What to do where only the answer is known.
pub(crate) fn advice(evidence: &Evidence<'_>, reason: Reason, failures: &[&Failed<'_>]) -> String {
    let facts = evidence.facts;
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
    let through = match first.dial.path {
        DialPath::Endpoint => "",
        _ => " that go through the Service",
    };
    match reason {
        Reason::NoRouteToHost => match rejecting_node(evidence, first) {
            Some(by) => format!(
                "Node {by} itself rejects the packets. Check there whether a firewall rule does it (`iptables -S FORWARD` or `nft list ruleset`: REJECT, icmp-host-prohibited) \
                 or whether the node has no route to {ip}: `ip route get {ip}`."
            ),
            None => format!(
                "On node {node}, check that there is a route to {ip}, if only the default route (even to the address of a Service): `ip route get {ip}`. \
                 Look also for a firewall rule that rejects the packets (REJECT, icmp-host-prohibited): `nft list ruleset`."
            ),
        },
        Reason::ConnectionRefused => {
            format!(
                "Look for a rule on node {node} that rejects packets to {ip}: `nft list ruleset` there (and `iptables-legacy-save`)."
            )
        }
        _ => format!(
            "Find out where packets to {ip}{through} are dropped, probably on node {node} and for example by a firewall. Look there at the rules (`nft list ruleset`, `iptables-legacy-save`), watch the packets while connecting (`tcpdump -ni any host {ip}`), \
             and see whether the conntrack table is full (`dmesg`, nf_conntrack)."
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
            "A service mesh proxy, next to the client or next to the Pods, cannot reach its upstream (error 111 means connection refused). Check which port the application listens on, and what the proxy logs: {log}, with the proxy's container (for example -c istio-proxy)."
        ),
        Answer::Unexpected if first.is_without_status() => {
            "Run curl again without -s, or with -v: it then says whether the connection is refused, times out or is closed.".to_owned()
        }
        Answer::Unexpected => format!(
            "Check what the application logs: {log}. If the status is the intended one, list it in spec.probe.http.expectedStatuses of the ServiceDiagnosis."
        ),
        Answer::Reset => format!(
            "Check what the application logs: {log}. Check also whether it speaks HTTP without TLS on that port and, with a service mesh, whether it accepts connections only from Pods of the mesh (mutual TLS)."
        ),
        Answer::NoAnswer => format!(
            "Check whether the application hangs or does not speak HTTP on that port: {log}. If only large responses are lost, for example those from other nodes, packets probably exceed the MTU of the path: \
             compare the MTU of the Pods, the tunnel and the nodes' interface with `ip link` on node {}.",
            quoted(first.node)
        ),
        _ => return None,
    })
}
