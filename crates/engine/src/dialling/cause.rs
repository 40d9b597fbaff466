//! What stopped the packets, in words: of how many dials that is known, and what to do about the others.

use std::collections::BTreeMap;

use crate::{
    dialling::{Case, failures, rejections},
    evidence::{
        Evidence,
        dials::Failed,
        lossy_settings::{self, Places, Setting},
    },
    text::{self, SHOWN},
};

/// What is known to have stopped the packets of some dials.
struct Part {
    /// What it was, without a full stop.
    said: String,
    remediation: String,
    /// Of how many dials.
    dials: usize,
    how: How,
}

/// How it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// An ICMP message said so.
    Rejected,
    /// The kernel said so.
    Seen,
    /// A setting may be the reason.
    Probable,
}

/// What stopped the packets, and what to do, where that is known; `advice` is on those of which only the answer is.
pub(crate) fn cause<'a>(
    evidence: &Evidence<'a>,
    cases: &[&Case<'a, '_>],
    advice: impl Fn(&[&Failed<'a>]) -> String,
) -> Option<(String, String)> {
    of(
        evidence,
        cases,
        &[How::Rejected, How::Seen, How::Probable],
        advice,
    )
}

/// The same of what is certain alone.
pub(crate) fn certain_cause<'a>(
    evidence: &Evidence<'a>,
    cases: &[&Case<'a, '_>],
    advice: impl Fn(&[&Failed<'a>]) -> String,
) -> Option<(String, String)> {
    of(evidence, cases, &[How::Rejected, How::Seen], advice)
}

fn of<'a>(
    evidence: &Evidence<'a>,
    cases: &[&Case<'a, '_>],
    told: &[How],
    advice: impl Fn(&[&Failed<'a>]) -> String,
) -> Option<(String, String)> {
    let parts: Vec<Part> = told
        .iter()
        .filter_map(|how| {
            let of: Vec<&Case> = cases.iter().copied().filter(|c| known(c) == Some(*how)).collect();
            part(evidence, &of, *how)
        })
        .collect();
    let is_open = |c: &&&Case<'_, '_>| !known(c).is_some_and(|how| told.contains(&how));
    let open: Vec<&Case> = cases.iter().filter(is_open).copied().collect();
    let is_all = parts.len() == 1 && open.is_empty();
    let sentences: Vec<String> = parts
        .iter()
        .map(|part| part.describe(is_all, cases.len()))
        .collect();
    let mut remediations: Vec<String> = parts.into_iter().map(|part| part.remediation).collect();
    if !open.is_empty() && !remediations.is_empty() {
        let rest = text::uncapitalized(&advice(&failures(&open)));
        remediations.push(format!("For the other dials: {rest}"));
    }
    (!sentences.is_empty()).then(|| (sentences.join(". "), remediations.join(" ")))
}

fn known(case: &Case<'_, '_>) -> Option<How> {
    match &case.explanation {
        _ if case.failed.is_rejected_by_a_rule() => Some(How::Rejected),
        Some(explanation) if explanation.is_seen => Some(How::Seen),
        Some(_) => Some(How::Probable),
        None => None,
    }
}

fn part(evidence: &Evidence<'_>, cases: &[&Case<'_, '_>], how: How) -> Option<Part> {
    let (said, remediation) = match how {
        How::Rejected => rejections::describe(evidence, cases)?,
        How::Seen | How::Probable => found(cases)?,
    };
    Some(Part {
        said,
        remediation,
        dials: cases.len(),
        how,
    })
}

impl Part {
    /// What it was, and of how many dials: `is_all` if of all.
    fn describe(&self, is_all: bool, of: usize) -> String {
        let probably = match self.how {
            How::Probable => "probably ",
            How::Rejected | How::Seen => "",
        };
        let said = &self.said;
        match (is_all, self.how) {
            (true, How::Rejected) => said.clone(),
            (true, _) => format!("{said}. This is {probably}why connections fail"),
            (false, _) => format!(
                "{said}. This {probably}explains {} of the {of} failed dials",
                self.dials
            ),
        }
    }
}

/// The settings behind cases, each once with the nodes that have it, and what to do.
pub(crate) fn found(cases: &[&Case<'_, '_>]) -> Option<(String, String)> {
    let mut found: BTreeMap<&Setting, Places<'_>> = BTreeMap::new();
    for explanation in cases.iter().filter_map(|c| c.explanation.as_ref()) {
        found.entry(&explanation.setting).or_default().add(explanation);
    }
    let more = match found.len() {
        0 => return None,
        n if n > SHOWN => format!(" ({} more such findings)", n - SHOWN),
        _ => String::new(),
    };
    let shown: Vec<(&Setting, Places<'_>)> = found.into_iter().take(SHOWN).collect();
    let sentences: Vec<String> = shown.iter().map(|(s, places)| s.describe(places)).collect();
    Some((
        format!("{}{more}", sentences.join(". ")),
        lossy_settings::remediation(&shown),
    ))
}
