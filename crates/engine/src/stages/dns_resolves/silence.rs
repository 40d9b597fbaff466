//! Who does not answer a client's questions: cluster DNS, the way to its Service, or the node's own cache.

use std::net::IpAddr;

use crate::{
    Facts,
    stages::dns_resolves::{
        cache::{cache_of, is_cache, see_cache},
        names::Client,
    },
    text::quoted,
};
use svcdiag_api::{DnsServer, LookupResult};
use svcdiag_objects::Object;

/// Who does not answer, and what to look at.
pub(super) struct Silent {
    /// For the beginning of a sentence.
    pub who: String,
    /// What else was seen, as the end of that sentence.
    pub although: String,
    /// What to do.
    pub remediation: String,
}

impl Silent {
    pub(super) fn of(facts: &Facts, client: &Client<'_>) -> Self {
        let servers = client.resolver.servers.join(", ");
        let node = client.report.node;
        let endpoints: Vec<&DnsServer> = client
            .report
            .facts
            .dns_servers
            .iter()
            .filter(|s| s.endpoint && s.from.as_deref() == Some(&client.resolver.pod))
            .collect();
        let answers = |s: &&&DnsServer| s.control == LookupResult::Found;
        let answering = endpoints.iter().filter(answers).min_by_key(|s| &s.server);
        let although = answering.map_or_else(String::new, |s| {
            format!(
                " A Pod of cluster DNS does answer when queried directly ({}).",
                s.server
            )
        });
        let asks_cache = client
            .resolver
            .servers
            .iter()
            .filter_map(|s| s.parse::<IpAddr>().ok())
            .any(is_cache);
        let cache = cache_of(facts, node);
        let is_dead = cache.is_some_and(|pod| !pod.is_ready());
        // Where cluster DNS itself is silent too, a cache has nobody to ask.
        if (asks_cache || is_dead) && (endpoints.is_empty() || answering.is_some()) {
            let pod = cache.map_or_else(String::new, |pod| {
                let state = if pod.is_ready() {
                    ""
                } else {
                    ", which is not ready"
                };
                format!(", Pod {}/{}{state}", pod.namespace(), pod.name())
            });
            return Self {
                who: format!("The DNS cache of node {node} ({servers}{pod})"),
                although,
                remediation: see_cache(facts, node),
            };
        }
        Self {
            who: format!("Cluster DNS ({servers})"),
            although,
            remediation: diagnose(facts),
        }
    }
}

/// What to do where cluster DNS itself is at fault.
pub(super) fn diagnose(facts: &Facts) -> String {
    let dns = facts.cluster_dns.as_ref().map(|dns| &dns.service);
    dns.map_or_else(
        || "Diagnose the cluster's DNS servers.".to_owned(),
        |dns| {
            let (namespace, name) = (quoted(dns.namespace()), quoted(dns.name()));
            let labels: Vec<String> = dns
                .spec
                .selector
                .iter()
                .map(|(k, v)| format!("{}={}", quoted(k), quoted(v)))
                .collect();
            let log = match labels.is_empty() {
                true => String::new(),
                false => format!(
                    ", and read its log: `kubectl -n {namespace} logs -l {} --tail=50`",
                    labels.join(",")
                ),
            };
            format!("Diagnose cluster DNS: `svcdiag check {name} -n {namespace}`{log}.")
        },
    )
}
