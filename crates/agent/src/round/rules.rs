//! The rules of the node, compared with the EndpointSlices.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CONFIRM_AFTER, MAX_FAILURES, Round, node_ports};
use crate::kubeproxy::samples::MAY_WAIT;
use svcdiag_api::Rules;
use svcdiag_engine::{asked::Subject, rule_gap};
use svcdiag_kube_proxy::{
    Backend, ExpectedPort, Gap, IpFamily, Layout, ProxyMode, ReadError, Ruleset, Table, audit, expected,
    holds,
};
use svcdiag_netns::netfilter::{ipvs, rulesets::Rulesets};

/// Pause before wrong rules are read again, for as long as kube-proxy may need.
const AGAIN: Duration = Duration::from_secs(1);

/// How long kube-proxy may need for a change that it has heard of, and does not call pending.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// Chains that kube-proxy creates to notice when its rules are flushed; only its own backend has them.
const CANARY: &str = "KUBE-PROXY-CANARY";

/// Rules and their layout.
type Opened = (Backend, Arc<dyn Ruleset + Send + Sync>);

pub(super) async fn probe(round: &Round<'_>, mode: Option<&ProxyMode>) -> Option<Rules> {
    let mut rules = confirmed(round, mode).await?;
    node_ports::name_holders(round, &mut rules).await;
    Some(rules)
}

/// Differences that a second sample shows as well.
async fn confirmed(round: &Round<'_>, mode: Option<&ProxyMode>) -> Option<Rules> {
    let first = compare(round, &round.subject, mode)?;
    if first.gaps.is_empty() && first.conflict.is_none() {
        return Some(first);
    }
    // A missing rule counts only after all that time; its arrival is noticed at once.
    let counts_at = Instant::now() + CONFIRM_AFTER.max(rest_of(SETTLES_WITHIN, &round.subject));
    let waits_until = Instant::now() + rest_of(MAY_WAIT, &round.subject);
    loop {
        let rest = counts_at.saturating_duration_since(Instant::now());
        tokio::time::sleep(if rest.is_zero() { AGAIN } else { rest.min(AGAIN) }).await;
        let is_late = Instant::now() >= counts_at;
        let may_wait = Instant::now() < waits_until
            && super::kube_proxy::may_still_write(round, round.subject.changed).await;
        let subject = round.read_again();
        let mut second = compare(round, &subject, mode)?;
        second.gaps.retain(|gap| first.gaps.contains(gap));
        second.conflict = second.conflict.filter(|c| first.conflict.as_ref() == Some(c));
        if second.gaps.is_empty() && second.conflict.is_none() || is_late && !may_wait {
            return Some(second);
        }
    }
}

/// The rest of a period after the last change.
fn rest_of(time: Duration, subject: &Subject) -> Duration {
    let Some(changed) = subject.changed else {
        return Duration::ZERO;
    };
    // If the other clock is ahead, nothing has passed, so nothing waits for longer than the period.
    let passed = Duration::try_from(crate::now().duration_since(changed)).unwrap_or_default();
    time.saturating_sub(passed)
}

/// Opens the rules that kube-proxy writes: those of its mode, or else those with its traces.
pub(super) fn open(round: &Round<'_>, mode: Option<&ProxyMode>) -> Option<Opened> {
    of_mode(open_all(round)?, mode)
}

/// If kube-proxy does not report its mode and several backends have its traces, it is not known which are leftovers: then
/// none is compared.
fn of_mode(all: Vec<Opened>, mode: Option<&ProxyMode>) -> Option<Opened> {
    let mut found = all.into_iter().filter(|(backend, rules)| match mode {
        Some(ProxyMode::Nftables) => *backend == Backend::Nftables,
        Some(ProxyMode::Iptables) => backend.is_iptables() && has_canary(rules.as_ref()),
        Some(_) => false,
        None => has_canary(rules.as_ref()),
    });
    let first = found.next()?;
    (mode.is_some() || found.next().is_none()).then_some(first)
}

fn open_all(round: &Round<'_>) -> Option<Vec<Opened>> {
    every_backend(&round.node.rulesets)
        .inspect_err(|error| round.problem(format!("The node's rules could not be read: {error}.")))
        .ok()
}

fn every_backend(rulesets: &Rulesets) -> io::Result<Vec<Opened>> {
    let mut all: Vec<Opened> = vec![
        (Backend::Nftables, rulesets.nftables()?),
        (Backend::IptablesNft, rulesets.iptables()?),
    ];
    let legacy = rulesets.legacy()?;
    if !legacy.is_empty() {
        all.push((Backend::IptablesLegacy, legacy));
    }
    Ok(all)
}

fn has_canary(rules: &dyn Ruleset) -> bool {
    let has = |table, chain| matches!(rules.chain(IpFamily::V4, table, chain), Ok(Some(_)));
    match rules.layout() {
        Layout::Nftables => has(Table::KubeProxy, "services"),
        Layout::Iptables => has(Table::Nat, CANARY),
    }
}

fn compare(round: &Round<'_>, subject: &Subject, mode: Option<&ProxyMode>) -> Option<Rules> {
    if subject.is_cut {
        round.problem(
            "The node's rules were not compared: the Service has too many endpoints or ports.".to_owned(),
        );
        return None;
    }
    let slices: Vec<_> = subject.slices.iter().collect();
    let ports = expected(&subject.service, &slices, round.vantage());
    let all = open_all(round)?;
    if mode == Some(&ProxyMode::Ipvs) {
        return virtual_servers(round, all, &ports);
    }
    let (backend, rules) = of_mode(all.clone(), mode)?;
    match differences(rules.as_ref(), &ports) {
        Ok(gaps) => Some(Rules {
            layout: backend.to_string(),
            compared: u32::try_from(ports.len()).unwrap_or(u32::MAX),
            gaps: gaps.into_iter().take(MAX_FAILURES).map(rule_gap).collect(),
            conflict: conflict(all, backend, &ports),
        }),
        Err(error) => {
            round.problem(format!("The node's rules are inconclusive: {error}."));
            None
        }
    }
}

/// In ipvs mode.
fn virtual_servers(round: &Round<'_>, all: Vec<Opened>, ports: &[ExpectedPort]) -> Option<Rules> {
    let servers = round
        .node
        .netns
        .run(ipvs::read)
        .inspect_err(|error| round.problem(format!("The node's virtual servers could not be read: {error}.")))
        .ok()?;
    let gaps = ports.iter().flat_map(|port| servers.audit(port));
    Some(Rules {
        layout: Backend::Ipvs.to_string(),
        compared: u32::try_from(ports.len()).unwrap_or(u32::MAX),
        gaps: gaps.take(MAX_FAILURES).map(rule_gap).collect(),
        conflict: conflict(all, Backend::Ipvs, ports),
    })
}

fn differences(rules: &dyn Ruleset, ports: &[ExpectedPort]) -> Result<Vec<Gap>, ReadError> {
    let mut all = Vec::new();
    for port in ports {
        all.extend(audit(rules, port)?);
    }
    Ok(all)
}

/// Other rules that also match the Service's packets.
fn conflict(all: Vec<Opened>, own: Backend, ports: &[ExpectedPort]) -> Option<String> {
    all.into_iter()
        .filter(|(backend, _)| *backend != own)
        .find(|(_, rules)| {
            ports
                .iter()
                .any(|port| holds(rules.as_ref(), port).unwrap_or(false))
        })
        .map(|(backend, _)| backend.to_string())
}
