//! The budget for dials: a rate, a limit on concurrent dials, and fairness between namespaces.
//!
//! No namespace gets more than a quarter of the concurrent dials, so that hanging dials do not block others. A dial
//! that finds the budget unspent and nothing queued starts at once. Others are queued by namespace of their NodeProbe;
//! while any are queued, one task hands out permits, first to the namespace that has waited longest for one. A
//! namespace with thousands of dials therefore delays others by one dial only.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

/// Unspent budget accumulates for this part of a second, so that small rounds need not wait.
const BURST: f64 = 0.1;

/// A namespace may have this part of all concurrent dials.
const SHARE: u32 = 4;

/// Namespaces remembered before those without a dial are dropped.
const MANY_NAMESPACES: usize = 256;

/// Permission for one dial, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _of_all: OwnedSemaphorePermit,
    _of_its_namespace: OwnedSemaphorePermit,
}

/// The dials of an agent.
#[derive(Clone, Debug)]
pub struct Budget {
    at_once: Arc<Semaphore>,
    /// Concurrent dials of one namespace.
    share: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    waiting: Turns<oneshot::Sender<OwnedSemaphorePermit>>,
    /// What each namespace may still start.
    shares: HashMap<String, Arc<Semaphore>>,
    /// Whether a task hands out permits.
    is_served: bool,
}

impl Budget {
    /// At most `at_once` concurrent dials, and `per_second` started in a second.
    #[must_use]
    pub fn new(at_once: u32, per_second: u32) -> Self {
        let number = |n: u32| usize::try_from(n).unwrap_or(1).max(1);
        Self {
            at_once: Arc::new(Semaphore::new(number(at_once))),
            share: number(at_once / SHARE),
            state: Arc::new(Mutex::new(State {
                tokens: Tokens::new(f64::from(per_second.max(1)), Instant::now()),
                waiting: Turns::default(),
                shares: HashMap::new(),
                is_served: false,
            })),
        }
    }

    /// Waits until a namespace may dial; None when the agent is stopping.
    pub async fn take(&self, namespace: &str) -> Option<Permit> {
        let share = self.share_of(namespace);
        // Waiting here blocks no other namespace.
        let of_its_namespace = share.acquire_owned().await.ok()?;
        let of_all = self.take_of_all(namespace).await?;
        Some(Permit {
            _of_all: of_all,
            _of_its_namespace: of_its_namespace,
        })
    }

    fn share_of(&self, namespace: &str) -> Arc<Semaphore> {
        let shares = &mut self.state().shares;
        if shares.len() >= MANY_NAMESPACES {
            // The share is held with the permit, and while waiting for one.
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.share));
        shares.entry(namespace.to_owned()).or_insert_with(new).clone()
    }

    async fn take_of_all(&self, namespace: &str) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut state = self.state();
            if state.waiting.is_empty()
                && let Ok(permit) = self.at_once.clone().try_acquire_owned()
                && state.tokens.take(Instant::now()).is_none()
            {
                return Some(permit);
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push(namespace, sender);
            if !state.is_served {
                state.is_served = true;
                tokio::spawn(self.clone().serve());
            }
            turn
        };
        turn.await.ok()
    }

    /// Hands out permits until the queues are empty.
    async fn serve(self) {
        while let Ok(mut permit) = self.at_once.clone().acquire_owned().await {
            let pause = loop {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.is_served = false;
                    return;
                }
                if let Some(pause) = state.tokens.take(Instant::now()) {
                    break Some(pause);
                }
                let Some(next) = state.waiting.next() else {
                    continue;
                };
                match next.send(permit) {
                    Ok(()) => break None,
                    // It gave up; its permit goes to the next.
                    Err(unused) => {
                        state.tokens.give_back();
                        permit = unused;
                    }
                }
            };
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A token bucket.
#[derive(Debug)]
struct Tokens {
    per_second: f64,
    number: f64,
    at: Instant,
}

impl Tokens {
    fn new(per_second: f64, now: Instant) -> Self {
        let mut tokens = Self {
            per_second,
            number: 0.0,
            at: now,
        };
        tokens.number = tokens.most();
        tokens
    }

    fn most(&self) -> f64 {
        (self.per_second * BURST).max(1.0)
    }

    /// Takes a token, or returns when there will be one.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.number = (self.number + elapsed * self.per_second).min(self.most());
        self.at = now;
        if self.number >= 1.0 {
            self.number -= 1.0;
            return None;
        }
        let missing = (1.0 - self.number) / self.per_second;
        // Timers have millisecond resolution; a rounded-off rest would be waited for again.
        Some(Duration::from_secs_f64(missing).max(Duration::from_millis(1)))
    }

    fn give_back(&mut self) {
        self.number += 1.0;
    }
}

/// Waiting dials by namespace, in the order of the namespaces' turns.
#[derive(Debug)]
struct Turns<T>(VecDeque<(String, VecDeque<T>)>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Turns<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, namespace: &str, one: T) {
        match self.0.iter_mut().find(|(known, _)| known == namespace) {
            Some((_, waiting)) => waiting.push_back(one),
            None => self.0.push_back((namespace.to_owned(), [one].into())),
        }
    }

    /// The first dial of the namespace whose turn it is; that namespace is then last.
    fn next(&mut self) -> Option<T> {
        let (namespace, mut waiting) = self.0.pop_front()?;
        let one = waiting.pop_front();
        if !waiting.is_empty() {
            self.0.push_back((namespace, waiting));
        }
        one
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn namespaces_take_turns() {
        let mut turns = Turns::default();
        for (namespace, one) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            turns.push(namespace, one);
        }
        let order: Vec<i32> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(turns.is_empty());
    }

    /// Lets a namespace dial a number of times, each dial of a given duration, and counts those that started.
    fn dials(
        budget: &Budget,
        namespace: &'static str,
        number: usize,
        lasts: Duration,
    ) -> Arc<std::sync::atomic::AtomicUsize> {
        let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for _ in 0..number {
            let (budget, begun) = (budget.clone(), begun.clone());
            tokio::spawn(async move {
                let permit = budget.take(namespace).await;
                begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(lasts).await;
                drop(permit);
            });
        }
        begun
    }

    fn count(of: &std::sync::atomic::AtomicUsize) -> usize {
        of.load(std::sync::atomic::Ordering::Relaxed)
    }

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn no_more_dials_begin_in_a_second_than_are_allowed() {
        let begun = dials(&Budget::new(64, 200), "a", 10_000, MOMENT);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let count = count(&begun);
        assert!((1_950..=2_021).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_ten_thousand_dials_does_not_starve_another() {
        let budget = Budget::new(64, 200);
        let _many = dials(&budget, "many", 10_000, MOMENT);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let few = dials(&budget, "few", 50, MOMENT);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count(&few), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn dials_that_hang_do_not_starve_another_namespace_either() {
        let budget = Budget::new(8, 200);
        // Four of these a second, for more than half an hour.
        let _hanging = dials(&budget, "hanging", 10_000, Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let few = dials(&budget, "few", 4, MOMENT);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(count(&few), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn dials_of_one_namespace_that_never_end_do_not_delay_another() {
        let budget = Budget::new(8, 200);
        let hanging = dials(&budget, "hanging", 10_000, Duration::from_secs(3600));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(count(&hanging), 2);
        let begun = Instant::now();
        for namespace in ["a", "b", "c"] {
            let _permits = [budget.take(namespace).await, budget.take(namespace).await];
            assert!(begun.elapsed() < Duration::from_millis(50), "{namespace}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_without_dials_are_forgotten() {
        let budget = Budget::new(8, 100_000);
        let held = budget.take("held").await;
        for n in 0..3 * MANY_NAMESPACES {
            drop(budget.take(&n.to_string()).await);
        }
        assert!(budget.state().shares.len() <= MANY_NAMESPACES);
        assert!(held.is_some() && budget.state().shares.contains_key("held"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_nobodys_turn() {
        let budget = Budget::new(1, 10);
        let held = budget.take("a").await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take("a").await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        drop(held);
        let begun = Instant::now();
        assert!(budget.take("b").await.is_some());
        assert!(begun.elapsed() < Duration::from_millis(120));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_round_need_not_wait() {
        let budget = Budget::new(64, 200);
        let begun = Instant::now();
        for _ in 0..20 {
            drop(budget.take("a").await.unwrap());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
