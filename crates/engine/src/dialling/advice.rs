//! What to do about dials of which only the answer is known.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts,
    dialling::{addresses, describe},
    evidence::{Evidence, dials::Failed, sender::Sender},
    text::{self, quoted},
};
use svcdiag_api::{Answer, DialPath, IpFamily, Reason};

/// What to do where only the answer is known.
pub(crate) fn advice(evidence: &Evidence<'_>, reason: Reason, failures: &[&Failed<'_>]) -> String {
    let facts = evidence.facts;
    let Some(first) = failures.first() else {
        return String::new();
    };
    if let Some(said) = of_requests(facts, first, failures) {
        return said;
    }
    let address = first.dial.endpoint.as_deref().unwrap_or(&first.dial.target);
    let ip = host(address);
    let through = match first.dial.path {
        DialPath::Endpoint => "",
        _ => " that go through the Service",
    };
    match reason {
        Reason::NoRouteToHost => no_route(evidence, first),
        Reason::ConnectionRefused => {
            // Where a node says that it rejects them, those that dialled do not.
            let rejecting = failures
                .iter()
                .map(|f| f.sender().and_then(Sender::node).unwrap_or(f.node));
            let nodes: BTreeSet<&str> = rejecting.collect();
            let nodes: Vec<&str> = nodes.into_iter().collect();
            format!(
                "Look for a rule on {} that rejects packets to {ip}: `nft list ruleset` there (and `iptables-legacy-save`).",
                text::nodes(&nodes)
            )
        }
        _ => {
            let nodes: Vec<&str> = addresses::ends(failures).into_iter().collect();
            format!(
                "Find out where packets to {ip}{through} are dropped, for example by a firewall. On {}, look at the rules (`nft list ruleset`, `iptables-legacy-save`), {}, \
                 and see whether the conntrack table is full (`dmesg`, nf_conntrack).",
                text::nodes(&nodes),
                watch(evidence, first)
            )
        }
    }
}

/// The address of an address with a port.
fn host(address: &str) -> String {
    address
        .parse::<SocketAddr>()
        .map_or_else(|_| quoted(address), |a| a.ip().to_string())
}

/// Where the packets of a dial may go: to the endpoint that is known, or else to those of the Service.
fn endpoints(evidence: &Evidence<'_>, failed: &Failed<'_>) -> BTreeSet<SocketAddr> {
    match failed.endpoint {
        Some(endpoint) => BTreeSet::from([endpoint]),
        None => {
            let all = evidence.ends.targets.keys().copied();
            all.filter(|e| IpFamily::of(e.ip()) == failed.family()).collect()
        }
    }
}

fn no_route(evidence: &Evidence<'_>, first: &Failed<'_>) -> String {
    let of_node = first.from_host || first.dial.path == DialPath::Endpoint;
    let ips: BTreeSet<IpAddr> = endpoints(evidence, first).iter().map(SocketAddr::ip).collect();
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    // A node routes its own packets to the Service before they are translated, and those of Pods afterwards.
    let (to, ip) = match ips.first() {
        Some(first) if !of_node => (text::list(&ips), first.clone()),
        _ => {
            let ip = host(first.dial.endpoint.as_deref().unwrap_or(&first.dial.target));
            (ip.clone(), ip)
        }
    };
    let a_route = if ips.len() > 1 && !of_node {
        "are routes"
    } else {
        "is a route"
    };
    let is_to_service = of_node && first.dial.path == DialPath::Service;
    match first.sender().and_then(Sender::node_text) {
        Some(by) => format!(
            "{by} itself rejects the packets. Check there whether a firewall rule does it (`iptables -S FORWARD` or `nft list ruleset`: REJECT with icmp-host-unreachable or icmp-host-prohibited) \
             or whether the node has no route to {to}: `ip route get {ip}`."
        ),
        None => format!(
            "On node {}, check that there {a_route} to {to}{}: `ip route get {ip}`. \
             Look also for a firewall rule that rejects the packets (REJECT with icmp-host-unreachable or icmp-host-prohibited): `nft list ruleset`.",
            first.node,
            match is_to_service {
                true => ", if only the default route (even to the address of a Service)",
                false => "",
            }
        ),
    }
}

/// How to see the packets of a dial. What a node sends to the Service is translated before tcpdump can see it.
fn watch(evidence: &Evidence<'_>, failed: &Failed<'_>) -> String {
    let ip = host(&failed.dial.target);
    let ports: BTreeSet<u16> = endpoints(evidence, failed).iter().map(SocketAddr::port).collect();
    let protocol = if failed.dial.port.is_udp() { "udp" } else { "tcp" };
    match (failed.dial.path, ports.first()) {
        (DialPath::Endpoint, _) | (_, None) => {
            format!("watch the packets while connecting (`tcpdump -ni any host {ip}`)")
        }
        (_, Some(port)) if failed.from_host => {
            format!(
                "watch the translated packets while connecting (`tcpdump -ni any {protocol} port {port}`)"
            )
        }
        (_, Some(port)) => {
            format!(
                "watch the packets while connecting (`tcpdump -ni any host {ip} or {protocol} port {port}`)"
            )
        }
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
