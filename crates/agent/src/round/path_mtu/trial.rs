//! From what becomes of single packets to what is known of a path.
//!
//! The small packets are of the smallest size that any network has to carry (1280, the minimum of IPv6), and not smaller:
//! the answers to them are as large as those to the large ones (an ICMP message quotes up to 576 bytes, over IPv6 1280), so
//! that what loses answers by their size loses all, and most filters and queues that treat packets by size, too.
//!
//! Silence alone means nothing: whoever gets packets may not answer, packets get lost, and the kernel sends one receiver
//! six ICMP messages at once and then one a second (net.ipv4.icmp_ratelimit). So large packets count as lost only if none
//! of several is answered while each small one between them is, and nobody says that they are too large: TCP adapts to
//! that. Small packets are sent no faster than they may be answered.

use std::time::Duration;

use tokio::time::sleep;

use crate::packet_size::{Fate, Packets};

/// A packet that every path takes.
const SMALL: u16 = 1280;

/// How long to wait for the answer to a small packet, and to one of those by which the limit is found; an answer from
/// another node takes a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long to wait for the answer to a large packet. It is longer, so that a slow path is not taken for one that loses
/// them, and long enough for the next small packet to be answered.
const LONG_PATIENCE: Duration = Duration::from_millis(1100);

/// Between a small packet and the next one of any size: in less time the receiver may not be allowed another ICMP message,
/// and then it would always be the large ones that are not answered.
const AGAIN: Duration = Duration::from_millis(1100);

/// How often large and small packets take turns, and how many large ones are sent each time. Where one of three packets
/// is lost, and one of three answers, one of ten thousand trials has none of the large ones answered and all of the
/// small ones.
const TURNS: usize = 3;
const COPIES: u8 = 3;

/// How often somebody may say that packets are too large: with each message they get smaller.
const MAX_TOLD: usize = 4;

/// Most packets by which the limit is found: each halves what is left, and 14 do for 9000 bytes.
const MAX_STEPS: usize = 14;

/// After one that was answered, so that all are: with what was saved up, half of the steps and more.
const PAUSE: Duration = Duration::from_millis(500);

/// What packets are sent on.
pub(super) trait Path {
    /// What becomes of packets; None if they could not be sent.
    fn send(&self, packets: Packets) -> impl Future<Output = Option<Fate>> + Send;
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Packets of full size arrive, or somebody says how large they may be.
    Passes,
    /// Not enough was heard.
    Unknown,
    /// Nothing was heard of one packet of full size, though a small one has arrived.
    Suspect,
    /// Packets of a size are lost, and smaller ones arrive.
    Lost(Limit),
}

/// Between which sizes packets begin to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The largest size that arrived.
    pub passes: u16,
    /// The size that is lost.
    pub fails: u16,
}

/// Sends one packet of full size. That does not take long, so that a round that follows a change is soon over.
pub(super) async fn glance(path: &impl Path, full: u16) -> Found {
    let silent = silent_size(path, full).await;
    silent.err().unwrap_or(Found::Suspect)
}

/// Sends all the packets that it takes to know whether those of full size are lost.
pub(super) async fn trial(path: &impl Path, full: u16) -> Found {
    let fails = match silent_size(path, full).await {
        Ok(size) => size,
        Err(found) => return found,
    };
    for _ in 0..TURNS {
        sleep(AGAIN).await;
        if let Some(found) = take_turns(path, fails).await {
            return found;
        }
    }
    let passes = largest(path, fails).await;
    Found::Lost(Limit { passes, fails })
}

/// Whether a path on which packets were lost still loses them.
pub(super) async fn still(path: &impl Path, limit: Limit) -> Found {
    let found = take_turns(path, limit.fails).await;
    found.unwrap_or(Found::Lost(limit))
}

/// A size, the full one or what somebody says that it may be, at which nothing is heard of a packet, though a small one
/// has arrived.
async fn silent_size(path: &impl Path, full: u16) -> Result<u16, Found> {
    if full <= SMALL {
        return Err(Found::Unknown);
    }
    if !small_arrives(path).await {
        sleep(AGAIN).await;
        if !small_arrives(path).await {
            return Err(Found::Unknown);
        }
    }
    let mut size = full;
    for _ in 0..MAX_TOLD {
        match path.send(packets(size, 1, LONG_PATIENCE)).await {
            Some(Fate::Silent) => return Ok(size),
            Some(Fate::TooLarge(Some(mtu))) if SMALL < mtu && mtu < size => size = mtu,
            Some(Fate::Arrived | Fate::TooLarge(_)) => return Err(Found::Passes),
            Some(Fate::TurnedAway) | None => return Err(Found::Unknown),
        }
    }
    Err(Found::Passes)
}

/// Sends large packets and then a small one. None if nothing is heard of the large ones, and the small one arrives.
async fn take_turns(path: &impl Path, size: u16) -> Option<Found> {
    match path.send(packets(size, COPIES, LONG_PATIENCE)).await {
        Some(Fate::Silent) => (!small_arrives(path).await).then_some(Found::Unknown),
        Some(Fate::Arrived | Fate::TooLarge(_)) => Some(Found::Passes),
        Some(Fate::TurnedAway) | None => Some(Found::Unknown),
    }
}

async fn small_arrives(path: &impl Path) -> bool {
    path.send(packets(SMALL, 1, PATIENCE)).await == Some(Fate::Arrived)
}

/// The largest size that arrives, below one that does not. An answer that is missing makes it smaller than it is.
async fn largest(path: &impl Path, fails: u16) -> u16 {
    let (mut passes, mut lost) = (SMALL, fails);
    for _ in 0..MAX_STEPS {
        if lost - passes <= 1 {
            break;
        }
        let middle = passes + (lost - passes) / 2;
        if path.send(packets(middle, 1, PATIENCE)).await == Some(Fate::Arrived) {
            passes = middle;
            sleep(PAUSE).await;
        } else {
            lost = middle;
        }
    }
    passes
}

fn packets(size: u16, copies: u8, patience: Duration) -> Packets {
    Packets {
        size,
        copies,
        patience,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A path that does what a function says, which gets the number of the packet as well.
    struct Scripted<F> {
        fate: F,
        sent: Mutex<Vec<Packets>>,
    }

    impl<F: Fn(usize, u16) -> Fate + Sync> Path for Scripted<F> {
        async fn send(&self, packets: Packets) -> Option<Fate> {
            let fate = {
                let mut sent = self.sent.lock().unwrap();
                sent.push(packets);
                (self.fate)(sent.len() - 1, packets.size)
            };
            if fate == Fate::Silent {
                sleep(packets.patience).await;
            }
            Some(fate)
        }
    }

    /// What is found on a path, and the packets that were sent.
    async fn tried(full: u16, fate: impl Fn(usize, u16) -> Fate + Sync) -> (Found, Vec<Packets>) {
        let path = Scripted {
            fate,
            sent: Mutex::default(),
        };
        let found = trial(&path, full).await;
        (found, path.sent.into_inner().unwrap())
    }

    fn up_to(limit: u16) -> impl Fn(usize, u16) -> Fate + Sync {
        move |_, size| match size <= limit {
            true => Fate::Arrived,
            false => Fate::Silent,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_is_well_takes_two_packets() {
        let (found, sent) = tried(1500, up_to(1500)).await;
        assert_eq!((found, sent.len()), (Found::Passes, 2));
        assert_eq!((sent[0].size, sent[1].size), (SMALL, 1500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_found_to_the_byte() {
        for (full, limit) in [
            (1500, 1450),
            (1500, 1499),
            (9001, 1500),
            (8951, 8950),
            (1480, 1281),
        ] {
            let begun = tokio::time::Instant::now();
            let (found, _) = tried(full, up_to(limit)).await;
            let expected = Limit {
                passes: limit,
                fails: full,
            };
            assert_eq!(found, Found::Lost(expected));
            assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_alone_says_nothing() {
        let (found, sent) = tried(1500, |_, _| Fate::Silent).await;
        assert_eq!((found, sent.len()), (Found::Unknown, 2));
        let (found, _) = tried(1500, |_, _| Fate::TurnedAway).await;
        assert_eq!(found, Found::Unknown);
    }

    /// The first answer may be missing since the receiver has sent too many.
    #[tokio::test(start_paused = true)]
    async fn a_small_packet_is_sent_twice() {
        let (found, _) = tried(1500, |number, _| match number {
            0 => Fate::Silent,
            _ => Fate::Arrived,
        })
        .await;
        assert_eq!(found, Found::Passes);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_that_packets_are_too_large_is_believed() {
        let (found, sent) = tried(1500, |_, size| match size {
            ..=1400 => Fate::Arrived,
            _ => Fate::TooLarge(Some(1400)),
        })
        .await;
        assert_eq!((found, sent.len()), (Found::Passes, 3));
        for odd in [None, Some(0), Some(1500), Some(9000), Some(10)] {
            let (found, _) = tried(1500, |_, size| match size {
                SMALL => Fate::Arrived,
                _ => Fate::TooLarge(odd),
            })
            .await;
            assert_eq!(found, Found::Passes, "{odd:?}");
        }
    }

    /// The message of one router does not reach those behind it.
    #[tokio::test(start_paused = true)]
    async fn packets_of_the_size_that_somebody_names_may_be_lost_as_well() {
        let (found, _) = tried(1500, |_, size| match size {
            ..=1300 => Fate::Arrived,
            1301..=1400 => Fate::Silent,
            _ => Fate::TooLarge(Some(1400)),
        })
        .await;
        let expected = Limit {
            passes: 1300,
            fails: 1400,
        };
        assert_eq!(found, Found::Lost(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_to_a_large_packet_is_enough() {
        for answered in 1..=7 {
            let (found, _) = tried(1500, |number, size| match size == SMALL || number == answered {
                true => Fate::Arrived,
                false => Fate::Silent,
            })
            .await;
            let is_small = answered > 1 && answered % 2 == 1;
            assert_eq!(found == Found::Passes, !is_small, "{answered}: {found:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_packet_that_is_lost_between_large_ones_leaves_it_open() {
        for lost in [3, 5, 7] {
            let (found, _) = tried(1500, |number, size| match size == SMALL && number != lost {
                true => Fate::Arrived,
                false => Fate::Silent,
            })
            .await;
            assert_eq!(found, Found::Unknown, "{lost}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_glance_is_soon_over() {
        for (limit, expected) in [(1500, Found::Passes), (1400, Found::Suspect), (0, Found::Unknown)] {
            let path = Scripted {
                fate: up_to(limit),
                sent: Mutex::default(),
            };
            let begun = tokio::time::Instant::now();
            assert_eq!(glance(&path, 1500).await, expected);
            assert_eq!(path.sent.into_inner().unwrap().len(), 2);
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }

    /// ICMP messages that a receiver may send: six at once, then one a second. Others may use them up as well.
    struct Credit {
        left: f64,
        since: tokio::time::Instant,
    }

    impl Credit {
        fn of(left: f64) -> Mutex<Self> {
            let since = tokio::time::Instant::now();
            Mutex::new(Self { left, since })
        }

        fn earn(&mut self, now: tokio::time::Instant) {
            self.left = (self.left + now.duration_since(self.since).as_secs_f64()).min(6.0);
            self.since = now;
        }

        /// Whether one may be sent at a time.
        fn spend(&mut self, now: tokio::time::Instant) -> bool {
            self.earn(now);
            let may = self.left >= 1.0;
            self.left -= if may { 1.0 } else { 0.0 };
            may
        }
    }

    /// Answers to small packets are so far apart that the receiver sends each of them.
    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_answers_once_a_second_is_not_asked_for_more() {
        let credit = Credit::of(6.0);
        let (found, _) = tried(1500, |_, size| {
            let is_answered = size <= 1400 && credit.lock().unwrap().spend(tokio::time::Instant::now());
            if is_answered { Fate::Arrived } else { Fate::Silent }
        })
        .await;
        let expected = Limit {
            passes: 1400,
            fails: 1500,
        };
        assert_eq!(found, Found::Lost(expected));
    }

    /// Small and large packets wait as long for their answers, so that it is not always the large ones that get none.
    #[tokio::test(start_paused = true)]
    async fn a_path_that_is_well_is_not_lost_where_others_use_up_the_answers() {
        for left in [0.0, 0.5, 1.0] {
            for period in [700, 800, 900, 1000, 1100, 1300, 60_000] {
                for phase in (0..period.min(1000)).step_by(50) {
                    let credit = Credit::of(left);
                    let other = Mutex::new(tokio::time::Instant::now() + Duration::from_millis(phase));
                    let (found, _) = tried(1500, |_, _| {
                        let now = tokio::time::Instant::now();
                        let (mut credit, mut other) = (credit.lock().unwrap(), other.lock().unwrap());
                        while *other <= now {
                            credit.spend(*other);
                            *other += Duration::from_millis(period);
                        }
                        if credit.spend(now) {
                            Fate::Arrived
                        } else {
                            Fate::Silent
                        }
                    })
                    .await;
                    assert!(
                        !matches!(found, Found::Lost(_)),
                        "{left} left, another every {period} ms from {phase} ms: {found:?}"
                    );
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_was_fixed_is_noticed_with_one_packet() {
        let limit = Limit {
            passes: 1400,
            fails: 1500,
        };
        let of = async |fate: &(dyn Fn(u16) -> Fate + Sync)| {
            let path = Scripted {
                fate: |_: usize, size: u16| fate(size),
                sent: Mutex::default(),
            };
            let found = still(&path, limit).await;
            (found, path.sent.into_inner().unwrap().len())
        };
        assert_eq!(of(&|_| Fate::Arrived).await, (Found::Passes, 1));
        assert_eq!(of(&|size| up_to(1400)(0, size)).await, (Found::Lost(limit), 2));
        assert_eq!(of(&|_| Fate::Silent).await, (Found::Unknown, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_without_room_for_more_than_a_small_packet_is_not_tried() {
        assert_eq!(tried(SMALL, up_to(SMALL)).await, (Found::Unknown, Vec::new()));
    }
}
