//! What the dials of clients say of policies that deny them: whether anybody enforces them.

use crate::{Finding, evidence::Evidence, policies::dns};
use svcdiag_api::{Answer, DialPath, PortProtocol, Reason};

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
/// reached; what a sidecar says proves nothing. Who goes by hand often dials nothing but the Service, and what
/// is lost there may be lost for other reasons, but not what gets through. Only dials of some ports count, as
/// number/protocol; of all where none is named.
pub(super) fn to_the_service(evidence: &Evidence<'_>, clients: &[String], ports: &[PortProtocol]) -> Probed {
    let reports = &evidence.reports;
    let is_meant = |from: Option<&str>| {
        from.is_some_and(|key| clients.is_empty() || clients.iter().any(|client| client == key))
    };
    let is_asked = |port: PortProtocol| ports.is_empty() || ports.contains(&port);
    let made = || {
        let all = reports.current.iter().flat_map(|r| &r.facts.dials);
        // Over UDP silence is no answer.
        all.filter(|d| is_meant(d.from.as_deref()) && is_asked(d.port) && !d.port.is_udp())
    };
    let are_direct = made().any(|d| d.path == DialPath::Endpoint);
    let lost = reports.current.iter().flat_map(|r| &r.facts.failures).any(|f| {
        is_meant(f.from.as_deref())
            && is_asked(f.port)
            && (f.path == DialPath::Endpoint || f.path == DialPath::Service && !are_direct)
            && matches!(
                f.answer,
                Answer::TimedOut | Answer::Rejected | Answer::Unreachable
            )
    });
    if lost {
        return Probed::Fails;
    }
    let got_through = made().any(|d| {
        let is_its_own = d
            .from
            .as_deref()
            .is_some_and(|key| !evidence.ends.has_sidecar(key));
        is_its_own
            && match d.path {
                DialPath::Endpoint => d.made > 0,
                DialPath::Service | DialPath::NodePort => d.made > d.failed,
            }
    });
    if got_through {
        Probed::Passes
    } else {
        nobody(evidence)
    }
}

/// Whether clients get answers from DNS.
pub(super) fn to_dns(evidence: &Evidence<'_>, clients: &[String]) -> Probed {
    let reports = &evidence.reports;
    let mut tried = reports
        .current
        .iter()
        .flat_map(|r| &r.facts.resolvers)
        .filter(|r| clients.contains(&r.pod))
        .peekable();
    if tried.peek().is_none() {
        nobody(evidence)
    } else if tried.all(dns::gets_answers) {
        Probed::Passes
    } else {
        Probed::Fails
    }
}

/// Before the first round is over nobody can say.
fn nobody(evidence: &Evidence<'_>) -> Probed {
    let reports = &evidence.reports;
    match reports.nobody(WHAT).or_else(|| reports.incomplete()) {
        Some(finding) if finding.reason == Reason::Pending => Probed::Pending(finding),
        _ => Probed::Nobody,
    }
}
