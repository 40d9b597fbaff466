//! Pods whose own rules send their connections to a proxy beside them, as sidecars of service meshes do.
//!
//! Such a proxy takes every connection, whether or not it can pass it on. Only rules in the Pod's own
//! network namespace are looked at, and only the chain that its connections leave by.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::{LocalPod, Memory, Round};
use crate::{
    agent::netfilter::{legacy::Legacy, nf_tables::NfTables},
    proxy::{IpFamily, Layout, Match, Rule, Ruleset, Table, Target},
};

/// Chains of meshes nest no deeper (OUTPUT, ISTIO_OUTPUT, ISTIO_REDIRECT).
const MAX_DEPTH: usize = 4;

/// Such rules come with the Pod: without a change so long passes before they are looked for again.
const PAUSE: Duration = Duration::from_secs(3600);

/// The clients and endpoints on the node that are intercepted, as namespace/name. It is looked at anew where
/// not all dials went well, since then it matters.
pub(super) fn look(round: &Round<'_>, memory: &Memory, is_all_well: bool) -> Vec<String> {
    let revision = &round.spec.revision;
    let mut known = memory.intercepted.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, at, pods)) = known.as_ref()
        && is_all_well
        && of == revision
        && at.elapsed() < PAUSE
    {
        return pods.clone();
    }
    let found = intercepted(round);
    *known = Some((revision.clone(), Instant::now(), found.clone()));
    found
}

fn intercepted(round: &Round<'_>) -> Vec<String> {
    let own_namespace = |pod: &&LocalPod<'_>| !pod.pod.host_network;
    let pods = round.clients.iter().chain(&round.endpoints).filter(own_namespace);
    let mut found: Vec<String> = pods
        .filter(|pod| is_intercepted(pod))
        .map(|pod| pod.key.clone())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What cannot be read counts as no interception: a dial that fails then is looked at as any other.
fn is_intercepted(pod: &LocalPod<'_>) -> bool {
    let read = pod.netns.run(|| {
        let nf_tables = NfTables::open(Layout::Iptables)?;
        if redirects(&nf_tables, "OUTPUT", MAX_DEPTH) {
            return Ok(true);
        }
        // Only tables that exist are touched: asking for another would make it.
        let legacy = Legacy::open().map_err(std::io::Error::other)?;
        Ok(!legacy.is_empty() && redirects(&legacy, "OUTPUT", MAX_DEPTH))
    });
    read.unwrap_or(false)
}

fn redirects(rules: &dyn Ruleset, chain: &str, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    let Ok(Some(rules_of_chain)) = rules.chain(IpFamily::V4, Table::Nat, chain) else {
        return false;
    };
    rules_of_chain
        .iter()
        .any(|rule| is_redirect(rule) || rule.leads_to().is_some_and(|next| redirects(rules, next, depth)))
}

/// A target of iptables, or nf_tables' own expression.
fn is_redirect(rule: &Rule) -> bool {
    matches!(&rule.target, Target::Other(name) if name == "REDIRECT" || name == "TPROXY")
        || rule
            .matches
            .iter()
            .any(|m| matches!(m, Match::Other(name) if name == "redir" || name == "tproxy"))
}
