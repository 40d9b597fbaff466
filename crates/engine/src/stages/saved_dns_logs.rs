//! What cluster DNS logged, beside an answer that is not good. It changes no verdict: a log is of the past, and look-ups are
//! what counts.

use crate::{Facts, Finding, Verdict, pods::events::one_line};
use svcdiag_api::{ConditionType as C, Reason};

/// Most lines of a log that are quoted.
const MAX_QUOTED: usize = 2;

/// Adds to the answer about names what the log of cluster DNS says.
pub(super) fn quote(facts: &Facts, stage: C, mut finding: Finding) -> Finding {
    let is_good = matches!(finding.verdict, Verdict::True) || finding.reason == Reason::NotApplicable;
    if stage != C::DNSResolves || is_good {
        return finding;
    }
    let logs = &facts.saved_objects.dns_logs;
    if !logs.is_empty() && !finding.message.ends_with('.') {
        finding.message.push('.');
    }
    for log in logs.iter().take(MAX_QUOTED) {
        let whose = match &log.pod {
            Some(pod) => format!("Pod {pod}"),
            None => "CoreDNS".to_owned(),
        };
        finding.message.push_str(&format!(
            " The log of {whose} says, in line {} of {}, that {}: \"{}\".",
            log.line,
            log.lines,
            log.meaning,
            one_line(&log.words)
        ));
    }
    finding
}
