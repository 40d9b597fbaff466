//! Whose lost dials prove nothing, because a policy may keep them away.

use crate::{
    clients::Clients,
    evidence::paths::{Paths, is_udp},
    policies::effects,
};
use svcdiag_api::{Answer, DialFailure, DialPath};

impl Paths<'_> {
    /// Whether policies may keep a client away, so that what it loses proves nothing.
    pub(crate) fn may_be_shut_out(&self, key: &str) -> bool {
        // Without the policies nobody can say who is kept away.
        if self.facts.why_unreadable("networkpolicies").is_some() {
            return true;
        }
        // Who gets to every endpoint past the Service is kept from none.
        if self.reaches_all_it_dials(key) {
            return false;
        }
        let is_kept = || {
            let pod = self.pods.get(key);
            pod.is_some_and(|pod| effects::may_be_shut_out(self.facts, pod))
        };
        if self.facts.other_policy_kinds.is_empty() {
            return is_kept();
        }
        // Policies of other kinds may keep anybody away, and are asked of nobody: what a client that is named
        // loses is a fault all the same.
        !Clients::are_named(self.facts) && (is_kept() || self.reaches_nobody(key))
    }

    /// Whether a client has dialled endpoints and was not lost on the way to any. Over UDP silence proves nothing.
    fn reaches_all_it_dials(&self, key: &str) -> bool {
        let is_direct = |path: DialPath, from: Option<&str>| path == DialPath::Endpoint && from == Some(key);
        let dials = self.reports.iter().flat_map(|r| &r.facts.dials);
        let mut dials = dials.filter(|d| is_direct(d.path, d.from.as_deref())).peekable();
        let failures = self.reports.iter().flat_map(|r| &r.facts.failures);
        let mut lost =
            failures.filter(|f| is_direct(f.path, f.from.as_deref()) && may_be_policy(f, f.answer));
        !self.has_sidecar(key)
            && dials.peek().is_some()
            && dials.all(|d| d.made > 0 && !is_udp(&d.port))
            && lost.next().is_none()
    }

    /// Whether a client has lost what it sent and reached no endpoint at all: policies tell Pods apart by their
    /// labels, so that one that reaches some endpoints of a Service is seldom kept from the others.
    pub(crate) fn reaches_nobody(&self, key: &str) -> bool {
        let made = || {
            let all = self.reports.iter().flat_map(|r| &r.facts.dials);
            all.filter(|d| d.from.as_deref() == Some(key) && self.ports.contains_key(&d.port))
        };
        let lost = self.reports.iter().flat_map(|r| &r.facts.failures);
        let mut lost = lost.filter(|f| f.from.as_deref() == Some(key) && may_be_policy(f, f.answer));
        lost.next().is_some() && !made().any(|d| d.made > d.failed)
    }
}

/// Whether a policy may have lost a dial: it lets packets vanish or has them rejected, and a Pod that refuses or
/// answers was reached. Through the Service all that is refused over UDP seems to come from its address, whoever
/// says so.
pub(crate) fn may_be_policy(dial: &DialFailure, answer: Answer) -> bool {
    match answer {
        Answer::TimedOut | Answer::Rejected | Answer::Unreachable => true,
        Answer::Refused => is_udp(&dial.port) && dial.path != DialPath::Endpoint,
        Answer::Accepted | Answer::Reset | Answer::NoAnswer | Answer::Unexpected => false,
    }
}
