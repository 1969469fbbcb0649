//! What is asked of a system, the same for both: which keys and values, how many at a time, for how long.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Keys that a load chooses from.
pub const KEYS: u64 = 10_000;
/// Bytes of every value.
pub const VALUE_BYTES: usize = 256;
/// Connections that one load uses at most, spread over the members.
pub const CONNECTIONS_MAX: usize = 8;
/// Members of either system.
pub const MEMBERS: usize = 3;
/// How long an operation may take before it counts as failed; the time-out of etcd's server is 7 s, of Coterie's 5 s.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What every slot of a load does, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Puts a value under a key of [`KEYS`]; answered when it is durable on a majority.
    Write,
    /// Gets a key, as of now.
    Read,
    /// Gets a key, as of now as long as clocks run at one rate. Coterie only.
    LeasedRead,
    /// Takes a lock of its own, held by a lease or a stream, and gives it back.
    Lock,
}

/// When a load is measured. It starts before, and ends with it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    /// From after `warm_up`, for `length`.
    pub fn after(warm_up: Duration, length: Duration) -> Self {
        let begin = Instant::now() + warm_up;
        Self { begin, end: begin + length }
    }

    /// When the measurement begins.
    pub fn begin(&self) -> Instant {
        self.begin
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.end - self.begin
    }

    /// Whether nothing more is to be started.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

/// One connection's part of a load: its slots have numbers that no other connection's have.
#[derive(Clone, Debug)]
pub struct Part {
    /// What they do.
    pub work: Work,
    /// How many operations are in flight: one of each slot.
    pub slots: Range<usize>,
    /// When it counts.
    pub window: Window,
    /// What decides the keys.
    pub seed: u64,
    /// The values.
    pub values: Values,
}

impl Part {
    /// Divides `in_flight` slots over at most [`CONNECTIONS_MAX`] connections, and gives each a member, from `first` on.
    pub fn divide(part: &Self, in_flight: usize, first: usize) -> Vec<(usize, Self)> {
        let connections = in_flight.min(CONNECTIONS_MAX);
        let at = |connection: usize| connection * in_flight / connections;
        let piece = |connection: usize| Self { slots: at(connection)..at(connection + 1), ..part.clone() };
        (0..connections).map(|connection| ((first + connection) % MEMBERS, piece(connection))).collect()
    }

    /// The chance of one slot.
    pub fn chance(&self, slot: usize) -> Chance {
        Chance::new(self.seed ^ (slot as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

/// What slots measured.
#[derive(Debug, Default)]
pub struct Samples {
    nanos: Vec<u64>,
    /// Operations that were refused or took longer than [`TIMEOUT`].
    pub failed: u64,
    /// What the first of them said.
    pub failure: Option<String>,
}

impl Samples {
    /// An operation that began at `begun` and is done; it counts if that is within the window.
    pub fn done(&mut self, window: &Window, begun: Instant, now: Instant) {
        if now >= window.begin && now < window.end {
            self.nanos.push(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// An operation that failed.
    pub fn fail(&mut self, why: impl ToString) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| why.to_string());
    }

    /// Adds what other slots measured.
    pub fn merge(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
    }

    /// How many were done.
    pub fn count(&self) -> usize {
        self.nanos.len()
    }

    /// The latencies' percentiles, in microseconds.
    pub fn percentiles_us<const N: usize>(&mut self, percents: [f64; N]) -> [f64; N] {
        self.nanos.sort_unstable();
        percents.map(|percent| nearest_rank(&self.nanos, percent).map_or(0.0, |nanos| *nanos as f64 / 1_000.0))
    }
}

/// The smallest value of `sorted` that `percent` of them do not exceed.
pub fn nearest_rank<T>(sorted: &[T], percent: f64) -> Option<&T> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1)
}

/// Values of [`VALUE_BYTES`], made once.
#[derive(Clone, Debug)]
pub struct Values(Arc<[Bytes]>);

impl Values {
    /// Some that do not compress, by seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let value = |chance: &mut Chance| (0..VALUE_BYTES / 8).flat_map(|_| chance.draw().to_le_bytes()).collect();
        Self((0..64).map(|_| value(&mut chance)).collect())
    }

    /// One of them.
    pub fn choose(&self, chance: &mut Chance) -> Bytes {
        self.0[chance.below(self.0.len() as u64) as usize].clone()
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; its bias is below 2^-50 for the bounds that are used.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_slots_of_a_load_are_spread_over_connections_and_members() {
        let window = Window::after(Duration::ZERO, Duration::ZERO);
        let part = Part { work: Work::Write, slots: 0..0, window, seed: 1, values: Values::new(1) };
        let parts = Part::divide(&part, 64, 0);
        assert_eq!(parts.len(), CONNECTIONS_MAX);
        assert_eq!(parts.iter().map(|(_, part)| part.slots.len()).collect::<Vec<_>>(), [8; 8]);
        assert_eq!(parts.iter().map(|(member, _)| *member).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(parts[7].1.slots, 56..64);
        let single = Part::divide(&part, 1, 2);
        assert_eq!((single.len(), single[0].0, single[0].1.slots.clone()), (1, 2, 0..1));
    }

    #[test]
    fn only_what_ends_within_the_window_counts() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(1));
        let mut samples = Samples::default();
        let at = |ms: u64| window.begin() + Duration::from_millis(ms);
        samples.done(&window, window.begin(), window.begin() - Duration::from_millis(1));
        samples.done(&window, at(0), at(500));
        samples.done(&window, at(0), at(1_000));
        assert_eq!(samples.count(), 1);
        assert_eq!(samples.percentiles_us([50.0, 99.0]), [500_000.0; 2]);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<u32> = (1..=20).collect();
        assert_eq!((nearest_rank(&sorted, 50.0), nearest_rank(&sorted, 99.0)), (Some(&10), Some(&20)));
        assert_eq!(nearest_rank(&sorted[..0], 50.0), None);
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let choose = |seed| {
            let mut chance = Chance::new(seed);
            let keys: Vec<u64> = (0..100).map(|_| chance.below(KEYS)).collect();
            (keys, Values::new(seed).choose(&mut chance))
        };
        assert_eq!(choose(7), choose(7));
        assert_ne!(choose(7), choose(8));
    }
}
