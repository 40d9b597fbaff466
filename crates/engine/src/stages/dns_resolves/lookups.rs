//! What a client looked up, and what its resolver makes of a name.

use crate::Facts;
use svcdiag_api::{Lookup, Resolver};

/// The name that every cluster knows.
pub(super) const CONTROL: &str = "kubernetes.default";

/// What came of a name.
pub(super) fn lookup<'a>(resolver: &'a Resolver, name: &str) -> Option<&'a Lookup> {
    resolver.lookups.iter().find(|l| l.name == name)
}

/// The Service's full name among the look-ups.
pub(super) fn full<'a>(facts: &Facts, resolver: &'a Resolver) -> Option<&'a Lookup> {
    let start = format!("{}.{}.svc.", facts.spec.service_name, facts.namespace);
    resolver.lookups.iter().find(|l| l.name.starts_with(&start))
}

/// What an ExternalName Service stands for.
pub(super) fn external_name(facts: &Facts) -> Option<&str> {
    facts.service.as_deref()?.external_name()
}

/// How many dots a name has.
pub(super) fn dots(name: &str) -> usize {
    name.matches('.').count()
}

/// The suffix with which a name would become the full one, if the search list lacks it.
pub(super) fn missing_suffix(facts: &Facts, resolver: &Resolver, wanted: &str) -> Option<String> {
    let full = full(facts, resolver)?;
    let suffix = full.name.strip_prefix(wanted)?.trim_matches('.').to_owned();
    let has = resolver.search.iter().any(|s| s.trim_matches('.') == suffix);
    (!has && !suffix.is_empty()).then_some(suffix)
}
