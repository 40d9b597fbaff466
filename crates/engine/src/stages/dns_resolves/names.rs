//! What a client gets for the Service's names, and why it gets nothing.
//!
//! A client has to find one name: the short one in the Service's namespace, elsewhere the one with the
//! namespace. The others are judged too, since programs use any of them: one that leads elsewhere, or that
//! something hides, is a fault of a part. That a name lacks its suffix in a search list, or has too many dots
//! for it, is the client's own choice, and counts only where somebody looked that name up by hand.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use crate::{
    Facts,
    clients::Clients,
    evidence::{Evidence, reports::Report},
    stages::dns_resolves::{
        lookups::{CONTROL, dots, external_name, full, lookup, missing_suffix},
        servers,
    },
    time::later,
};
use svcdiag_api::{CLibrary, Lookup, LookupResult, Reason, Resolver};
use svcdiag_objects::Object;

/// No server may keep a negative answer for longer (RFC 2308 allows more, cluster DNS does not).
const NEGATIVE_TTL_MAX: u32 = 60;

/// What a round takes: the agent's answer is at most so much older than its interval.
const ROUND: SignedDuration = SignedDuration::from_secs(30);

/// How a client fares.
pub(super) struct Client<'a> {
    pub report: Report<'a>,
    pub resolver: &'a Resolver,
    /// The name that it has to find; where another one fails, that one.
    pub name: String,
    /// Whether it has found the Service by the name that it has to find.
    pub resolves: bool,
    /// What is wrong with the name, if that is known.
    pub fault: Option<Reason>,
    /// Whether other names lead it to the Service.
    pub is_partly: bool,
    /// When a wrong answer can no longer be an old one.
    pub settles_at: Option<Timestamp>,
}

/// What a look-up says of a name.
enum Verdict {
    Works,
    /// It fails, and the answer may have been kept for so many seconds.
    Wrong(Reason, u32),
    Open,
}

impl<'a> Client<'a> {
    pub(super) fn of(evidence: &Evidence<'_>, report: Report<'a>, resolver: &'a Resolver) -> Self {
        let facts = evidence.facts;
        let names = names(facts, resolver);
        let judge = |name: &String| judge(evidence, &report, resolver, name);
        let verdicts: Vec<Verdict> = names.iter().map(judge).collect();
        let works = |v: &Verdict| matches!(v, Verdict::Works);
        let is_found = verdicts.first().is_some_and(works);
        let is_asked = names.first().is_some_and(|n| lookup(resolver, n).is_some());
        let mut client = Self {
            report,
            resolver,
            name: names.first().cloned().unwrap_or_default(),
            resolves: is_found,
            fault: None,
            is_partly: is_found || !is_asked && verdicts.iter().any(works),
            settles_at: None,
        };
        for (position, (name, verdict)) in names.into_iter().zip(verdicts).enumerate() {
            let Verdict::Wrong(mut reason, ttl) = verdict else {
                continue;
            };
            let is_choice = matches!(
                reason,
                Reason::SearchPathMissing | Reason::NdotsTooLow | Reason::OnlyFullyQualifiedNameResolves
            );
            if position > 0 && client.is_partly && is_choice {
                // What hides a name is no choice.
                if is_searched_for(facts, resolver, &name) {
                    reason = Reason::NameNotFound;
                } else if report.saved.is_none() {
                    continue;
                }
            }
            client.name = name;
            client.resolves = false;
            match reason {
                Reason::WrongAddress | Reason::NameNotFound | Reason::ExternalNameNotFound => {
                    match settles_at(facts, ttl) {
                        Some(at) => client.settles_at = Some(at),
                        None => client.fault = Some(reason),
                    }
                }
                _ => client.fault = Some(reason),
            }
            break;
        }
        client
    }
}

/// The Service's names, first the one that the client has to find.
fn names(facts: &Facts, resolver: &Resolver) -> Vec<String> {
    let service = &facts.spec.service_name;
    let qualified = format!("{service}.{}", facts.namespace);
    let mut names = Vec::new();
    // In another namespace the short name is another Service's, unless the client uses it for this one.
    if !is_elsewhere(facts) || resolver.uses_short_name && !leads_to_own(facts, resolver) {
        names.push(service.clone());
    }
    names.push(qualified.clone());
    names.push(format!("{qualified}.svc"));
    names.extend(full(facts, resolver).map(|l| l.name.clone()));
    names
}

fn is_elsewhere(facts: &Facts) -> bool {
    Clients::namespace(facts) != facts.namespace
}

/// Whether the short name is that of a Service of the client's own namespace, and rightly leads there.
fn leads_to_own(facts: &Facts, resolver: &Resolver) -> bool {
    let service = &facts.spec.service_name;
    let own = format!("{service}.{}.svc.", Clients::namespace(facts));
    lookup(resolver, service).is_some_and(|l| {
        l.result == LookupResult::Found && l.found_as.as_ref().is_none_or(|name| name.starts_with(&own))
    })
}

fn judge(evidence: &Evidence<'_>, report: &Report<'_>, resolver: &Resolver, name: &str) -> Verdict {
    let facts = evidence.facts;
    let service = &facts.spec.service_name;
    let found = |name: &str| lookup(resolver, name).is_some_and(|l| l.result == LookupResult::Found);
    let Some(asked) = lookup(resolver, name) else {
        return Verdict::Open;
    };
    if asked.result == LookupResult::Found {
        return match wrong_address(facts, asked) {
            true => Verdict::Wrong(Reason::WrongAddress, asked.ttl_seconds),
            false => Verdict::Works,
        };
    }
    if asked.result == LookupResult::Unclear {
        return Verdict::Open;
    }
    let qualified = format!("{service}.{}", facts.namespace);
    if is_elsewhere(facts) && name == service && found(&qualified) {
        return Verdict::Wrong(Reason::OnlyQualifiedNameResolves, 0);
    }
    match why_not(evidence, report, resolver, name) {
        Some(reason) => Verdict::Wrong(reason, asked.ttl_seconds.min(NEGATIVE_TTL_MAX)),
        None => Verdict::Open,
    }
}

/// Why a client does not find a name of the Service; None where what it got does not tell.
fn why_not(evidence: &Evidence<'_>, report: &Report<'_>, resolver: &Resolver, name: &str) -> Option<Reason> {
    let facts = evidence.facts;
    let full = full(facts, resolver);
    let full_found = full.is_some_and(|l| l.result == LookupResult::Found);
    let own = servers::own(report, &resolver.pod);
    let control = lookup(resolver, CONTROL);
    let knows_cluster = own.iter().any(|s| s.control == LookupResult::Found)
        || control.is_some_and(|l| l.result == LookupResult::Found);
    if !knows_cluster && !full_found {
        return servers::why_none_knows_the_cluster(evidence, report, resolver);
    }
    let not_found = |l: Option<&Lookup>| l.is_some_and(|l| l.result == LookupResult::NotFound);
    if not_found(lookup(resolver, name))
        && external_name(facts).is_some_and(|target| not_found(lookup(resolver, target)))
    {
        return Some(Reason::ExternalNameNotFound);
    }
    if !full_found && !servers::knows(report, &resolver.pod) {
        // That an alias leads nowhere is not for cluster DNS to mend.
        let is_unknown = external_name(facts).is_none_or(|t| found(lookup(resolver, t)))
            && (servers::does_not_know(report, &resolver.pod, &resolver.servers)
                || (own.is_empty() && not_found(full)));
        return is_unknown.then_some(Reason::NameNotFound);
    }
    // The full name works, so that it is the client's own settings that keep it from the shorter one. Where these
    // never make the full name of it, the failure is that of servers beyond the cluster, and no better. Others than
    // musl search all the same: what failed them may be cluster DNS, for a moment.
    let is_never_made = missing_suffix(facts, resolver, name).is_some()
        || resolver.c_library == CLibrary::Musl && !is_searched_for(facts, resolver, name);
    let is_refused = full_found
        && is_never_made
        && lookup(resolver, name).is_some_and(|l| l.result == LookupResult::Failed);
    if !not_found(lookup(resolver, name)) && !is_refused {
        return None;
    }
    if missing_suffix(facts, resolver, name).is_some() {
        return Some(Reason::SearchPathMissing);
    }
    if !is_searched_for(facts, resolver, name) {
        return Some(Reason::NdotsTooLow);
    }
    Some(Reason::OnlyFullyQualifiedNameResolves)
}

fn found(lookup: Option<&Lookup>) -> bool {
    lookup.is_some_and(|l| l.result == LookupResult::Found)
}

/// Whether the client's resolver makes the full name of this one. glibc tries the suffixes whatever ndots
/// says; where the library is not known, it was not glibc that did not find the name.
fn is_searched_for(facts: &Facts, resolver: &Resolver, name: &str) -> bool {
    missing_suffix(facts, resolver, name).is_none()
        && (resolver.c_library == CLibrary::Glibc || usize::from(resolver.ndots) > dots(name))
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
pub(super) fn right_addresses(facts: &Facts) -> BTreeSet<IpAddr> {
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
