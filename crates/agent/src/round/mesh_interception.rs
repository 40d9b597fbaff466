//! Pods whose own rules redirect their connections to a proxy next to them, as sidecars of service meshes do.
//!
//! Such a proxy accepts every connection, whether or not it can forward it. Only rules in the Pod's own network namespace
//! are read, and only the chain for outgoing connections.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use super::{Memory, Round};
use svcdiag_kube_proxy::{IpFamily, Layout, Match, Rule, Ruleset, Table, Target};
use svcdiag_netns::netfilter::{legacy::Legacy, nf_tables::NfTables};

/// Limit on the rules of a Pod that are followed. Meshes have three chains (OUTPUT, ISTIO_OUTPUT, ISTIO_REDIRECT) and a
/// few dozen rules; a hostile Pod may have any number, each leading to every other chain.
const MAX_CHAINS: usize = 64;
const MAX_RULES: usize = 4096;

/// Such rules come with the Pod: without a change, time before they are checked again.
const PAUSE: Duration = Duration::from_secs(3600);

/// The clients and endpoints on the node that are intercepted, as namespace/name. This is checked again if any dial
/// failed, because then it matters.
pub(super) async fn probe(round: &Round<'_>, memory: &Memory, is_all_well: bool) -> Vec<String> {
    let revision = &round.spec.revision;
    let known = || memory.intercepted.lock();
    if let Some((of, at, pods)) = known().as_ref()
        && is_all_well
        && of == revision
        && at.elapsed() < PAUSE
    {
        return pods.clone();
    }
    let found = intercepted(round).await;
    *known() = Some((revision.clone(), Instant::now(), found.clone()));
    found
}

async fn intercepted(round: &Round<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let pods = round.clients.iter().chain(&round.endpoints);
    for pod in pods.filter(|pod| !pod.pod.host_network) {
        // What cannot be read counts as no interception: a failed dial is then treated like any other.
        if pod.netns.visit(is_intercepted_here).await.unwrap_or(false) {
            found.push(pod.key.clone());
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_intercepted_here() -> io::Result<bool> {
    let nf_tables = NfTables::open_in_pod(Layout::Iptables)?;
    if redirects(&nf_tables) {
        return Ok(true);
    }
    // Only existing tables are read: reading another would create it.
    let legacy = Legacy::nat_of_pod().map_err(io::Error::other)?;
    Ok(redirects(&legacy))
}

/// Whether a rule that a Pod's own connections may hit redirects them. Each chain is read once.
fn redirects(rules: &dyn Ruleset) -> bool {
    let mut todo = vec!["OUTPUT".to_owned()];
    let mut known: BTreeSet<String> = todo.iter().cloned().collect();
    let mut left = MAX_RULES;
    while let Some(chain) = todo.pop() {
        let Ok(Some(of_chain)) = rules.chain(IpFamily::V4, Table::Nat, &chain) else {
            continue;
        };
        for rule in of_chain.iter().take(left) {
            if is_redirect(rule) {
                return true;
            }
            if let Some(next) = rule.leads_to()
                && known.len() < MAX_CHAINS
                && known.insert(next.to_owned())
            {
                todo.push(next.to_owned());
            }
        }
        left = left.saturating_sub(of_chain.len());
    }
    false
}

/// A target of iptables, or nf_tables' own expression.
fn is_redirect(rule: &Rule) -> bool {
    matches!(&rule.target, Target::Other(name) if name == "REDIRECT" || name == "TPROXY")
        || rule
            .matches
            .iter()
            .any(|m| matches!(m, Match::Other(name) if name == "redir" || name == "tproxy"))
}
