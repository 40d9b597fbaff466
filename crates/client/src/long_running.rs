//! Clients for controller and agent, which run for long against an API server that may be away.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::{Config, runtime::utils::Backoff};
use tokio::time::Instant;

/// Longest wait for a connection: more than two lost packets are an outage.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// First and longest pause of a watch that was interrupted, before chance makes it up to half longer or shorter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(4));

/// An interruption after so long begins with the first pause again.
const CALM: Duration = Duration::from_secs(30);

/// A configuration for a part that runs for long and tries again by itself. The client's own retries wait up to a
/// minute and a half where the API server is busy, and would go on waiting long after it is not.
#[must_use]
pub fn for_long_runs(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    config
}

/// Pauses of a watch that was interrupted: growing, so that an API server that comes back is not overrun, and
/// short enough for verdicts to be right seconds after that.
#[derive(Debug, Default)]
pub struct Pauses {
    last: Option<(Instant, Duration)>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let pause = match self.last {
            Some((at, pause)) if now.duration_since(at) < CALM => (pause * 2).min(PAUSES.1),
            _ => PAUSES.0,
        };
        self.last = Some((now, pause));
        // Each RandomState has keys of its own.
        let chance = RandomState::new().hash_one(0) % 1000;
        Some(pause.mul_f64(0.5 + chance as f64 / 1000.0))
    }
}

impl Backoff for Pauses {
    /// A watch says that it begins to list before it has reached anybody: only calm is a success.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_begin_anew_after_calm() {
        let mut pauses = Pauses::default();
        let mut next = |expected: f64| {
            let pause = pauses.next().unwrap().as_secs_f64();
            pauses.reset();
            assert!(
                (0.5 * expected..=1.5 * expected).contains(&pause),
                "{pause} for {expected}"
            );
        };
        for expected in [0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0] {
            next(expected);
        }
        tokio::time::advance(CALM).await;
        next(0.4);
    }
}
