//! Why a wait was for nothing: of each diagnosis without the condition the reason, the root cause and the fix.

use std::{fmt::Write, time::Duration};

use super::{
    waiting::{Progress, Waiting},
    wanted::{Standing, Wanted},
};
use crate::{
    api::{ConditionStatus, ServiceDiagnosis},
    report::{self, Style, printable},
};

/// What to do about a verdict that does not come.
const CONTROLLER: &str = "The controller writes it within seconds; check that it runs: \
    `kubectl get pods --all-namespaces -l app.kubernetes.io/name=svcdiag,app.kubernetes.io/component=controller`";

/// The text for standard error.
pub(super) fn explain(waiting: &Waiting, timeout: Duration) -> String {
    let wanted = waiting.wanted;
    let unmet: Vec<_> = waiting
        .each()
        .filter(|(.., d)| d.is_none_or(|d| wanted.standing(d) != Standing::Met))
        .collect();
    let (missing, all) = (unmet.len(), waiting.each().count());
    let how_many = match all {
        1 => "the ServiceDiagnosis does not have".to_owned(),
        _ if missing == 1 => format!("1 of {all} ServiceDiagnoses does not have"),
        _ => format!("{missing} of {all} ServiceDiagnoses do not have"),
    };
    let when = match waiting.progress() {
        Progress::Deleted => "the wait is over".to_owned(),
        _ if timeout.is_zero() => "not met".to_owned(),
        _ => format!(
            "timed out after {:#}",
            jiff::SignedDuration::try_from(timeout).unwrap_or_default()
        ),
    };
    let mut text = format!("error: {when}: {how_many} {wanted}\n");
    for (namespace, name, diagnosis) in unmet {
        // Writing to a String cannot fail.
        let _ = match diagnosis {
            Some(diagnosis) => write!(text, "\n{namespace}/{name}: {}", one(wanted, diagnosis)),
            None => writeln!(
                text,
                "\n{namespace}/{name}: was deleted, or its labels have changed."
            ),
        };
    }
    text
}

/// Why a diagnosis does not have the condition.
fn one(wanted: Wanted, diagnosis: &ServiceDiagnosis) -> String {
    let condition = wanted.condition();
    match wanted.standing(diagnosis) {
        Standing::Met => String::new(),
        Standing::NoVerdict => format!("no verdict yet. {CONTROLLER}\n"),
        Standing::Outdated { observed, generation } => format!(
            "no verdict on generation {generation} of its spec yet, the last one is on generation {observed}. {CONTROLLER}\n"
        ),
        Standing::Absent => format!("its verdict has no condition {condition}.\n"),
        Standing::Other(found) => {
            let mut text = format!("{condition} is {} ({})\n", found.status, printable(&found.reason));
            let status = diagnosis.current_status();
            let cause = status.and_then(|s| s.root_cause.as_ref());
            // The root cause explains what is False; its evidence repeats the message.
            let cause = cause.filter(|_| found.status == ConditionStatus::False.as_str());
            match cause {
                Some(cause) => text.push_str(&report::root_cause(cause, PLAIN)),
                None => {
                    let _ = writeln!(text, "{}", printable(&found.message));
                }
            }
            text
        }
    }
}

/// Standard error is read by people and logs of pipelines.
const PLAIN: Style = Style {
    colour: false,
    unicode: false,
};
