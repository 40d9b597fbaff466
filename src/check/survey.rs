//! Every Service at once: a line for each, what does not work first.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::Everything;
use crate::{
    api::{ConditionType, Impact, ServiceDiagnosis},
    engine::diagnose,
    objects::Object,
    report::{self, Answer, Output, Printing, columns, object, printable},
};

/// A Service and its verdict.
struct Row {
    answer: Answer,
    /// Whether nothing works, and not only part of it.
    fails_for_all: bool,
    diagnosis: ServiceDiagnosis,
}

/// Judges every Service and prints; the answer is the worst one.
///
/// # Errors
/// When the answer cannot be written.
pub(super) fn run(
    everything: &Everything,
    namespace: Option<&str>,
    now: Timestamp,
    printing: &Printing,
) -> Result<Answer, report::Error> {
    let judge = |(namespace, service): &(String, String)| {
        let facts = everything.facts(namespace, service, now);
        let diagnosis = diagnose(&facts);
        Row {
            answer: Answer::of(&diagnosis, printing.api_only),
            fails_for_all: diagnosis
                .root_cause
                .as_ref()
                .is_some_and(|c| c.impact == Impact::All),
            diagnosis: object(&facts, &diagnosis),
        }
    };
    let mut rows: Vec<Row> = everything.services.iter().map(judge).collect();
    // The sort is stable: beside that, Services are in the order of their names.
    rows.sort_by_key(|row| Reverse((row.answer.badness(), row.fails_for_all)));
    match printing.output {
        Output::Table | Output::Wide => {
            let text = table(&rows, namespace.is_none(), printing.output == Output::Wide);
            report::write(&text)?;
            eprintln!("{}", summary(&rows, namespace, printing.api_only));
        }
        Output::Junit => {
            let all: Vec<_> = rows.iter().map(|row| &row.diagnosis).collect();
            report::write(&report::junit(&all)?)?;
        }
        Output::Html => {
            let all: Vec<_> = rows.iter().map(|row| &row.diagnosis).collect();
            report::write(&report::html(&all))?;
        }
        other => {
            let all: Vec<_> = rows.iter().map(|row| &row.diagnosis).collect();
            report::write(&report::serialized(other, &report::list(&all))?)?;
        }
    }
    let worst = rows.iter().map(|row| row.answer).max_by_key(|a| a.badness());
    Ok(worst.unwrap_or(Answer::Works))
}

/// The columns of `kubectl get svcdiag`, and the root cause.
fn table(rows: &[Row], with_namespace: bool, wide: bool) -> String {
    const HEADINGS: [&str; 9] = [
        "NAMESPACE",
        "SERVICE",
        "READY",
        "REASON",
        "ENDPOINTS",
        "DNS",
        "PROXY",
        "HAIRPIN",
        "MESSAGE",
    ];
    if rows.is_empty() {
        return String::new();
    }
    let cells = rows.iter().map(|row| cells(&row.diagnosis, wide));
    let lines = std::iter::once(HEADINGS.map(str::to_owned)).chain(cells);
    let first = usize::from(!with_namespace);
    let shown: Vec<Vec<String>> = lines.map(|line| line[first..].to_vec()).collect();
    columns(&shown)
}

fn cells(diagnosis: &ServiceDiagnosis, wide: bool) -> [String; 9] {
    let status = diagnosis.status.as_ref();
    let ready = status.and_then(|s| s.condition(ConditionType::Ready));
    let (verdict, reason) = ready.map_or(("Unknown", ""), |c| (c.status.as_str(), c.reason.as_str()));
    let cause = status.and_then(|s| s.root_cause.as_ref());
    let message = match cause {
        Some(cause) => Some(&cause.message),
        None => ready.map(|c| &c.message).filter(|_| wide),
    };
    let summary = status.and_then(|s| s.summary.as_ref());
    let of = |cell: fn(&crate::api::Summary) -> &String| summary.map(cell).cloned().unwrap_or_default();
    [
        diagnosis.namespace().to_owned(),
        diagnosis.spec.service_name.clone(),
        verdict.to_owned(),
        reason.to_owned(),
        of(|s| &s.endpoints),
        of(|s| &s.dns),
        of(|s| &s.proxy),
        of(|s| &s.hairpin),
        message
            .map(|m| printable(m).replace('\n', " "))
            .unwrap_or_default(),
    ]
}

/// How many there are of each.
fn summary(rows: &[Row], namespace: Option<&str>, api_only: bool) -> String {
    let place = namespace.map_or_else(String::new, |n| format!(" in namespace {n}"));
    if rows.is_empty() {
        return format!("No Services found{place}.");
    }
    let count = |answer| rows.iter().filter(|row| row.answer == answer).count();
    let mut parts = Vec::new();
    let (broken, unknown, works) = (
        count(Answer::Broken),
        count(Answer::NotKnown),
        count(Answer::Works),
    );
    if broken > 0 {
        parts.push(format!(
            "{broken} {}",
            if broken == 1 {
                "does not work"
            } else {
                "do not work"
            }
        ));
    }
    if unknown > 0 {
        parts.push(format!("{unknown} unknown"));
    }
    if works > 0 {
        let word = match (api_only, works) {
            (true, 1) => "has no fault in the API objects",
            (true, _) => "have no fault in the API objects",
            (false, 1) => "works",
            (false, _) => "work",
        };
        parts.push(format!("{works} {word}"));
    }
    let services = if rows.len() == 1 { "Service" } else { "Services" };
    let mut text = format!("{} {services}{place}: {}.", rows.len(), parts.join(", "));
    if broken > 0 {
        text += " For one of them: svcdiag check SERVICE -n NAMESPACE";
    }
    text
}
