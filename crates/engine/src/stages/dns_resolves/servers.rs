//! DNS servers one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Facts, Finding,
    evidence::{Evidence, reports::Report},
    stages::dns_resolves::{
        cache::{is_cache, see_cache},
        lookups::{CONTROL, full, lookup},
    },
    text::{self, SHOWN, quoted},
};
use svcdiag_api::{CLibrary, DnsServer, LookupResult, Reason, Resolver};
use svcdiag_objects::{Object, Pod};

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
    let Some(dns) = &facts.cluster_dns else {
        // Which address is cluster DNS is not known, so that any may be.
        return true;
    };
    is_cache(ip)
        || crate::evidence::targets::is_address_of(&dns.service, ip)
        || dns
            .pods
            .iter()
            .any(|pod| pod.ips().any(|own| own.parse() == Ok(ip)))
}

/// Whether somebody got cluster DNS to tell that it knows the cluster.
pub(super) fn cluster_dns_answers(evidence: &Evidence<'_>) -> bool {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let all = reports.current.iter().flat_map(|r| &r.facts.dns_servers);
    all.into_iter().any(|s| {
        s.control == LookupResult::Found
            && (s.endpoint || s.from.is_none() || is_cluster_dns(facts, &s.server))
    })
}

/// What a client's own servers answered, asked one by one.
pub(super) fn own<'a>(report: &Report<'a>, pod: &str) -> Vec<&'a DnsServer> {
    let all = report.facts.dns_servers.iter();
    all.filter(|s| s.from.as_deref() == Some(pod) && !s.endpoint)
        .collect()
}

/// Why none of a client's servers knows the cluster; None where what it got does not tell.
pub(super) fn why_none_knows_the_cluster(
    evidence: &Evidence<'_>,
    report: &Report<'_>,
    resolver: &Resolver,
) -> Option<Reason> {
    let facts = evidence.facts;
    let reports = &evidence.reports;
    let control = lookup(resolver, CONTROL);
    let full = full(facts, resolver);
    let own = own(report, &resolver.pod);
    let asks_cluster_dns = resolver.servers.iter().any(|s| is_cluster_dns(facts, s));
    let fails = |r: LookupResult| matches!(r, LookupResult::TimedOut | LookupResult::Failed);
    let all_fail = control.is_some_and(|l| fails(l.result))
        && own.iter().all(|s| fails(s.control) && fails(s.result))
        && full.is_none_or(|l| fails(l.result));
    if asks_cluster_dns && all_fail {
        let has_code = control.is_some_and(|l| l.code.is_some()) || own.iter().any(|s| s.code.is_some());
        return Some(match has_code {
            true => Reason::ClusterDNSFailing,
            false => Reason::ClusterDNSUnreachable,
        });
    }
    let denied = |l: Option<&svcdiag_api::Lookup>| l.is_some_and(|l| l.result == LookupResult::NotFound);
    let is_denied = denied(control) || own.iter().any(|s| s.control == LookupResult::NotFound);
    // Whether it is cluster DNS for sure: neither a cache nor just any server where nobody knows the right one.
    let is_certain = |s: &String| s.parse().is_ok_and(|ip| !is_cache(ip)) && is_cluster_dns(facts, s);
    let is_certain = facts.cluster_dns.is_some() && resolver.servers.iter().any(is_certain);
    let others_know = cluster_dns_answers(evidence);
    // Another server, or one that answers and knows nothing of the cluster.
    if !asks_cluster_dns && (is_denied || all_fail || denied(full)) || is_denied && !is_certain && others_know
    {
        return Some(Reason::NameserverNotClusterDNS);
    }
    // By hand the control is often looked up with a tool that does not search; the full name needs none.
    let is_sure = own.iter().any(|s| s.control == LookupResult::NotFound) || denied(control) && denied(full);
    let domain = searched_domain(facts, resolver)?;
    // Nodes ask in the cluster's own domain.
    let by_nodes = reports.current.iter().flat_map(|r| &r.facts.dns_servers);
    let by_nodes = by_nodes.filter(|s| s.from.is_none());
    let is_elsewhere = own
        .iter()
        .copied()
        .chain(by_nodes)
        .any(|s| s.domain.as_ref().is_some_and(|other| other != domain));
    (is_certain && is_sure && (is_elsewhere || !others_know)).then_some(Reason::ClusterDomainMismatch)
}

/// The cluster's domain as a client has it: in the diagnosis, else in its search list.
pub(super) fn searched_domain<'a>(facts: &'a Facts, resolver: &'a Resolver) -> Option<&'a str> {
    let searched = || {
        let mut search = resolver.search.iter();
        search.find_map(|suffix| suffix.trim_matches('.').strip_prefix("svc."))
    };
    facts.spec.cluster_domain.as_deref().or_else(searched)
}

/// Whether cluster DNS, asked for the full name, says that there is none though it knows the cluster.
pub(super) fn does_not_know(report: &Report<'_>, pod: &str, servers: &[String]) -> bool {
    let mut known = own(report, pod);
    known.retain(|s| servers.contains(&s.server) && s.control == LookupResult::Found);
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

/// A server, and what came of asking it: by which report, and what it answered.
struct Server<'a> {
    address: &'a str,
    /// Whether it is an endpoint of cluster DNS, asked past its Service.
    is_endpoint: bool,
    answers: Vec<(&'a Report<'a>, &'a DnsServer)>,
}

impl Server<'_> {
    /// Its address, with what is known of it.
    fn describe(&self, facts: &Facts) -> String {
        let pod = pod_at(facts, self.address).map(|pod| format!("Pod {}", pod.name()));
        let code = self.answers.iter().filter_map(|(_, s)| s.code.as_deref()).min();
        let code = code.map(|code| format!("answers {code}"));
        let about: Vec<String> = pod.into_iter().chain(code).collect();
        match about.is_empty() {
            true => self.address.to_owned(),
            false => format!("{} ({})", self.address, about.join(", ")),
        }
    }

    /// Who asked it.
    fn asked_from(&self) -> BTreeSet<String> {
        let asked = self.answers.iter();
        asked
            .filter_map(|(report, s)| Some(format!("Pod {} on node {}", s.from.as_deref()?, report.node)))
            .collect()
    }

    fn remediation(&self, facts: &Facts) -> String {
        match (pod_at(facts, self.address), &facts.cluster_dns) {
            (Some(pod), Some(dns)) => format!(
                "Diagnose cluster DNS: `svcdiag check {} -n {ns}`. Check the Pod: `kubectl -n {ns} describe pod {pod}`, and its log: `kubectl -n {ns} logs {pod}`.",
                quoted(dns.service.name()),
                ns = quoted(pod.namespace()),
                pod = quoted(pod.name())
            ),
            (None, Some(dns)) if self.is_endpoint => format!(
                "Check the endpoints of cluster DNS: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={}`.",
                quoted(dns.service.namespace()),
                quoted(dns.service.name())
            ),
            _ if self.address.parse().is_ok_and(is_cache) => {
                let node = self.answers.iter().map(|(r, _)| r.node).min();
                see_cache(facts, node.unwrap_or_default())
            }
            _ => format!(
                "Remove {} from the Pod's name servers (spec.dnsConfig, or the kubelet's clusterDNS), or fix that server.",
                self.address
            ),
        }
    }
}

/// Servers that nobody got an answer from, beside others that answer the same client: so a policy that
/// keeps a client from all of them is not mistaken for a fault. Only those count that a client waits for.
pub(super) fn some_fail(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    let failing = failing(evidence);
    let first = failing.first()?;
    let mut by_client: BTreeMap<BTreeSet<String>, Vec<String>> = BTreeMap::new();
    for server in &failing {
        let servers = by_client.entry(server.asked_from()).or_default();
        servers.push(server.describe(facts));
    }
    let sentences = by_client.iter().take(SHOWN).map(|(from, servers)| {
        let from: Vec<&String> = from.iter().collect();
        let servers = match servers.as_slice() {
            [one] => format!("DNS server {one} does not answer"),
            several => format!("DNS servers {} do not answer", text::list(several)),
        };
        format!("{servers} properly when queried from {}", text::list(&from))
    });
    let sentences: Vec<String> = sentences.collect();
    Some(Finding::part_fails(
        Reason::SomeDNSServersFailing,
        format!(
            "{}, so names may resolve slowly or only sometimes.",
            sentences.join(". ")
        ),
        first.remediation(facts),
    ))
}

/// The servers that fail, and that a client waits for.
fn failing<'a>(evidence: &'a Evidence<'_>) -> Vec<Server<'a>> {
    let mut asked: BTreeMap<(&str, bool), Vec<(&Report<'_>, &DnsServer)>> = BTreeMap::new();
    for report in &evidence.reports.current {
        for server in report.facts.dns_servers.iter().filter(|s| s.from.is_some()) {
            let answers = asked.entry((&server.server, server.endpoint)).or_default();
            answers.push((report, server));
        }
    }
    let servers = asked.into_iter().map(|((address, is_endpoint), answers)| Server {
        address,
        is_endpoint,
        answers,
    });
    let fails = |server: &Server<'_>| {
        is_of_today(evidence.facts, server.address, server.is_endpoint)
            && server.answers.iter().all(|(_, s)| !answers(s))
            && server.answers.iter().any(|(report, s)| is_waited_for(report, s))
    };
    servers.filter(fails).collect()
}

/// Whether a client has to wait for a server that fails, while others answer. Of cluster DNS' own Pods any
/// may be asked. Of the servers in resolv.conf the first one is, the others only if it fails, unless they
/// are asked in turn; musl asks all at once and takes the first answer.
fn is_waited_for(report: &Report<'_>, failing: &DnsServer) -> bool {
    let others = report.facts.dns_servers.iter();
    let answering: Vec<&str> = others
        .filter(|s| s.from == failing.from && s.endpoint == failing.endpoint && answers(s))
        .map(|s| s.server.as_str())
        .collect();
    if failing.endpoint {
        return !answering.is_empty();
    }
    let mut resolvers = report.facts.resolvers.iter();
    resolvers.any(|resolver| {
        let place = |server: &str| resolver.servers.iter().position(|s| s == server);
        let first = answering.iter().filter_map(|server| place(server)).min();
        let places = first.zip(place(&failing.server));
        Some(&resolver.pod) == failing.from.as_ref()
            && resolver.c_library != CLibrary::Musl
            && places.is_some_and(|(first, own)| resolver.rotate || own < first)
    })
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
