//! Clients for controller and agent, which run for a long time while the API server may be unreachable at times.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::{Config, runtime::utils::Backoff};
use tokio::time::Instant;

/// Connect timeout: more than two lost packets are an outage.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// First and longest pause before an interrupted watch resumes, before jitter of up to half.
const PAUSES: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(4));

/// An interruption after this time starts with the first pause again.
const CALM: Duration = Duration::from_secs(30);

/// A configuration for a long-running part that retries by itself. The client's own retries wait up to a minute and a half
/// for a busy API server, and would keep waiting long after it has recovered.
#[must_use]
pub fn for_long_runs(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    config
}

/// Pauses before an interrupted watch resumes: growing, so that a recovering API server is not overloaded, and short enough
/// for correct results seconds after that.
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
        // Each RandomState has its own keys.
        let chance = RandomState::new().hash_one(0) % 1000;
        Some(pause.mul_f64(0.5 + chance as f64 / 1000.0))
    }
}

impl Backoff for Pauses {
    /// A watch reports that it starts listing before it has reached the server: only a quiet period is a success.
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
