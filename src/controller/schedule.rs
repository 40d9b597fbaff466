//! When to reconcile again.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::api::ServiceDiagnosisSpec;

/// The kubelet and the endpoints controller write whole seconds; a reconciliation a moment after a deadline sees it as
/// passed.
const AFTER_DEADLINE: Duration = Duration::from_millis(50);

/// First and longest pause after a failure, and the longest after an outage of the API server: when it is back, results
/// must be correct within seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const IN_OUTAGE: Duration = Duration::from_secs(5);

/// Reconciliations in a second for which there is no reason but that time has passed. Whatever changes, be it an object or what
/// agents see, has a diagnosis reconciled when its turn in the queue comes: agents keep to their interval, however many
/// diagnoses there are.
const AT_REST: u32 = 5;

/// The shortest round, whatever the interval is.
const SHORTEST: Duration = Duration::from_secs(1);

/// Time until the next reconciliation: the next moment of the diagnosis in a round of the interval, or longer with many
/// diagnoses; or the time at which the result changes by itself, if that is earlier. Each diagnosis has a moment of its own by
/// its UID, so that thousands that were reconciled together, as after a start, are not for ever.
pub(super) fn next_round(
    spec: &ServiceDiagnosisSpec,
    recheck_at: Option<Timestamp>,
    uid: &str,
    now: Timestamp,
    diagnoses: usize,
) -> Duration {
    let interval = Duration::from_secs(u64::from(spec.interval_seconds));
    let for_all = Duration::from_secs(in_steps(diagnoses)) / AT_REST;
    let next = until_moment(interval.max(for_all).max(SHORTEST), fraction_of(uid), now);
    let recheck =
        recheck_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default() + AFTER_DEADLINE);
    recheck.map_or(next, |recheck| recheck.min(next))
}

/// A number rounded up to one of eight steps between two powers of two: in a round of another length all moments are others.
fn in_steps(number: usize) -> u64 {
    let number = u64::try_from(number).unwrap_or(u64::MAX).clamp(1, 1 << 32);
    number.next_multiple_of((number.next_power_of_two() / 16).max(1))
}

/// Time until the moment at a fraction of each round, unless it is just about to come.
fn until_moment(round: Duration, fraction: f64, now: Timestamp) -> Duration {
    let since = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    let begun = since.as_secs_f64() / round.as_secs_f64();
    let left = (fraction - begun.fract()).rem_euclid(1.0);
    let is_about_to_come = left < 0.1;
    round.mul_f64(if is_about_to_come { left + 1.0 } else { left })
}

/// 0 to 1, always the same for one diagnosis.
fn fraction_of(uid: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Failures in a row of each diagnosis, by UID.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// Counts a failure; the pause until the next attempt doubles with each. Outages do not count.
    pub(super) fn next(&self, uid: &str, is_outage: bool) -> Duration {
        if is_outage {
            return IN_OUTAGE.mul_f64(0.5 + fraction_of(uid));
        }
        let mut failures = self.0.lock();
        let count = failures.entry(uid.to_owned()).or_insert(0);
        let wait = BACKOFF.0.saturating_mul(1 << (*count).min(10)).min(BACKOFF.1);
        *count += 1;
        wait
    }

    /// Keeps only these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Resets the failures.
    pub(super) fn reset(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Since when agents have owed a report on what was planned by then, by UID of the diagnosis. NodeProbes alone do not show
/// it: each may be answered by the time that it changes again.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<HashMap<String, Timestamp>>);

impl Unanswered {
    /// Since when, if so.
    pub(super) fn since(&self, uid: &str) -> Option<Timestamp> {
        self.all().get(uid).copied()
    }

    /// Records whether a report is owed now.
    pub(super) fn note(&self, uid: &str, is_owed: bool, now: Timestamp) {
        if is_owed {
            self.all().entry(uid.to_owned()).or_insert(now);
        } else {
            self.all().remove(uid);
        }
    }

    /// Keeps only these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.all().retain(|uid, _| uids.contains(uid));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn spec() -> ServiceDiagnosisSpec {
        ServiceDiagnosisSpec::for_service("web")
    }

    #[test]
    fn rounds_are_spread_evenly_whenever_they_begin_and_come_once_in_each_interval() {
        let start = Timestamp::from_second(1_790_000_000).unwrap();
        let next = |uid: &str, now: Timestamp| {
            let wait = next_round(&spec(), None, uid, now, 250);
            (wait, now + SignedDuration::try_from(wait).unwrap())
        };
        let mut in_each_ten = [0; 7];
        for i in 0..1000 {
            let uid = format!("uid-{i}");
            let (wait, first) = next(&uid, start);
            assert!((6..=66).contains(&wait.as_secs()), "{wait:?}");
            in_each_ten[usize::try_from(wait.as_secs() / 10).unwrap()] += 1;
            // A timer is late by a moment, and a wait a moment too short for the clock.
            for late in [-1, 0, 5, 200] {
                let (wait, _) = next(&uid, first + SignedDuration::from_millis(late));
                assert!((59.7..60.1).contains(&wait.as_secs_f64()), "{wait:?}");
            }
        }
        let are_even = in_each_ten[1..6].iter().all(|n| (120..220).contains(n));
        assert!(are_even, "{in_each_ten:?}");
    }

    #[test]
    fn one_diagnosis_more_seldom_gives_all_of_them_other_moments() {
        let steps: BTreeSet<u64> = (4096..=8192).map(in_steps).collect();
        assert_eq!(steps.len(), 9);
        for number in [1, 2, 17, 300, 4097, 5000, 100_000] {
            let step = in_steps(number);
            let number = u64::try_from(number).unwrap();
            assert!(
                (number..=number + number / 8 + 1).contains(&step),
                "{number}: {step}"
            );
        }
        assert_eq!(in_steps(0), 1);
        assert_eq!(in_steps(usize::MAX), 1 << 32);
    }

    #[test]
    fn recheck_at_is_honoured_when_it_comes_first() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds: i64| {
            next_round(
                &spec(),
                Some(now + SignedDuration::from_secs(seconds)),
                "uid",
                now,
                5_000,
            )
        };
        assert_eq!(at(28), Duration::from_millis(28_050));
        assert_eq!(at(-5), Duration::from_millis(50));
        // All 5,000 in 1,024 s.
        assert!((102..=1127).contains(&at(3600).as_secs()));
    }

    #[test]
    fn failures_back_off_up_to_five_minutes_and_are_forgotten() {
        let failures = Failures::default();
        let waits: Vec<u64> = (0..12).map(|_| failures.next("a", false).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        failures.reset("a");
        assert_eq!(failures.next("a", false).as_secs(), 1);
    }

    #[test]
    fn in_an_outage_nobody_waits_long_nor_do_all_come_at_once() {
        let failures = Failures::default();
        let waits: Vec<Duration> = (0..100).map(|n| failures.next(&n.to_string(), true)).collect();
        assert!(waits.iter().all(|wait| *wait <= IN_OUTAGE.mul_f64(1.5)));
        assert!(waits.iter().any(|wait| *wait < IN_OUTAGE) && waits.iter().any(|wait| *wait > IN_OUTAGE));
        assert_eq!(failures.next("1", false).as_secs(), 1, "it counts for nobody");
    }
}
