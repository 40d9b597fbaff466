//! DNS servers one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::super::{
    Facts, Finding,
    vantage::{Report, Vantage},
    words,
};
use crate::{
    api::{DnsServer, LookupResult, Reason},
    objects::{Object, Pod},
};

/// What came of asking one server: on which node, and what it answered.
type Looks<'a> = Vec<(&'a str, &'a DnsServer)>;

/// Whether a server said something, be it that there is no such name.
fn answers(server: &DnsServer) -> bool {
    matches!(server.control, LookupResult::Found | LookupResult::NotFound)
        || matches!(server.result, LookupResult::Found | LookupResult::NotFound)
}

/// Whether an address is cluster DNS: its Service, one of its Pods, or a cache on the node.
pub(super) fn is_cluster_dns(facts: &Facts, address: &str) -> bool {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return false;
    };
    let is_link_local = match ip {
        // NodeLocal DNSCache listens at 169.254.20.10.
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let Some(dns) = &facts.cluster_dns else {
        // Which address is cluster DNS is not known, so that any may be.
        return true;
    };
    is_link_local
        || super::super::targets::is_address_of(&dns.service, ip)
        || dns
            .pods
            .iter()
            .any(|pod| pod.ips().any(|own| own.parse() == Ok(ip)))
}

/// Whether somebody got cluster DNS to tell that it knows the cluster.
pub(super) fn cluster_dns_answers(facts: &Facts, vantage: &Vantage<'_>) -> bool {
    let all = vantage.reports.iter().flat_map(|r| &r.facts.dns_servers);
    all.into_iter().any(|s| {
        s.control == LookupResult::Found
            && (s.endpoint || s.from.is_none() || is_cluster_dns(facts, &s.server))
    })
}

/// Whether cluster DNS, asked for the full name, says that there is none though it knows the cluster.
pub(super) fn does_not_know(report: &Report<'_>, pod: &str, servers: &[String]) -> bool {
    let own = report
        .facts
        .dns_servers
        .iter()
        .filter(|s| s.from.as_deref() == Some(pod) && !s.endpoint && servers.contains(&s.server));
    let known: Vec<&DnsServer> = own.filter(|s| s.control == LookupResult::Found).collect();
    !known.is_empty() && known.iter().all(|s| s.result == LookupResult::NotFound)
}

/// Whether cluster DNS, asked for the full name by this client, knows it.
pub(super) fn knows(report: &Report<'_>, pod: &str) -> bool {
    report
        .facts
        .dns_servers
        .iter()
        .any(|s| s.from.as_deref() == Some(pod) && s.result == LookupResult::Found)
}

/// Servers that nobody got an answer from, beside others that answer the same client: so a policy that
/// keeps a client from all of them is not mistaken for a fault.
pub(super) fn some_fail(facts: &Facts, vantage: &Vantage<'_>) -> Option<Finding> {
    let mut asked: BTreeMap<(&str, bool), Looks<'_>> = BTreeMap::new();
    for report in &vantage.reports {
        for server in report.facts.dns_servers.iter().filter(|s| s.from.is_some()) {
            asked
                .entry((&server.server, server.endpoint))
                .or_default()
                .push((report.node, server));
        }
    }
    let others_answer = |(node, silent): &(&str, &DnsServer)| {
        asked.iter().any(|((address, endpoint), looks)| {
            *address != silent.server
                && *endpoint == silent.endpoint
                && looks
                    .iter()
                    .any(|(n, s)| n == node && s.from == silent.from && answers(s))
        })
    };
    let failing: Vec<(&str, bool, &Looks<'_>)> = asked
        .iter()
        .filter(|((address, endpoint), looks)| {
            is_of_today(facts, address, *endpoint)
                && looks.iter().all(|(_, s)| !answers(s))
                && looks.iter().any(others_answer)
        })
        .map(|((address, endpoint), looks)| (*address, *endpoint, looks))
        .collect();
    let (first, is_endpoint, looks) = failing.first().copied()?;
    let names: Vec<String> = failing
        .iter()
        .map(|(address, _, _)| match pod_at(facts, address) {
            Some(pod) => format!("{address} (Pod {})", pod.name()),
            None => (*address).to_owned(),
        })
        .collect();
    let from: BTreeSet<String> = looks
        .iter()
        .filter_map(|(node, s)| Some(format!("Pod {} on node {node}", s.from.as_deref()?)))
        .collect();
    let from: Vec<String> = from.into_iter().collect();
    let message = format!(
        "Some DNS servers do not answer, so that names resolve late or now and then: {}, asked from {}.",
        words::list(&names),
        words::list(&from)
    );
    let remediation = match (pod_at(facts, first), &facts.cluster_dns) {
        (Some(pod), Some(dns)) => format!(
            "Diagnose cluster DNS itself: `svcdiag check {} -n {ns}`; see the Pod: `kubectl -n {ns} logs {pod}`; have it made anew: `kubectl -n {ns} delete pod {pod}`.",
            dns.service.name(),
            ns = pod.namespace(),
            pod = pod.name()
        ),
        _ if is_endpoint => "See the endpoints of cluster DNS: `kubectl -n kube-system get endpointslices -l k8s-app=kube-dns`.".to_owned(),
        _ => format!("Take {first} out of the Pod's nameservers (spec.dnsConfig, or the kubelet's clusterDNS), or mend that server."),
    };
    Some(Finding::part_fails(
        Reason::SomeDNSServersFailing,
        message,
        remediation,
    ))
}

fn pod_at<'a>(facts: &'a Facts, address: &str) -> Option<&'a Pod> {
    let ip: IpAddr = address.parse().ok()?;
    let pods = facts.cluster_dns.as_ref()?.pods.iter().map(AsRef::as_ref);
    let mut at: Vec<&Pod> = pods
        .filter(|p: &&Pod| p.ips().any(|own| own.parse() == Ok(ip)))
        .collect();
    at.sort_by_key(|p| (p.name(), p.metadata.uid.as_deref()));
    at.first().copied()
}

/// Whether an endpoint of cluster DNS is still one; Pods that go are silent as they should be.
fn is_of_today(facts: &Facts, address: &str, endpoint: bool) -> bool {
    if !endpoint {
        return true;
    }
    let pods = facts
        .cluster_dns
        .as_ref()
        .map(|dns| dns.pods.len())
        .unwrap_or_default();
    pods == 0 || pod_at(facts, address).is_some_and(|p| p.is_ready() && !p.is_terminating())
}
