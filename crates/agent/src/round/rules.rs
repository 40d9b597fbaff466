//! The rules of the node, compared with the EndpointSlices.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{CONFIRM_AFTER, MAX_FAILURES, Round, node_ports};
use crate::kubeproxy::samples::MAY_WAIT;
use svcdiag_api::Rules;
use svcdiag_engine::{asked::Subject, rule_gap};
use svcdiag_kube_proxy::{
    Backend, ExpectedPort, Gap, IpFamily, Layout, ProxyMode, ReadError, Ruleset, Table, audit, expected,
    holds,
};
use svcdiag_netns::netfilter::{ipvs, rulesets::Rulesets};

/// Pause before wrong rules are read again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long kube-proxy may need for a change that it has heard of, and does not call pending.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// A gap counts after this time although the Service goes on to change.
const JUDGED_WITHIN: Duration = Duration::from_secs(60);

/// Chains that kube-proxy creates to notice when its rules are flushed; only its own backend has them.
const CANARY: &str = "KUBE-PROXY-CANARY";

/// Rules and their layout.
type Opened = (Backend, Arc<dyn Ruleset + Send + Sync>);

pub(super) async fn probe(round: &Round<'_>, mode: Option<&ProxyMode>) -> Option<Rules> {
    let mut rules = confirmed(round, mode).await?;
    node_ports::name_holders(round, &mut rules).await;
    Some(rules)
}

/// Differences that every later sample shows as well.
async fn confirmed(round: &Round<'_>, mode: Option<&ProxyMode>) -> Option<Rules> {
    let is_well = |rules: &Rules| rules.gaps.is_empty() && rules.conflict.is_none();
    let mut seen = compare(round, &round.subject, mode)?;
    let started = Instant::now();
    while !is_well(&seen) {
        tokio::time::sleep(AGAIN).await;
        // What has changed meanwhile gets its own time, and the arrival of a rule is noticed at once.
        let subject = round.read_again();
        let since = subject.changed.map(age);
        let may_still_write = may_wait(started.elapsed(), since)
            && super::kube_proxy::may_still_write(round, subject.changed).await;
        let mut now = compare(round, &subject, mode)?;
        now.gaps.retain(|gap| seen.gaps.contains(gap));
        now.conflict = now.conflict.filter(|c| seen.conflict.as_ref() == Some(c));
        seen = now;
        if !may_still_write && counts(started.elapsed(), since) {
            break;
        }
    }
    Some(seen)
}

/// Whether a gap counts after a time of waiting, and a time since the last change.
fn counts(waited: Duration, since_change: Option<Duration>) -> bool {
    let is_settled = since_change.is_none_or(|since| since >= SETTLES_WITHIN);
    waited >= CONFIRM_AFTER && is_settled || waited >= JUDGED_WITHIN
}

/// Whether kube-proxy is given more time if it has yet to write the last change.
fn may_wait(waited: Duration, since_change: Option<Duration>) -> bool {
    waited < JUDGED_WITHIN && since_change.is_some_and(|since| since < MAY_WAIT)
}

/// If the other clock is ahead, nothing has passed, so nothing waits for longer than its period.
pub(super) fn age(changed: Timestamp) -> Duration {
    Duration::try_from(crate::now().duration_since(changed)).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_gap_counts_when_kube_proxy_has_had_its_time_since_the_last_change() {
        assert!(!counts(seconds(2), None));
        assert!(counts(seconds(3), None));
        assert!(counts(seconds(3), Some(seconds(15))));
        // The Service has changed while it was waited.
        assert!(!counts(seconds(16), Some(seconds(2))));
    }

    #[test]
    fn a_service_that_never_stops_to_change_is_judged_all_the_same() {
        let since = Some(seconds(1));
        assert!(!counts(seconds(59), since) && may_wait(seconds(59), since));
        assert!(counts(seconds(60), since) && !may_wait(seconds(60), since));
    }

    #[test]
    fn kube_proxy_is_waited_for_only_after_a_change() {
        assert!(may_wait(seconds(3), Some(seconds(20))));
        assert!(!may_wait(seconds(3), Some(seconds(60))));
        assert!(!may_wait(seconds(3), None));
    }

    #[test]
    fn a_change_by_a_clock_that_is_ahead_has_just_been_made() {
        let ahead = crate::now() + jiff::SignedDuration::from_secs(3600);
        assert_eq!(age(ahead), Duration::ZERO);
    }
}
