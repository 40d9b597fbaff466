//! Conclusions from several samples of kube-proxy's counters.
//!
//! A change may stay pending for as long as kube-proxy's own health check allows, and a restarting API server rejects
//! every client for a while, so both conclusions need more than a minute. An idle kube-proxy makes no requests at all,
//! so "none was answered" alone also holds for a healthy one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use svcdiag_formats::kube_proxy_metrics::{Metrics, Writing};

/// kube-proxy's health check fails when a change has been pending for twice the syncPeriod, which is 30 s.
pub const MAY_WAIT: Duration = Duration::from_secs(60);

/// The API server restarts in less time.
const MAY_FAIL: Duration = Duration::from_secs(60);

/// Number of samples that must show more failures than the one before.
const RISES: u32 = 3;

/// Conclusions from the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// A change is pending.
    pub changes_pending: bool,
    /// A change has been pending for longer than kube-proxy's own health check allows, and nothing was written since.
    pub not_syncing: bool,
    /// Why writing fails, according to a failure counter.
    pub sync_error: Option<String>,
    /// Requests to the API server keep failing and none is answered, while the agent's are.
    pub api_unreachable: bool,
    /// The API server keeps denying requests.
    pub is_denied: bool,
}

/// State of the samples so far.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    last: Option<(Instant, Metrics)>,
    /// By IP family: since when changes have been pending without a write, and the counters at that time.
    waiting: BTreeMap<String, (Instant, Writing)>,
    failing: Option<Rise>,
    denied: Option<Rise>,
}

/// A counter that keeps rising.
#[derive(Clone, Copy, Debug)]
struct Rise {
    /// When it last had its former value.
    since: Instant,
    /// When it was last seen to have risen.
    last: Instant,
    /// Number of samples in which it had risen.
    readings: u32,
}

impl Rise {
    /// Adds a sample. One that is too early to show anything changes nothing.
    fn go_on(known: Option<Self>, has_risen: bool, before: Instant, at: Instant) -> Option<Self> {
        if has_risen {
            return Some(known.map_or(
                Self {
                    since: before,
                    last: at,
                    readings: 1,
                },
                |rise| Self {
                    last: at,
                    readings: rise.readings + 1,
                    ..rise
                },
            ));
        }
        known.filter(|rise| at.duration_since(rise.last) < MAY_FAIL)
    }

    fn is_long(&self) -> bool {
        self.readings >= RISES && self.last.duration_since(self.since) > MAY_FAIL
    }
}

impl Samples {
    /// Adds a sample; `reached` is since when the agent itself has reached the API server.
    pub fn add(&mut self, metrics: &Metrics, at: Instant, reached: Option<Instant>) -> Lag {
        self.wait(metrics, at);
        if let Some((before, old)) = &self.last {
            // Falling counters belong to a new process.
            let is_another = metrics.requests_failed < old.requests_failed
                || metrics.requests_denied < old.requests_denied
                || metrics.requests_answered < old.requests_answered;
            if is_another {
                (self.failing, self.denied) = (None, None);
            } else {
                let is_answered = metrics.requests_answered > old.requests_answered;
                let fails = metrics.requests_failed > old.requests_failed;
                let known = self.failing.filter(|_| !is_answered);
                // What fails while the agent does not reach the API server either is not kube-proxy's.
                let is_alone = reached.is_some_and(|since| since <= *before);
                let known = known.filter(|_| is_alone);
                self.failing = Rise::go_on(known, is_alone && fails && !is_answered, *before, at);
                let denies = metrics.requests_denied > old.requests_denied;
                self.denied = Rise::go_on(self.denied, denies, *before, at);
            }
        }
        self.last = Some((at, metrics.clone()));
        Lag {
            changes_pending: !self.waiting.is_empty(),
            not_syncing: self.waiting.values().any(|(since, _)| is_late(*since, at)),
            sync_error: self.sync_error(metrics),
            api_unreachable: self.failing.is_some_and(|rise| rise.is_long()),
            is_denied: self.denied.is_some_and(|rise| rise.is_long()),
        }
    }

    fn wait(&mut self, metrics: &Metrics, at: Instant) {
        let mut waiting = BTreeMap::new();
        for (family, writing) in metrics.writing.iter().filter(|(_, w)| w.waits()) {
            let known = self.waiting.get(family);
            let same = known.filter(|(_, before)| before.applied == writing.applied);
            waiting.insert(family.clone(), same.copied().unwrap_or((at, *writing)));
        }
        self.waiting = waiting;
    }

    /// Failures since changes became pending: what failed before and has worked since says nothing.
    fn sync_error(&self, metrics: &Metrics) -> Option<String> {
        self.waiting.iter().find_map(|(family, (_, before))| {
            let now = metrics.writing.get(family)?;
            let restores = now.restore_failures - before.restore_failures;
            let transactions = now.nftables_failures - before.nftables_failures;
            let family = ["IPv4", "IPv6"].into_iter().find(|known| family.contains(known));
            let family = family.map_or_else(String::new, |family| format!(" for {family}"));
            if restores > 0.0 {
                let plural = if restores > 1.0 { "s" } else { "" };
                Some(format!(
                    "iptables-restore has failed {restores:.0} time{plural}{family}"
                ))
            } else if transactions > 0.0 {
                let have = if transactions > 1.0 { "have" } else { "has" };
                Some(format!(
                    "{transactions:.0} of its nftables transactions {have} failed{family}"
                ))
            } else {
                None
            }
        })
    }
}

fn is_late(since: Instant, at: Instant) -> bool {
    at.duration_since(since) > MAY_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics in which each family has written rules once, and had its last change at a time.
    fn asked(families: &[(&str, f64, f64)]) -> Metrics {
        let of = |(family, applied, queued): &(&str, f64, f64)| {
            let writing = Writing {
                applied: Some(*applied),
                queued: Some(*queued),
                ..Writing::default()
            };
            ((*family).to_owned(), writing)
        };
        Metrics {
            writing: families.iter().map(of).collect(),
            ..Metrics::default()
        }
    }

    fn requests(failed: f64, denied: f64, answered: f64) -> Metrics {
        Metrics {
            requests_failed: failed,
            requests_denied: denied,
            requests_answered: answered,
            ..Metrics::default()
        }
    }

    /// The last of several samples, each some seconds after the start; the agent has reached the API server since an
    /// earlier time, or not at all.
    fn last(readings: &[(u64, Metrics)], is_reached: bool) -> Lag {
        let start = Instant::now();
        let mut samples = Samples::default();
        let mut lag = Lag::default();
        for (second, metrics) in readings {
            let at = start + Duration::from_secs(*second);
            lag = samples.add(metrics, at, is_reached.then_some(start));
        }
        lag
    }

    #[test]
    fn a_change_may_wait_for_a_minute() {
        let waits = || asked(&[("IPv4", 100.2, 105.0)]);
        let is_late = |readings: &[(u64, Metrics)]| last(readings, true).not_syncing;
        assert!(!is_late(&[(0, waits()), (10, waits()), (60, waits())]));
        assert!(is_late(&[(0, waits()), (10, waits()), (61, waits())]));
        assert!(is_late(&[(0, waits()), (3600, waits())]));
        // minSyncPeriod is 30 s: most samples have a pending change, a different one each time.
        let written = |n: f64| asked(&[("IPv4", 100.0 + n, 105.0 + n)]);
        let readings: Vec<(u64, Metrics)> = (0..20_u32)
            .map(|n| (u64::from(n) * 30, written(f64::from(n) * 30.0)))
            .collect();
        assert!(!is_late(&readings));
        // Nothing is pending in between.
        let well = asked(&[("IPv4", 105.2, 105.0)]);
        assert!(!is_late(&[(0, waits()), (40, well), (70, waits())]));
    }

    #[test]
    fn a_family_that_has_nothing_to_write_is_not_late() {
        let v6 = |queued| asked(&[("IPv4", 100.2, 100.0), ("IPv6", 50.1, queued)]);
        assert!(!last(&[(0, v6(50.0)), (90, v6(50.0))], true).not_syncing);
        assert!(last(&[(0, v6(60.0)), (90, v6(60.0))], true).not_syncing);
    }

    #[test]
    fn a_counter_of_failures_names_the_cause() {
        let failed = |count| {
            let mut metrics = asked(&[("", 100.0, 105.0)]);
            if let Some(writing) = metrics.writing.get_mut("") {
                writing.restore_failures = count;
            }
            metrics
        };
        let lag = last(&[(0, failed(2.0)), (70, failed(5.0))], true);
        assert_eq!(
            lag.sync_error.as_deref(),
            Some("iptables-restore has failed 3 times")
        );
        let one = last(&[(0, failed(4.0)), (70, failed(5.0))], true);
        assert_eq!(
            one.sync_error.as_deref(),
            Some("iptables-restore has failed 1 time")
        );
        assert_eq!(
            last(&[(0, failed(2.0)), (70, failed(2.0))], true).sync_error,
            None
        );
    }

    #[test]
    fn failures_of_one_family_are_its_own_and_those_before_a_write_are_over() {
        let label = "ip_family=\"IPv6\"}";
        let at = |applied, queued, failures| {
            let mut metrics = asked(&[("ip_family=\"IPv4\"}", 100.0, 90.0), (label, applied, queued)]);
            if let Some(writing) = metrics.writing.get_mut(label) {
                writing.nftables_failures = failures;
            }
            metrics
        };
        let lag = last(&[(0, at(100.0, 105.0, 0.0)), (70, at(100.0, 105.0, 2.0))], true);
        assert_eq!(
            lag.sync_error.as_deref(),
            Some("2 of its nftables transactions have failed for IPv6")
        );
        // It has written rules since, and the next change is on its way.
        let over = [
            (0, at(100.0, 105.0, 0.0)),
            (30, at(100.0, 105.0, 2.0)),
            (60, at(130.0, 105.0, 2.0)),
            (90, at(130.0, 150.0, 2.0)),
        ];
        assert_eq!(last(&over, true).sync_error, None);
        assert!(!last(&over, true).not_syncing);
    }

    #[test]
    fn a_server_that_restarts_is_not_unreachable() {
        let is_lost = |readings: &[(u64, Metrics)]| last(readings, true).api_unreachable;
        let failed = |count| requests(count, 0.0, 7.0);
        // Back after 40 s.
        let back = [
            (0, failed(0.0)),
            (10, failed(2.0)),
            (20, failed(4.0)),
            (40, failed(6.0)),
            (50, requests(6.0, 0.0, 9.0)),
        ];
        for count in 1..=back.len() {
            assert!(!is_lost(&back[..count]), "{count}");
        }
        let away = [
            (0, failed(0.0)),
            (20, failed(2.0)),
            (40, failed(4.0)),
            (61, failed(5.0)),
        ];
        assert!(is_lost(&away));
        assert!(!is_lost(&away[..3]));
        assert!(
            !last(&away, false).api_unreachable,
            "the agent does not reach it either"
        );
        // The agent reaches it again, and kube-proxy tries later: what failed before is nobody's fault. What fails for more
        // than a minute after that is kube-proxy's own.
        let start = Instant::now();
        let mut samples = Samples::default();
        let mut lost = |second: u64, count, reached: Option<u64>| {
            let at = |second| start + Duration::from_secs(second);
            samples
                .add(&failed(count), at(second), reached.map(at))
                .api_unreachable
        };
        for (second, count) in [(0, 0.0), (20, 2.0), (40, 3.0)] {
            assert!(!lost(second, count, Some(0)), "the outage is not known yet");
        }
        assert!(!lost(50, 4.0, None));
        for (second, count) in [(70, 5.0), (90, 6.0), (110, 7.0)] {
            assert!(!lost(second, count, Some(55)), "{second}");
        }
        assert!(lost(140, 8.0, Some(55)));
        // Two samples are not enough, however far apart, nor is one failure an hour ago.
        assert!(!is_lost(&[(0, failed(0.0)), (90, failed(5.0))]));
        assert!(!is_lost(&[
            (0, failed(0.0)),
            (10, failed(1.0)),
            (3600, failed(1.0))
        ]));
        assert!(
            !is_lost(&[(0, failed(1.0)), (60, failed(1.0)), (120, failed(1.0))]),
            "idle"
        );
        // A new process counts from zero.
        assert!(!is_lost(&[
            (0, failed(9.0)),
            (20, failed(10.0)),
            (40, failed(11.0)),
            (61, failed(1.0))
        ]));
    }

    #[test]
    fn requests_that_are_denied_again_and_again_are_told_though_others_are_answered() {
        let denied = |count| requests(0.0, count, 7.0 + count);
        let all = [
            (0, denied(0.0)),
            (30, denied(1.0)),
            (60, denied(2.0)),
            (90, denied(3.0)),
        ];
        assert!(last(&all, true).is_denied);
        assert!(!last(&all[..3], true).is_denied);
        assert!(!last(&all, true).api_unreachable);
        assert!(!last(&[(0, denied(0.0)), (30, denied(1.0)), (60, denied(1.0))], true).is_denied);
    }
}
