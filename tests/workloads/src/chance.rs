//! Chance that a seed decides.

use std::time::Duration;

use coterie_env::Random as _;
use coterie_env::mem::SeededRandom;
use coterie_env::random::uuid_v7;

/// What a seed and a name decide: that of every name is another one.
pub struct Chance(SeededRandom);

impl Chance {
    /// The chance of something that this names, in the run of a seed.
    pub fn of(seed: u64, what: &str) -> Self {
        // FNV-1a: any function of the name will do, as long as it never changes.
        let named = what
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(SeededRandom::new(seed ^ named))
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.next_u64()
    }

    /// A version 7 UUID for a wall clock.
    pub fn uuid_v7(&self, wall_ms: u64) -> u128 {
        uuid_v7(&self.0, wall_ms)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// One of these; there is one.
    pub fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("fewer than a slice holds")]
    }

    /// Milliseconds from `least` to below `most`.
    pub fn ms(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }
}
