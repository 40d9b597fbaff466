//! Requests as an agent counts dials.

use std::collections::BTreeSet;

use super::{
    Dialled,
    attempt::{Attempt, end, late, part},
    key::{Key, Path},
    service::{are_all_on, is_of_host},
};
use crate::{
    api::{Answer, DialCount, DialFailure, DialPath},
    engine::{Facts, LATE},
    kube_proxy::IpFamily,
};

/// Most of a failure's words that a report holds.
const MAX_DETAIL: usize = 256;

/// How a dial ended, and what there is to say of it.
type End = (Answer, Option<String>);

impl Dialled {
    /// The dials and their failures: a dial fails only if every attempt of it does. Whether a bridge passes
    /// packets on without rules (`skips_rules`) is a matter of clients that have only endpoints beside them.
    pub(in super::super) fn counted(
        self,
        facts: &Facts,
        node: &str,
        skips_rules: bool,
    ) -> (Vec<DialCount>, Vec<DialFailure>) {
        let are_beside = skips_rules && are_all_on(facts, node);
        let at_once = self.answer_at_once();
        let mut counts = Vec::new();
        let mut failures = Vec::new();
        for (key, attempts) in self.ends {
            for (answer, detail) in ends(facts, &key, attempts, &at_once) {
                let is_failure = answer != Answer::Accepted;
                count(&mut counts, &key, is_failure);
                if !is_failure {
                    continue;
                }
                let is_of_pod = key.from.as_deref().is_some_and(|from| !is_of_host(facts, from));
                failures.push(DialFailure {
                    same_bridge: are_beside && key.path == Path::Service && is_of_pod,
                    from: key.from.clone(),
                    path: key.path.into(),
                    port: key.port,
                    target: key.target.to_string(),
                    endpoint: (key.path == Path::Endpoint).then(|| key.target.to_string()),
                    same_node: key.same_node,
                    answer,
                    detail: detail.map(|text| text.chars().take(MAX_DETAIL).collect()),
                });
            }
        }
        (counts, failures)
    }

    /// Who got answers of endpoints at once, as a clock shows.
    fn answer_at_once(&self) -> BTreeSet<Option<String>> {
        let direct = self.ends.iter().filter(|(key, _)| key.path == Path::Endpoint);
        let is_fast = |a: &Attempt| a.answer == Answer::Accepted && a.took.is_some_and(|ms| ms < 1000);
        let fast = direct.filter(|(_, all)| all.iter().any(is_fast));
        fast.map(|(key, _)| key.from.clone()).collect()
    }
}

/// How the attempts of a dial ended as a whole, and how a part of them where the whole went well.
fn ends(facts: &Facts, key: &Key, attempts: Vec<Attempt>, at_once: &BTreeSet<Option<String>>) -> Vec<End> {
    // Where a proxy says what it could not reach, other errors are its own as well.
    let by_proxy = attempts.iter().any(Attempt::is_by_proxy);
    let is_other = |a: &Attempt| !by_proxy || a.is_by_proxy() || !a.is_error;
    let attempts: Vec<Attempt> = attempts.into_iter().filter(is_other).collect();
    let answers: Vec<Answer> = attempts.iter().map(|a| a.answer).collect();
    let is_way = key.path != Path::Endpoint && at_once.contains(&key.from);
    let whole = match late(&attempts).filter(|_| is_way) {
        Some(seconds) => (Answer::TimedOut, Some(format!("{LATE} {seconds} s"))),
        None => (end(&answers), attempts.iter().find_map(|a| a.detail.clone())),
    };
    let is_well = whole.0 == Answer::Accepted;
    let part = is_well.then(|| part(facts, key, &attempts)).flatten();
    [whole].into_iter().chain(part).collect()
}

fn count(counts: &mut Vec<DialCount>, key: &Key, is_failure: bool) {
    let path = DialPath::from(key.path);
    let family = IpFamily::of(key.target.ip());
    let is_same = |c: &&mut DialCount| {
        (&c.from, c.path, c.port, c.family, c.same_node) == (&key.from, path, key.port, family, key.same_node)
    };
    match counts.iter_mut().find(is_same) {
        Some(count) => {
            count.made += 1;
            count.failed += u32::from(is_failure);
        }
        None => counts.push(DialCount {
            from: key.from.clone(),
            path,
            port: key.port,
            family,
            same_node: key.same_node,
            made: 1,
            failed: u32::from(is_failure),
        }),
    }
}
