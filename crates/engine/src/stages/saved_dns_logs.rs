//! What cluster DNS logged, beside an answer that is not good. It changes no verdict: a log is of the past, and look-ups are
//! what counts.

use crate::{
    Facts, Finding, Verdict,
    pods::events::one_line,
    saved::{DnsLog, DnsTrouble},
};
use svcdiag_api::{ConditionType as C, Reason};

/// Most lines of a log that are quoted.
const MAX_QUOTED: usize = 2;

/// Adds to the answer about names what the log of cluster DNS says.
pub(super) fn quote(facts: &Facts, stage: C, mut finding: Finding) -> Finding {
    let is_good = matches!(finding.verdict, Verdict::True) || finding.reason == Reason::NotApplicable;
    if stage != C::DNSResolves || is_good {
        return finding;
    }
    let mut logs: Vec<&DnsLog> = facts.saved_objects.dns_logs.iter().collect();
    logs.sort_by_key(|log| (log.trouble, &log.pod));
    // Several Pods log the same.
    logs.dedup_by_key(|log| log.trouble);
    if !logs.is_empty() && !finding.message.ends_with('.') {
        finding.message.push('.');
    }
    for log in logs.into_iter().take(MAX_QUOTED) {
        let whose = match &log.pod {
            Some(pod) => format!("Pod {pod}"),
            None => "CoreDNS".to_owned(),
        };
        finding.message.push_str(&format!(
            " The log of {whose} says, in line {} of {}, that {}: \"{}\".",
            log.line,
            log.lines,
            describe(log.trouble),
            one_line(&log.words)
        ));
    }
    finding
}

fn describe(trouble: DnsTrouble) -> &'static str {
    match trouble {
        DnsTrouble::BadCorefile => "CoreDNS could not read its Corefile",
        DnsTrouble::Loop => {
            "what CoreDNS forwards came back to it, as it does where the node's resolv.conf names a resolver of the node itself"
        }
        DnsTrouble::Denied => "the API server did not allow CoreDNS to read what it answers with",
        DnsTrouble::NoApi => {
            "CoreDNS did not reach the API server, without which it knows no Services that are new"
        }
        DnsTrouble::NotSynced => "CoreDNS had not read the Services yet",
        DnsTrouble::NoUpstream => {
            "name servers outside of the cluster did not answer CoreDNS, which matters to names outside of the cluster only"
        }
    }
}
