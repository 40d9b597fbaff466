//! What the dials of clients say of policies that deny them: whether anybody enforces them.

use super::super::{Facts, Finding, paths::Paths, vantage::Vantage};
use crate::api::{Answer, DialPath, LookupResult, Reason, Resolver};

/// What clients saw.
pub(super) enum Probed {
    /// They got through.
    Passes,
    /// They did not.
    Fails,
    /// Nobody could try.
    Nobody,
    /// They are still trying.
    Pending(Finding),
}

const WHAT: &str = "Whether the policies are enforced was not seen";

/// Whether clients reach the endpoints; all clients where none is named. A Pod that refuses or answers was
/// reached; what a sidecar says proves nothing.
pub(super) fn to_the_service(facts: &Facts, vantage: &Vantage<'_>, clients: &[String]) -> Probed {
    let is_meant = |from: Option<&str>| {
        from.is_some_and(|key| clients.is_empty() || clients.iter().any(|client| client == key))
    };
    let Some(paths) = Paths::of(facts, vantage) else {
        return Probed::Nobody;
    };
    let lost = vantage.reports.iter().flat_map(|r| &r.facts.failures).any(|f| {
        is_meant(f.from.as_deref())
            && f.path == DialPath::Endpoint
            && matches!(
                f.answer,
                Answer::TimedOut | Answer::Rejected | Answer::Unreachable
            )
    });
    if lost {
        return Probed::Fails;
    }
    let mut made = vantage.reports.iter().flat_map(|r| &r.facts.dials);
    let got_through = made.any(|d| {
        is_meant(d.from.as_deref())
            && d.path == DialPath::Endpoint
            && d.from.as_deref().is_some_and(|key| !paths.has_sidecar(key))
            // Over UDP silence is no answer.
            && !d.port.ends_with("UDP")
            && d.made > 0
    });
    if got_through {
        Probed::Passes
    } else {
        nobody(vantage)
    }
}

/// Whether clients get answers from DNS.
pub(super) fn to_dns(vantage: &Vantage<'_>, clients: &[String]) -> Probed {
    let mut tried = vantage
        .reports
        .iter()
        .flat_map(|r| &r.facts.resolvers)
        .filter(|r| clients.contains(&r.pod))
        .peekable();
    if tried.peek().is_none() {
        return nobody(vantage);
    }
    let gets_answers = |r: &Resolver| {
        r.lookups
            .iter()
            .any(|l| matches!(l.result, LookupResult::Found | LookupResult::NotFound))
    };
    if tried.all(gets_answers) {
        Probed::Passes
    } else {
        Probed::Fails
    }
}

/// Before the first round is over nobody can say.
fn nobody(vantage: &Vantage<'_>) -> Probed {
    match vantage.nobody(WHAT).or_else(|| vantage.incomplete(WHAT)) {
        Some(finding) if finding.reason == Reason::Pending => Probed::Pending(finding),
        _ => Probed::Nobody,
    }
}
