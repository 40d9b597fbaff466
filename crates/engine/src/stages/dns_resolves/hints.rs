//! What is said of clients of which nothing is wrong for sure: they find the Service, or what they got does not tell.

use crate::{
    Facts,
    clients::Clients,
    evidence::Evidence,
    stages::dns_resolves::{
        lookups::{CONTROL, dots, external_name, lookup},
        names::Client,
        servers,
    },
    text,
};
use svcdiag_api::{CLibrary, LookupResult, Resolver};

/// What is odd about a client that finds the Service.
pub(super) fn hint(client: &Client<'_>) -> Option<String> {
    let resolver = client.resolver;
    // Others search all the same; musl has found it here in spite of that.
    (usize::from(resolver.ndots) <= dots(&client.name)
        && resolver.c_library != CLibrary::Musl
        && !resolver.search.is_empty())
    .then(|| {
        format!(
            "With ndots:{}, a client whose image uses musl would not resolve {} (Pod {}).",
            resolver.ndots, client.name, resolver.pod
        )
    })
}

/// The names of the Service with an answer of a kind.
pub(super) fn names_with(facts: &Facts, resolver: &Resolver, is: fn(LookupResult) -> bool) -> Vec<String> {
    let target = external_name(facts);
    let of_service = |name: &str| name != CONTROL && Some(name) != target;
    let lookups = resolver.lookups.iter();
    lookups
        .filter(|l| is(l.result) && of_service(&l.name))
        .map(|l| l.name.clone())
        .collect()
}

/// What a client got that decides nothing, and what would.
pub(super) fn open(evidence: &Evidence<'_>, client: &Client<'_>) -> String {
    let facts = evidence.facts;
    let resolver = client.resolver;
    let with = |is| names_with(facts, resolver, is);
    let found = with(|r| r == LookupResult::Found);
    let missed = with(|r| r == LookupResult::NotFound);
    let failed = with(|r| matches!(r, LookupResult::Failed | LookupResult::TimedOut));
    let unclear = with(|r| r == LookupResult::Unclear);
    let said = [
        ("resolves", &found),
        ("does not resolve", &missed),
        ("got no answer for", &failed),
    ];
    let said: Vec<String> = said
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(verb, names)| format!("{verb} {}", text::list(names)))
        .collect();
    let mut message = String::new();
    if !said.is_empty() {
        message = format!("Pod {} {}. ", resolver.pod, text::list(&said));
    }
    if let Some(first) = unclear.first() {
        message.push_str(&format!(
            "nslookup of busybox in Pod {} does not find {}, which proves nothing: it does not use the search list. Use `getent hosts {first}` there, or wget, which resolve names as programs do. ",
            resolver.pod,
            text::list(&unclear)
        ));
    } else if lookup(resolver, &client.name).is_none() {
        message.push_str(&format!("{} was not looked up. ", client.name));
    }
    if found.is_empty() && lookup(resolver, CONTROL).is_none() {
        message.push_str(&format!(
            "It is not known whether cluster DNS answers at all: look up {CONTROL}.svc.{} too. ",
            servers::searched_domain(facts, resolver).unwrap_or("cluster.local")
        ));
    }
    if let Some(target) = external_name(facts).filter(|t| found.is_empty() && lookup(resolver, t).is_none()) {
        message.push_str(&format!(
            "The Service is an alias for {target}: look that up too. "
        ));
    }
    if message.is_empty() {
        message = format!(
            "The lookups of Pod {} in namespace {} do not show whether the Service resolves. ",
            resolver.pod,
            Clients::namespace(facts)
        );
    }
    message.trim_end().to_owned()
}
