//! The stages and the observations as tables, and what has no answer.

use std::fmt::Display;

use maud::{Markup, html};

use super::commands::in_prose;
use crate::{
    api::{ConditionStatus, Observation, Reason},
    engine::{Diagnosis, Finding, Verdict},
    report::tree::verdict,
};

/// How an answer is shown: never by its colour alone.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    sign: &'static str,
    word: &'static str,
    class: &'static str,
}

const OK: Mark = Mark::of("\u{2713}", "OK", "ok");
const FAILED: Mark = Mark::of("\u{2717}", "Failed", "bad");
const NOT_KNOWN: Mark = Mark::of("?", "Not known", "open");
const SKIPPED: Mark = Mark::of("\u{2013}", "Skipped", "none");
const NOT_APPLICABLE: Mark = Mark::of("\u{2013}", "Not applicable", "none");

impl Mark {
    const fn of(sign: &'static str, word: &'static str, class: &'static str) -> Self {
        Self { sign, word, class }
    }
}

/// The answer of Ready.
pub(super) fn badge(ready: ConditionStatus) -> Markup {
    let mark = match ready {
        ConditionStatus::True => OK,
        ConditionStatus::False => FAILED,
        ConditionStatus::Unknown => NOT_KNOWN,
    };
    marked(&mark, verdict(ready))
}

fn marked(mark: &Mark, word: &str) -> Markup {
    html! {
        span class=(format!("badge {}", mark.class)) { span aria-hidden="true" { (mark.sign) } " " (word) }
    }
}

fn mark(finding: &Finding) -> Mark {
    match finding.verdict {
        Verdict::True => OK,
        Verdict::False { .. } => FAILED,
        Verdict::Unknown => match finding.reason {
            Reason::NotApplicable => NOT_APPLICABLE,
            Reason::Skipped => SKIPPED,
            _ => NOT_KNOWN,
        },
    }
}

fn answer(finding: &Finding) -> Markup {
    let mark = mark(finding);
    marked(&mark, mark.word)
}

/// A name of the API.
pub(super) fn code(name: impl Display) -> Markup {
    html! { code.name { (name.to_string()) } }
}

/// A row for each stage. The roles stay where the style turns the table into blocks for a narrow page.
pub(super) fn stages(diagnosis: &Diagnosis) -> Markup {
    html! {
        table.stages role="table" aria-label="Stages" {
            thead role="rowgroup" {
                tr role="row" {
                    @for column in ["Stage", "Result", "Reason", "Message"] {
                        th role="columnheader" scope="col" { (column) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for (stage, finding) in &diagnosis.stages {
                    tr role="row" {
                        th role="rowheader" scope="row" { (code(stage)) }
                        td role="cell" { (answer(finding)) }
                        td role="cell" { (code(finding.reason)) }
                        td role="cell" { (in_prose(&finding.message)) }
                    }
                }
            }
        }
    }
}

/// A row for each observation.
pub(super) fn observations(observations: &[Observation]) -> Markup {
    if observations.is_empty() {
        return html! { p { "No single observations were recorded." } };
    }
    html! {
        table.observations role="table" aria-label="Observations" {
            thead role="rowgroup" {
                tr role="row" {
                    @for column in ["Stage", "From", "Target", "Result"] {
                        th role="columnheader" scope="col" { (column) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for seen in observations {
                    tr role="row" {
                        td role="cell" { (code(&seen.condition)) }
                        td role="cell" data-label="From" { (origin(seen)) }
                        td role="cell" data-label="Target" { (seen.target.as_deref().unwrap_or("-")) }
                        td role="cell" data-label="Result" { (result(seen)) }
                    }
                }
            }
        }
    }
}

fn origin(seen: &Observation) -> String {
    match (&seen.pod, &seen.node) {
        (Some(pod), Some(node)) => format!("Pod {pod} on node {node}"),
        (Some(pod), None) => format!("Pod {pod}"),
        (None, Some(node)) => format!("node {node}"),
        (None, None) => "-".to_owned(),
    }
}

fn result(seen: &Observation) -> String {
    let latency = seen.latency_milliseconds.map(|ms| format!("{ms} ms"));
    let details = seen.detail.clone().into_iter().chain(latency);
    [seen.result.clone()]
        .into_iter()
        .chain(details)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The stages without an answer, and why; not those that do not apply to the Service.
pub(super) fn unanswered(diagnosis: &Diagnosis) -> Option<Markup> {
    let is_unanswered = |finding: &Finding| [NOT_KNOWN, SKIPPED].contains(&mark(finding));
    let stages: Vec<_> = diagnosis
        .stages
        .iter()
        .filter(|(_, f)| is_unanswered(f))
        .collect();
    (!stages.is_empty()).then(|| {
        html! {
            ul.unanswered {
                @for (stage, finding) in stages {
                    li { (code(stage)) " (" (code(finding.reason)) "): " (in_prose(&finding.message)) }
                }
            }
        }
    })
}
