//! What a client got for the Service's names, and why it got nothing.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::{
        Facts,
        clients::Clients,
        pod_state::later,
        vantage::{Report, Vantage},
        words,
    },
    dns_servers,
};
use crate::{
    api::{CLibrary, Lookup, LookupResult, Reason, Resolver},
    objects::Object,
};

/// No server may keep a negative answer for longer (RFC 2308 allows more, cluster DNS does not).
const NEGATIVE_TTL_MAX: u32 = 60;

/// What a round takes: the agent's answer is at most so much older than its interval.
const ROUND: SignedDuration = SignedDuration::from_secs(30);

/// How a client fares.
pub(super) struct Client<'a> {
    pub resolver: &'a Resolver,
    pub node: &'a str,
    /// The name that it has to find.
    pub wanted: String,
    /// What came of it.
    pub result: &'static str,
    /// Whether it has found the Service.
    pub resolves: bool,
    /// Why it has not, if that is known.
    pub fault: Option<Reason>,
    /// When a wrong answer can no longer be an old one.
    pub settles_at: Option<Timestamp>,
}

impl<'a> Client<'a> {
    pub(super) fn of(
        facts: &Facts,
        vantage: &Vantage<'_>,
        report: &Report<'a>,
        resolver: &'a Resolver,
    ) -> Self {
        let service = &facts.spec.service_name;
        let is_elsewhere = Clients::namespace(facts) != facts.namespace;
        let qualified = format!("{service}.{}", facts.namespace);
        let uses_short_name = !is_elsewhere || resolver.uses_short_name;
        let short = lookup(resolver, service);
        let found = |l: Option<&Lookup>| l.is_some_and(|l| l.result == LookupResult::Found);
        // In another namespace the short name is another Service's, unless the client says otherwise.
        let wanted = if uses_short_name {
            service.clone()
        } else {
            qualified.clone()
        };
        let asked = lookup(resolver, &wanted);
        let mut client = Self {
            resolver,
            node: report.node,
            result: result(asked),
            resolves: false,
            fault: None,
            settles_at: None,
            wanted,
        };
        let Some(asked) = asked else { return client };
        let (fault, ttl) = if asked.result == LookupResult::Found {
            (
                wrong_address(facts, asked).then_some(Reason::WrongAddress),
                asked.ttl_seconds,
            )
        } else if is_elsewhere && uses_short_name && found(lookup(resolver, &qualified)) && !found(short) {
            (Some(Reason::OnlyQualifiedNameResolves), 0)
        } else {
            let ttl = asked.ttl_seconds.min(NEGATIVE_TTL_MAX);
            (why_not(facts, vantage, report, resolver, &client.wanted), ttl)
        };
        client.resolves = asked.result == LookupResult::Found && fault.is_none();
        match fault {
            Some(Reason::WrongAddress | Reason::NameNotFound) => match settles_at(facts, ttl) {
                Some(at) => client.settles_at = Some(at),
                None => client.fault = fault,
            },
            _ => client.fault = fault,
        }
        client
    }
}

fn lookup<'a>(resolver: &'a Resolver, name: &str) -> Option<&'a Lookup> {
    resolver.lookups.iter().find(|l| l.name == name)
}

fn result(lookup: Option<&Lookup>) -> &'static str {
    match lookup.map(|l| l.result) {
        Some(LookupResult::Found) => "found",
        Some(LookupResult::NotFound) => "no such name",
        Some(LookupResult::Failed) => "the server could not answer",
        Some(LookupResult::TimedOut) => "no answer in time",
        None => "not looked up",
    }
}

/// The Service's full name among the look-ups.
fn full<'a>(facts: &Facts, resolver: &'a Resolver) -> Option<&'a Lookup> {
    let start = format!("{}.{}.svc.", facts.spec.service_name, facts.namespace);
    resolver.lookups.iter().find(|l| l.name.starts_with(&start))
}

/// Why a client does not find the Service; None where what it got does not tell.
fn why_not(
    facts: &Facts,
    vantage: &Vantage<'_>,
    report: &Report<'_>,
    resolver: &Resolver,
    wanted: &str,
) -> Option<Reason> {
    let control = lookup(resolver, "kubernetes.default").map(|l| l.result);
    let full = full(facts, resolver);
    let full_found = full.is_some_and(|l| l.result == LookupResult::Found);
    let asks_cluster_dns = resolver
        .servers
        .iter()
        .any(|s| dns_servers::is_cluster_dns(facts, s));
    let own = |s: &&crate::api::DnsServer| s.from.as_deref() == Some(&resolver.pod) && !s.endpoint;
    let own: Vec<_> = report.facts.dns_servers.iter().filter(own).collect();
    let knows_cluster =
        own.iter().any(|s| s.control == LookupResult::Found) || control == Some(LookupResult::Found);
    let is_silent = |r: LookupResult| matches!(r, LookupResult::TimedOut | LookupResult::Failed);
    let all_silent = control.is_some_and(is_silent)
        && own.iter().all(|s| is_silent(s.control) && is_silent(s.result))
        && full.is_none_or(|l| is_silent(l.result));
    if !knows_cluster && !full_found {
        if asks_cluster_dns && all_silent {
            return Some(Reason::ClusterDNSUnreachable);
        }
        // Another server, or one that answers and knows nothing of the cluster.
        let answers_no = control == Some(LookupResult::NotFound)
            || own.iter().any(|s| s.control == LookupResult::NotFound);
        if (!asks_cluster_dns && (answers_no || all_silent))
            || (answers_no && dns_servers::cluster_dns_answers(facts, vantage))
        {
            return Some(Reason::NameserverNotClusterDNS);
        }
        return None;
    }
    let not_found = |l: Option<&Lookup>| l.is_some_and(|l| l.result == LookupResult::NotFound);
    if !full_found && !dns_servers::knows(report, &resolver.pod) {
        let is_unknown = dns_servers::does_not_know(report, &resolver.pod, &resolver.servers)
            || (own.is_empty() && not_found(full));
        return is_unknown.then_some(Reason::NameNotFound);
    }
    // The full name works, so that it is the client's own settings that keep it from the shorter one.
    if !not_found(lookup(resolver, wanted)) {
        return None;
    }
    if missing_suffix(facts, resolver, wanted).is_some() {
        return Some(Reason::SearchPathMissing);
    }
    // glibc tries the suffixes all the same; where the library is not known, it was not glibc.
    if resolver.c_library != CLibrary::Glibc && usize::from(resolver.ndots) <= dots(wanted) {
        return Some(Reason::NdotsTooLow);
    }
    Some(Reason::OnlyFullyQualifiedNameResolves)
}

fn dots(name: &str) -> usize {
    name.matches('.').count()
}

/// The suffix with which a name would become the full one, if the search list lacks it.
fn missing_suffix(facts: &Facts, resolver: &Resolver, wanted: &str) -> Option<String> {
    let full = full(facts, resolver)?;
    let suffix = full.name.strip_prefix(wanted)?.trim_matches('.').to_owned();
    let has = resolver.search.iter().any(|s| s.trim_matches('.') == suffix);
    (!has && !suffix.is_empty()).then_some(suffix)
}

/// Whether a name leads elsewhere than to the Service.
fn wrong_address(facts: &Facts, lookup: &Lookup) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    if service.is_external_name() {
        return false;
    }
    let right = right_addresses(facts);
    let found: Vec<IpAddr> = lookup.addresses.iter().filter_map(|a| a.parse().ok()).collect();
    !right.is_empty() && found.iter().any(|ip| !right.contains(ip))
}

/// The Service's addresses; of a headless Service those of its endpoints. One that is not ready may have
/// been so a moment ago: only an address of nobody's is wrong.
fn right_addresses(facts: &Facts) -> BTreeSet<IpAddr> {
    let Some(service) = facts.service.as_deref() else {
        return BTreeSet::new();
    };
    if service.is_headless() {
        let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
        let listed = endpoints.filter(|e| service.publishes_not_ready() || e.is_ready() || e.is_serving());
        return listed
            .flat_map(|e| &e.addresses)
            .filter_map(|a| a.parse().ok())
            .collect();
    }
    service
        .cluster_ips()
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

/// Until when an answer may be from before the last change: for so long as servers on the way may keep
/// it, and until the agent has looked once more after that.
fn settles_at(facts: &Facts, ttl: u32) -> Option<Timestamp> {
    let service = facts.service.as_deref()?;
    let mut changes = vec![service.changed_at()];
    if service.is_headless() {
        // The names of such a Service follow its endpoints.
        changes.extend(facts.slices.iter().map(|s| s.changed_at()));
        changes.extend(facts.selected_pods().iter().map(|pod| {
            let turned = pod.condition("Ready").and_then(|c| c.last_transition_time);
            turned.max(pod.metadata.deletion_timestamp.as_ref().map(|t| t.0))
        }));
    }
    let changed = changes.into_iter().flatten().max()?;
    let at = later(changed, SignedDuration::from_secs(i64::from(ttl)));
    let at = later(
        at,
        SignedDuration::from_secs(i64::from(facts.spec.interval_seconds)),
    );
    let at = later(at, ROUND);
    (at > facts.now).then_some(at)
}

/// What is odd about a client that finds the Service.
pub(super) fn hint(client: &Client<'_>) -> Option<String> {
    let resolver = client.resolver;
    // Others search all the same; musl has found it here in spite of that.
    (usize::from(resolver.ndots) <= dots(&client.wanted)
        && resolver.c_library != CLibrary::Musl
        && !resolver.search.is_empty())
    .then(|| {
        format!(
            "With ndots:{} a client whose image uses musl would not find {} (Pod {}).",
            resolver.ndots, client.wanted, resolver.pod
        )
    })
}

pub(super) fn told(
    facts: &Facts,
    vantage: &Vantage<'_>,
    reason: Reason,
    clients: &[&Client<'_>],
) -> (String, String) {
    let Some(first) = clients.first() else {
        return (String::new(), String::new());
    };
    let resolver = first.resolver;
    let who: Vec<String> = clients
        .iter()
        .map(|c| format!("Pod {} on node {}", c.resolver.pod, c.node))
        .collect();
    let who = words::list(&who);
    let (client_namespace, pod) = resolver.pod.split_once('/').unwrap_or(("", &resolver.pod));
    let servers = words::list(&resolver.servers);
    let wanted = &first.wanted;
    let full = full(facts, resolver).map(|l| l.name.as_str()).unwrap_or_default();
    let dns = facts
        .cluster_dns
        .as_ref()
        .map(|d| (d.service.namespace(), d.service.name()));
    let diagnose = dns.map_or_else(
        || "Diagnose the cluster's DNS servers.".to_owned(),
        |(namespace, name)| format!("Diagnose cluster DNS itself: `svcdiag check {name} -n {namespace}`; its log: `kubectl -n {namespace} logs -l k8s-app=kube-dns`."),
    );
    let works = working_names(resolver);
    let settings = format!(
        "`kubectl -n {client_namespace} get pod {pod} -o jsonpath='{{.spec.dnsPolicy}} {{.spec.dnsConfig}}'`"
    );
    match reason {
        Reason::ClusterDNSUnreachable => (
            format!(
                "Cluster DNS ({servers}) does not answer {who}: neither {wanted} nor kubernetes.default could be looked up."
            ),
            diagnose,
        ),
        Reason::NameserverNotClusterDNS => {
            let own = facts
                .cluster_dns
                .as_ref()
                .map(|d| words::list(&d.service.cluster_ips()))
                .filter(|ips| !ips.is_empty());
            let is = own.map_or_else(String::new, |ips| format!(" (that is {ips})"));
            let seen = if dns_servers::cluster_dns_answers(facts, vantage) {
                ", though cluster DNS answers others"
            } else {
                ""
            };
            (
                format!(
                    "The name servers of {who} ({servers}) are not cluster DNS and do not know kubernetes.default{seen}."
                ),
                format!(
                    "Let the Pod ask cluster DNS{is}: remove dnsPolicy and dnsConfig.nameservers from its template, or mend the kubelet's clusterDNS; what it has now: {settings}."
                ),
            )
        }
        Reason::NameNotFound => (
            format!("Cluster DNS ({servers}) knows kubernetes.default but not {full}, asked by {who}."),
            diagnose,
        ),
        Reason::SearchPathMissing => {
            let suffix = missing_suffix(facts, resolver, wanted).unwrap_or_default();
            (
                format!("The search list of {who} lacks {suffix}, so that {wanted} is not found; {works}."),
                format!(
                    "Add the suffix to the Pod's search list (dnsConfig.searches), or leave the list to dnsPolicy ClusterFirst; or let the client use a name that works. What it has now: {settings}."
                ),
            )
        }
        Reason::NdotsTooLow => (
            format!(
                "{who} has ndots:{} and an image with musl, which then does not try the search list for {wanted}; {works}.",
                resolver.ndots
            ),
            format!(
                "Raise ndots in the Pod's template (dnsConfig.options; Kubernetes' own value is 5), or let the client use a name that works. What it has now: {settings}."
            ),
        ),
        Reason::OnlyQualifiedNameResolves => (
            format!(
                "{who} uses the name {wanted}, which is one of its own namespace {client_namespace}; {works}."
            ),
            format!(
                "Let the client use {wanted}.{}: {}.",
                facts.namespace,
                format_args!("`kubectl -n {client_namespace} get pod {pod} -o yaml` shows how it is told")
            ),
        ),
        Reason::OnlyFullyQualifiedNameResolves => (
            format!("{who} does not find {wanted} though its search list has the suffix; {works}."),
            format!("Let the client use a name that works; see what its resolver is told: {settings}."),
        ),
        _ => {
            let found = lookup(resolver, wanted)
                .map(|l| words::list(&l.addresses))
                .unwrap_or_default();
            let right: Vec<String> = right_addresses(facts).iter().map(ToString::to_string).collect();
            (
                format!(
                    "{who} gets {found} for {wanted}, but the Service has {}.",
                    words::list(&right)
                ),
                format!(
                    "{diagnose} See what keeps the old answer: an entry in spec.hostAliases, a cache, or DNS Pods that no longer hear from the API server."
                ),
            )
        }
    }
}

/// Which of the names a client can use.
fn working_names(resolver: &Resolver) -> String {
    let works: Vec<&str> = resolver
        .lookups
        .iter()
        .filter(|l| l.result == LookupResult::Found && l.name != "kubernetes.default")
        .map(|l| l.name.as_str())
        .collect();
    if works.is_empty() {
        "asked directly, cluster DNS knows the full name".to_owned()
    } else {
        let verb = if works.len() == 1 { "works" } else { "work" };
        format!("{} {verb}", words::list(&works))
    }
}
