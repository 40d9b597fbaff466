//! Whose lost dials prove nothing, because a policy may keep them away.

use std::collections::BTreeSet;

use crate::{
    Facts,
    clients::Clients,
    evidence::{dials::may_be_policy, ends::Ends, reports::Reports},
    policies::effects,
};
use svcdiag_api::DialPath;

/// Of the Pods that have lost a dial, those that policies may keep away, as namespace/name.
pub(super) fn shut_out(
    facts: &Facts,
    clients: &Clients<'_>,
    reports: &Reports<'_>,
    ends: &Ends<'_>,
) -> BTreeSet<String> {
    let failures = reports.current.iter().flat_map(|r| &r.facts.failures);
    let speaking: BTreeSet<&str> = failures.filter_map(|f| f.from.as_deref()).collect();
    speaking
        .into_iter()
        .filter(|key| may_be_shut_out(facts, clients, reports, ends, key))
        .map(str::to_owned)
        .collect()
}

/// Whether policies may keep a client away, so that what it loses proves nothing.
fn may_be_shut_out(
    facts: &Facts,
    clients: &Clients<'_>,
    reports: &Reports<'_>,
    ends: &Ends<'_>,
    key: &str,
) -> bool {
    // Without the policies nobody can say who is kept away.
    if facts.why_unreadable("networkpolicies").is_some() {
        return true;
    }
    // Who gets to every endpoint past the Service is kept from none.
    if reaches_all_it_dials(reports, ends, key) {
        return false;
    }
    let is_kept = || {
        ends.pod(key)
            .is_some_and(|pod| effects::may_be_shut_out(facts, pod))
    };
    if facts.other_policy_kinds.is_empty() {
        return is_kept();
    }
    // Policies of other kinds may keep anybody away, and are asked of nobody: what a client that is named
    // loses is a fault all the same.
    !clients.are_named() && (is_kept() || reaches_nobody(reports, ends, key))
}

/// Whether a client has dialled endpoints and was not lost on the way to any. Over UDP silence proves nothing.
fn reaches_all_it_dials(reports: &Reports<'_>, ends: &Ends<'_>, key: &str) -> bool {
    let is_direct = |path: DialPath, from: Option<&str>| path == DialPath::Endpoint && from == Some(key);
    let dials = reports.current.iter().flat_map(|r| &r.facts.dials);
    let mut dials = dials.filter(|d| is_direct(d.path, d.from.as_deref())).peekable();
    let failures = reports.current.iter().flat_map(|r| &r.facts.failures);
    let mut lost = failures.filter(|f| is_direct(f.path, f.from.as_deref()) && may_be_policy(f, f.answer));
    !ends.has_sidecar(key)
        && dials.peek().is_some()
        && dials.all(|d| d.made > 0 && !d.port.is_udp())
        && lost.next().is_none()
}

/// Whether a client has lost what it sent and reached no endpoint at all: policies tell Pods apart by their
/// labels, so that one that reaches some endpoints of a Service is seldom kept from the others.
pub(super) fn reaches_nobody(reports: &Reports<'_>, ends: &Ends<'_>, key: &str) -> bool {
    let made = || {
        let all = reports.current.iter().flat_map(|r| &r.facts.dials);
        all.filter(|d| d.from.as_deref() == Some(key) && ends.service_port(d.port).is_some())
    };
    let lost = reports.current.iter().flat_map(|r| &r.facts.failures);
    let mut lost = lost.filter(|f| f.from.as_deref() == Some(key) && may_be_policy(f, f.answer));
    lost.next().is_some() && !made().any(|d| d.made > d.failed)
}
