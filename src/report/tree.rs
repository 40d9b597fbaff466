//! A Diagnosis for people: the stages as a tree, with evidence and fix.

use std::fmt::Write;

use anstyle::AnsiColor;

use super::path;
use crate::{
    api::{ConditionStatus, Reason, RootCause},
    engine::{Diagnosis, Facts, Finding, NOTHING_BUT_THE_API, Verdict},
};

/// How the text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// With characters beyond ASCII.
    pub unicode: bool,
}

/// How a stage's answer is shown.
pub(super) struct Mark {
    pub(super) unicode: &'static str,
    ascii: &'static str,
    pub(super) style: anstyle::Style,
}

const GOOD: Mark = Mark {
    unicode: "✓",
    ascii: "ok",
    style: AnsiColor::Green.on_default(),
};
pub(super) const BAD: Mark = Mark {
    unicode: "✗",
    ascii: "NO",
    style: AnsiColor::Red.on_default(),
};
pub(super) const OPEN: Mark = Mark {
    unicode: "?",
    ascii: "? ",
    style: AnsiColor::Yellow.on_default(),
};
pub(super) const PASSED_OVER: Mark = Mark {
    unicode: "-",
    ascii: "- ",
    style: anstyle::Style::new().dimmed(),
};

fn mark(finding: &Finding) -> &'static Mark {
    match finding.verdict {
        Verdict::True => &GOOD,
        Verdict::False { .. } => &BAD,
        Verdict::Unknown if finding.is_satisfied() => &PASSED_OVER,
        Verdict::Unknown => &OPEN,
    }
}

/// A text that cannot control a terminal: much of it was written by others.
#[must_use]
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() && c != '\n' {
        true => c.escape_debug().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A text in a style, where colours are wanted.
pub(super) fn paint(text: &str, painted: anstyle::Style, style: Style) -> String {
    match style.colour {
        true => format!("{painted}{text}{painted:#}"),
        false => text.to_owned(),
    }
}

const BOLD: anstyle::Style = anstyle::Style::new().bold();

/// The root cause, its evidence and its fix, a line for each.
pub(crate) fn root_cause(cause: &RootCause, style: Style) -> String {
    let title = |text| paint(text, BOLD, style);
    let mut out = format!(
        "{}  {} / {} ({})\n{}    {}\n{}         {}\n",
        title("Root cause"),
        printable(&cause.condition),
        printable(&cause.reason),
        cause.impact,
        title("Evidence"),
        printable(&cause.message),
        title("Fix"),
        printable(&cause.remediation)
    );
    if let Some(link) = &cause.link {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}   {}", title("Read more"), printable(link));
    }
    out
}

/// The answer of Ready, in words.
pub(super) fn verdict(ready: ConditionStatus) -> &'static str {
    match ready {
        ConditionStatus::True => "works",
        ConditionStatus::False => "does not work",
        ConditionStatus::Unknown => "unknown",
    }
}

/// The whole answer. `wide` adds the reasons of all stages and the single observations.
#[must_use]
pub fn render(facts: &Facts, diagnosis: &Diagnosis, wide: bool, style: Style) -> String {
    let paint = |text: &str, painted: anstyle::Style| paint(text, painted, style);
    let colour = match diagnosis.ready.status {
        ConditionStatus::True => GOOD.style,
        ConditionStatus::False => BAD.style,
        ConditionStatus::Unknown => OPEN.style,
    };
    let mut out = String::new();
    let service = format!("{}/{}", facts.namespace, facts.spec.service_name);
    let name = format!("Service {service}");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {} ({})",
        paint(&name, BOLD),
        paint(verdict(diagnosis.ready.status), colour),
        diagnosis.ready.reason
    );
    for (i, (condition, finding)) in diagnosis.stages.iter().enumerate() {
        let last = i + 1 == diagnosis.stages.len();
        let branch = match (style.unicode, last) {
            (true, false) => "├─",
            (true, true) => "└─",
            (false, false) => "|-",
            (false, true) => "`-",
        };
        let mark = mark(finding);
        let sign = paint(if style.unicode { mark.unicode } else { mark.ascii }, mark.style);
        let reason = match finding.verdict {
            Verdict::True if !wide => String::new(),
            _ => format!("{}: ", finding.reason),
        };
        // A stage that was not probed needs no sentence each time, except for files: which one is missing.
        let are_files = facts.nodes.iter().any(|n| n.saved.is_some());
        let is_plain = match finding.reason {
            Reason::NoVantagePoint => !are_files,
            reason => reason == Reason::Blocked,
        };
        let terse = !wide && is_plain;
        let text = if terse {
            finding.reason.to_string()
        } else {
            format!("{reason}{}", printable(&finding.message))
        };
        let _ = writeln!(out, "{branch} {sign} {condition:<20} {text}");
        if wide {
            let stem = if last {
                "  "
            } else if style.unicode {
                "│ "
            } else {
                "| "
            };
            for o in &finding.observations {
                let place = [o.node.as_deref(), o.pod.as_deref(), o.target.as_deref()]
                    .into_iter()
                    .flatten();
                let place = printable(&place.collect::<Vec<_>>().join(" "));
                let _ = writeln!(
                    out,
                    "{stem}     {place}: {} {}",
                    printable(&o.result),
                    printable(o.detail.as_deref().unwrap_or_default())
                );
            }
        }
    }
    if let Some(cause) = &diagnosis.root_cause {
        let _ = write!(out, "\n{}", root_cause(cause, style));
    } else if diagnosis.ready.status == ConditionStatus::Unknown {
        let sentence = match diagnosis.api_is_faultless() {
            true if diagnosis.is_of_api_alone() => format!("{NOTHING_BUT_THE_API}."),
            true if diagnosis.ready.message.starts_with(NOTHING_BUT_THE_API) => {
                printable(&diagnosis.ready.message)
            }
            true => format!(
                "No fault in the API objects. {}",
                printable(&diagnosis.ready.message)
            ),
            false => printable(&diagnosis.ready.message),
        };
        let _ = writeln!(out, "\n{sentence}");
    }
    let hops = path::hops(&service, diagnosis);
    if !hops.is_empty() {
        let _ = writeln!(out, "\n{}: {}", paint("Path", BOLD), path::line(&hops, style));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::ServiceDiagnosisSpec, engine::diagnose};

    fn missing() -> (Facts, Diagnosis) {
        let facts = Facts::new(
            jiff::Timestamp::UNIX_EPOCH,
            "shop",
            ServiceDiagnosisSpec::for_service("web"),
        );
        let diagnosis = diagnose(&facts);
        (facts, diagnosis)
    }

    #[test]
    fn plain_text_has_neither_colours_nor_unicode() {
        let (facts, diagnosis) = missing();
        let text = render(
            &facts,
            &diagnosis,
            true,
            Style {
                colour: false,
                unicode: false,
            },
        );
        assert!(text.is_ascii() && !text.contains('\u{1b}'), "{text}");
        insta::assert_snapshot!(render(
            &facts,
            &diagnosis,
            false,
            Style {
                colour: false,
                unicode: false
            }
        ));
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        let (mut facts, _) = missing();
        facts.namesakes = vec!["x\u{1b}[2J".to_owned()];
        let plain = Style {
            colour: false,
            unicode: false,
        };
        let text = render(&facts, &diagnose(&facts), true, plain);
        assert!(!text.contains('\u{1b}') && text.contains("[2J"), "{text}");
    }

    #[test]
    fn a_terminal_gets_both() {
        let (facts, diagnosis) = missing();
        let text = render(
            &facts,
            &diagnosis,
            false,
            Style {
                colour: true,
                unicode: true,
            },
        );
        assert!(
            text.contains("└─") && text.contains("\u{1b}[31m✗\u{1b}[0m ServiceExists"),
            "{text}"
        );
    }
}
