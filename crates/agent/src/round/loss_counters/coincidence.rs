//! Whether a counter rises with the losses of a path: in most rounds that lost some, in few of the others, and faster.

use std::time::Duration;

use svcdiag_api::{LossCounter, LossCounterName};

use super::Counter;

/// So many rounds have to lose packets while the counter rises. One that rises in every second round for another
/// reason would do so by chance in one of thirty cases; and it has to keep on, in seven of eight rounds.
const LINKED_ROUNDS: u32 = 5;

/// Rounds without a loss from which on they tell something: without them nobody knows whether the counter rises anyway.
const CALM_ROUNDS: u32 = 3;

/// How a counter and the losses of a path came together in rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::round) struct Coincidence {
    /// What was lost.
    lost: u32,
    lossy: Rounds,
    calm: Rounds,
    is_told: bool,
}

/// Rounds that lost packets, or those that lost none.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    count: u32,
    /// Those in which the counter rose, and by how much.
    rises: u32,
    rose: u32,
    milliseconds: u64,
}

impl Rounds {
    /// Whether the counter rose in at least so many of eight rounds.
    fn rises_in(self, of_eight: u32) -> bool {
        self.rises * 8 >= self.count * of_eight
    }

    /// Whether the counter rose at least so many times as fast as in others.
    fn is_as_fast_as(self, others: Self, times: u64) -> bool {
        let (own, other) = (u64::from(self.rose), u64::from(others.rose));
        own.saturating_mul(others.milliseconds)
            >= other.saturating_mul(self.milliseconds).saturating_mul(times)
    }

    fn halve(&mut self) {
        self.count /= 2;
        self.rises /= 2;
        self.rose /= 2;
        self.milliseconds /= 2;
    }
}

impl Coincidence {
    pub(in crate::round) fn add(&mut self, lost: u32, rose: u32, length: Duration) {
        let rounds = match lost {
            0 => &mut self.calm,
            _ => &mut self.lossy,
        };
        rounds.count += 1;
        rounds.rises += u32::from(rose > 0);
        rounds.rose = rounds.rose.saturating_add(rose);
        let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        rounds.milliseconds = rounds.milliseconds.saturating_add(milliseconds);
        self.lost = self.lost.saturating_add(lost);
    }

    /// Forgets half.
    pub(in crate::round) fn halve(&mut self) {
        self.lost /= 2;
        self.lossy.halve();
        self.calm.halve();
    }

    /// Whether the counter counts what the path loses, as far as can be seen. What was told stays on somewhat less
    /// than that, so that a report does not come and go by chance.
    fn is_linked(self, name: LossCounterName) -> bool {
        let Self {
            lost, lossy, calm, ..
        } = self;
        // A full table has no room for anybody, whether the few packets of a round are among those or not.
        let is_for_all = name == LossCounterName::ConntrackTableFull;
        let is_calm = |rounds: u32, of_eight: u32, times: u64| {
            is_for_all
                || calm.count >= rounds
                    && calm.rises * 8 <= calm.count * of_eight
                    && lossy.is_as_fast_as(calm, times)
        };
        match self.is_told {
            false => {
                lossy.rises >= LINKED_ROUNDS
                    && lossy.rises_in(7)
                    && is_calm(CALM_ROUNDS, 4, 2)
                    && lossy.rose >= lost
            }
            true => {
                lossy.rises > 0
                    && lossy.rises_in(6)
                    && is_calm(1, 6, 1)
                    && lossy.rose.saturating_mul(2) >= lost
            }
        }
    }

    /// What is reported of it, if anything.
    pub(in crate::round) fn report(&mut self, counter: &Counter) -> Option<LossCounter> {
        self.is_told = self.is_linked(counter.name);
        self.is_told.then(|| LossCounter {
            pod: counter.pod.clone(),
            counter: counter.name,
            rose: self.lossy.rose,
            rounds: self.lossy.rises,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Rounds that lose nothing and in which the counter stays.
    const CALM: [(u32, u32); 3] = [(0, 0); 3];

    /// Whether a counter is reported after rounds of (lost, rose).
    fn is_reported(name: LossCounterName, rounds: &[(u32, u32)]) -> bool {
        let mut coincidence = Coincidence::default();
        for (lost, rose) in rounds {
            coincidence.add(*lost, *rose, SECOND);
        }
        coincidence.report(&Counter::of_node(name)).is_some()
    }

    const CLASHES: LossCounterName = LossCounterName::ConntrackInsertFailed;
    const FULL: LossCounterName = LossCounterName::ConntrackTableFull;

    #[test]
    fn a_counter_that_rises_with_the_losses_is_reported() {
        let each = [(2, 3), (1, 1), (1, 4), (1, 1), (1, 1)];
        assert!(is_reported(CLASHES, &[&each[..], &CALM].concat()));
        assert!(is_reported(CLASHES, &[[(2, 3), (0, 0), (0, 0)]; 5].concat()));
        let mostly = [vec![(1, 2); 7], vec![(1, 0), (0, 1)], CALM.to_vec()].concat();
        assert!(is_reported(CLASHES, &mostly));
    }

    #[test]
    fn a_counter_is_not_reported_for_chance() {
        for (why, rounds) in [
            ("it does not rise", vec![(2, 0); 9]),
            ("it rises without losses", vec![(0, 7); 9]),
            ("too few rounds", vec![(2, 3); 4]),
            ("it rises less than is lost", vec![(3, 1); 9]),
            (
                "in a third of the rounds it does not rise",
                [[(1, 3), (1, 3), (1, 0)]; 5].concat(),
            ),
            ("it rises all the time", [[(1, 3), (0, 3)]; 9].concat()),
        ] {
            let rounds = [&rounds[..], &CALM].concat();
            assert!(!is_reported(CLASHES, &rounds), "{why}");
        }
        let always = [(2, 3); 9];
        assert!(!is_reported(CLASHES, &always), "no round without a loss");
        assert!(!is_reported(CLASHES, &[&always[..], &CALM[1..]].concat()), "two");
        assert!(is_reported(CLASHES, &[&always[..], &CALM].concat()));
    }

    #[test]
    fn what_rises_steadily_is_not_reported_though_rounds_with_losses_last_longer() {
        let is_reported = |of_lossy: u32| {
            let mut coincidence = Coincidence::default();
            for number in 0..40 {
                // One a second: in two of five short rounds, and three in each long one.
                match number % 2 {
                    0 => coincidence.add(1, of_lossy, 3 * SECOND),
                    _ => coincidence.add(0, u32::from(number % 10 < 4), Duration::from_millis(400)),
                }
            }
            coincidence.report(&Counter::of_node(CLASHES)).is_some()
        };
        assert!(!is_reported(3));
        assert!(is_reported(9), "three times as fast");
    }

    #[test]
    fn a_full_table_is_reported_though_not_every_round_loses_something() {
        assert!(is_reported(FULL, &[[(1, 9), (0, 9)]; 5].concat()));
        assert!(!is_reported(FULL, &[[(1, 0), (0, 9)]; 5].concat()));
    }

    #[test]
    fn what_was_reported_does_not_go_by_chance() {
        let counter = Counter::of_node(CLASHES);
        let mut coincidence = Coincidence::default();
        for _ in 0..6 {
            coincidence.add(2, 2, SECOND);
        }
        for _ in 0..3 {
            coincidence.add(0, 0, SECOND);
        }
        assert!(coincidence.report(&counter).is_some());
        coincidence.add(2, 0, SECOND);
        coincidence.add(1, 0, SECOND);
        assert!(coincidence.report(&counter).is_some(), "6 of 8 rounds");
        coincidence.add(1, 0, SECOND);
        assert!(coincidence.report(&counter).is_none(), "6 of 9 rounds");
    }
}
