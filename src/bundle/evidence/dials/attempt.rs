//! Requests as attempts of a dial: how each ended, and how all of them together.

use super::{
    key::{Key, Path},
    service::ready,
    target::target,
};
use crate::{
    api::Answer,
    engine::{BY_PROXY, Facts, LARGE_ANSWERS_STOP, WITHOUT_STATUS},
    formats::text::http::{FEW_PACKETS, Outcome, Request},
};

/// A request that proves something.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub answer: Answer,
    /// What was asked for.
    pub url: String,
    /// How much of an answer of known size came.
    pub cut_short: Option<(u64, u64)>,
    /// Whether it got a status of 400 or above.
    pub is_error: bool,
    /// What a proxy said in the place of the endpoint, or what else there is to say.
    pub detail: Option<String>,
    /// How long it took, in milliseconds, where no name had to be looked up.
    pub took: Option<u32>,
}

impl Attempt {
    pub(super) fn is_by_proxy(&self) -> bool {
        let detail = self.detail.as_deref();
        detail.is_some_and(|detail| detail.starts_with(BY_PROXY))
    }

    pub(super) fn of(request: &Request, answer: Answer) -> Self {
        let words = match request.outcome {
            Outcome::ByProxy => request.detail.as_ref().map(|said| format!("{BY_PROXY} {said}")),
            Outcome::Closed => Some("closed without an answer".to_owned()),
            Outcome::Unsaid => Some(WITHOUT_STATUS.to_owned()),
            _ => None,
        };
        let by_address = request.target.as_deref().and_then(target).is_some();
        Self {
            answer,
            url: request.target.clone().unwrap_or_default(),
            cut_short: request.cut_short(),
            is_error: request.status.is_some_and(|status| status >= 400),
            detail: words,
            took: request.took.filter(|_| by_address),
        }
    }
}

/// Why nothing follows from a request for the way that is asked about, if so. Of the node's own dials it counts
/// how they failed.
pub(super) fn why_nothing_follows(request: &Request, is_of_node: bool) -> Option<&'static str> {
    match request.outcome {
        Outcome::ViaProxy => Some(
            "the request went to a forward proxy (http_proxy, https_proxy); add the addresses of the cluster and the names of Services to NO_PROXY of the client",
        ),
        Outcome::Unsaid if is_of_node => Some(
            "curl got no status (000), and -s hides why; repeat without -s to see whether the connection was refused or timed out",
        ),
        Outcome::Answer(answer) if is_lost(answer) && request.target.is_none() => Some(
            "an error of curl or wget without its command, so it is not known what was requested; save the command too",
        ),
        _ => None,
    }
}

/// One of several attempts that went well is enough.
pub(super) fn end(answers: &[Answer]) -> Answer {
    let mut answers = answers.iter();
    let first = answers.next().copied().unwrap_or(Answer::Accepted);
    answers.fold(first, |worst, answer| match answer {
        Answer::Accepted => Answer::Accepted,
        _ => worst,
    })
}

/// Any answer shows that there was a connection.
pub(super) fn answer(request: &Request, unsaid: Answer) -> Option<Answer> {
    match request.outcome {
        Outcome::Answer(Answer::Unexpected) => Some(Answer::Accepted),
        Outcome::Answer(answer) => Some(answer),
        Outcome::Closed | Outcome::ByProxy | Outcome::Unsaid => Some(Answer::Unexpected),
        // Newer curl says no more; at once it fails only where somebody refuses.
        Outcome::NotConnected => Some(unsaid),
        Outcome::NotResolved | Outcome::Silent | Outcome::ViaProxy => None,
    }
}

/// After how many seconds an answer came where all answers came late: packets that open the connection were lost, and
/// sent again after 1, 3, 7 ... seconds.
pub(super) fn late(attempts: &[Attempt]) -> Option<u32> {
    let is_late = |a: &Attempt| a.answer == Answer::Accepted && a.took.is_some_and(|ms| ms >= 3000);
    let first = attempts.first()?;
    attempts.iter().all(is_late).then_some(first.took? / 1000)
}

/// What of the requests failed where others did not: large answers, or those that went to some of the endpoints. One
/// request that is late among others proves nothing.
pub(super) fn part(facts: &Facts, key: &Key, attempts: &[Attempt]) -> Option<(Answer, Option<String>)> {
    let stalls = |a: &&Attempt| {
        let of_url = || attempts.iter().filter(|other| other.url == a.url);
        let all_hang = of_url().all(|a| a.answer == Answer::NoAnswer);
        all_hang && of_url().count() > 1 && a.cut_short.is_some_and(|(came, _)| came < FEW_PACKETS)
    };
    if let Some((came, all)) = attempts.iter().find(stalls).and_then(|a| a.cut_short) {
        return Some((
            Answer::NoAnswer,
            Some(format!("{LARGE_ANSWERS_STOP} after {came} of {all} bytes")),
        ));
    }
    let endpoints = ready(facts).count();
    let fails = |a: &&Attempt| a.answer != Answer::Accepted;
    let failed = attempts.iter().filter(fails).count();
    let is_part = key.path == Path::Service && key.from.is_some() && endpoints > 1;
    let first = attempts.iter().find(fails)?;
    // What failed before all that was answered may have been mended since.
    let answered = attempts.iter().position(|a| a.answer == Answer::Accepted)?;
    let fails_later = attempts.iter().skip(answered).any(|a| fails(&a));
    (is_part && fails_later && is_a_share(failed, attempts.len(), endpoints)).then(|| {
        (
            first.answer,
            Some(format!("{failed} of {} requests", attempts.len())),
        )
    })
}

/// Whether nobody took the connection.
pub(super) fn is_lost(answer: Answer) -> bool {
    matches!(
        answer,
        Answer::TimedOut | Answer::Refused | Answer::Rejected | Answer::Unreachable
    )
}

/// Whether so many requests failed as one of several endpoints gets, or half of that, and more than one.
pub(super) fn is_a_share(failed: usize, made: usize, endpoints: usize) -> bool {
    failed > 1 && failed < made && endpoints > 1 && failed * 2 * endpoints >= made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_that_went_well_is_enough() {
        assert_eq!(end(&[Answer::TimedOut, Answer::Accepted]), Answer::Accepted);
        assert_eq!(end(&[Answer::Accepted, Answer::Refused]), Answer::Accepted);
        assert_eq!(end(&[Answer::Refused, Answer::TimedOut]), Answer::Refused);
    }
}
