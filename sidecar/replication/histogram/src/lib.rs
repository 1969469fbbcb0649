//! Histograms for openraft's statistics, in place of the crate of this name on crates.io.
//!
//! That one keeps tables of 26 MB in every process for bucket widths that nobody here uses. openraft calls only what is
//! below; this is written from those calls. It keeps no table at all, and a histogram takes memory as far as its largest
//! value, 2 kB at most.
//!
//! ```text
//! value   0 1 … 7 | 8-9 10-11 12-13 14-15 | 16-19 … 28-31 | … | … u64::MAX
//! bucket  0 1 … 7 |  8    9    10    11   |   12  …  15   | … | 251
//! ```
//! Each power of two has four buckets, so a percentile is wrong by less than a quarter.

mod chart;
mod stats;

pub use chart::{AsciiChart, Detailed};
pub use stats::PercentileStats;

use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// Bits of a value that choose its bucket, below the highest one.
const FINE_BITS: u32 = 2;
/// Buckets of one power of two.
const FINE: usize = 1 << FINE_BITS;

/// How often which values were recorded.
///
/// `T` is there because openraft names it; it means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Up to the last bucket that has any.
    counts: Vec<u64>,
    total: u64,
    unused: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Nothing recorded; takes no memory of its own yet.
    pub fn new() -> Self {
        Self { counts: Vec::new(), total: 0, unused: PhantomData }
    }

    /// Records a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket_of(value);
        if bucket >= self.counts.len() {
            // Exactly: most histograms of openraft only ever see small values.
            self.counts.reserve_exact(bucket + 1 - self.counts.len());
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A value that the share `p` (0 to 1) of all values does not exceed, as exactly as its bucket is wide; 0 if there is
    /// none.
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = ((self.total as f64 * p).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0_u64;
        for (bucket, count) in self.counts() {
            if below.saturating_add(count) >= rank {
                return within(bounds(bucket), rank - below, count);
            }
            below = below.saturating_add(count);
        }
        0
    }

    /// The percentiles that openraft shows.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    /// The buckets that have any, with how many.
    fn counts(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }
}

fn bucket_of(value: u64) -> usize {
    let Some(highest) = value.checked_ilog2().filter(|highest| *highest >= FINE_BITS) else {
        return value as usize;
    };
    let fine = (value >> (highest - FINE_BITS)) as usize & (FINE - 1);
    (highest - FINE_BITS + 1) as usize * FINE + fine
}

/// The values of a bucket.
fn bounds(bucket: usize) -> RangeInclusive<u64> {
    if bucket < FINE {
        return bucket as u64..=bucket as u64;
    }
    let shift = (bucket / FINE - 1) as u32;
    let first = ((FINE + bucket % FINE) as u64) << shift;
    first..=first + ((1 << shift) - 1)
}

/// The value at `rank` of `count` that lie evenly within the bounds.
fn within(bounds: RangeInclusive<u64>, rank: u64, count: u64) -> u64 {
    let steps = (bounds.end() - bounds.start()) as f64;
    // Of values that lie evenly, the first is half a step from the lower bound.
    let share = (rank as f64 - 0.5) / count as f64;
    bounds.start() + ((steps * share) as u64).min(bounds.end() - bounds.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap_up_to_the_largest_value() {
        let mut next = 0;
        for bucket in 0..252 {
            let bounds = bounds(bucket);
            assert_eq!(*bounds.start(), next, "bucket {bucket}");
            assert_eq!((bucket_of(*bounds.start()), bucket_of(*bounds.end())), (bucket, bucket));
            next = bounds.end().wrapping_add(1);
        }
        assert_eq!(next, 0, "the last one ends with the largest value");
    }

    #[test]
    fn small_values_are_exact_and_large_ones_are_within_a_quarter() {
        for value in (0..8).chain([9, 100, 4_095, 4_096, 1_000_003, u64::MAX]) {
            let mut histogram = Histogram::<()>::new();
            histogram.record(value);
            let seen = histogram.percentile(0.5);
            let error = seen.abs_diff(value) as f64 / value.max(1) as f64;
            assert!(error < if value < 8 { f64::EPSILON } else { 0.25 }, "{value} is seen as {seen}");
        }
    }

    #[test]
    fn percentiles_are_near_those_of_the_values() {
        let mut histogram = Histogram::<()>::new();
        (1..=10_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 10_000);
        let expected = [(stats.p0_1, 10), (stats.p1, 100), (stats.p5, 500), (stats.p10, 1_000), (stats.p50, 5_000)];
        for (seen, value) in expected.into_iter().chain([(stats.p90, 9_000), (stats.p99, 9_900), (stats.p99_9, 9_990)])
        {
            assert!(seen.abs_diff(value) * 10 <= value, "{value} is seen as {seen}");
        }
    }

    #[test]
    fn percentiles_never_fall() {
        let mut histogram = Histogram::<()>::new();
        for (value, count) in [(3, 5), (17, 1), (1_000, 40), (u64::MAX, 2)] {
            histogram.record_n(value, count);
        }
        let percentiles: Vec<u64> = (0..=1_000).map(|p| histogram.percentile(f64::from(p) / 1_000.0)).collect();
        assert!(percentiles.is_sorted(), "{percentiles:?}");
    }

    #[test]
    fn nothing_recorded_is_zero_and_takes_no_memory() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(u64::MAX, 0);
        assert_eq!((histogram.total(), histogram.percentile(0.99)), (0, 0));
        assert_eq!(histogram, Histogram::default());
        assert_eq!(histogram.counts.capacity(), 0);
    }

    #[test]
    fn memory_is_bounded_by_the_largest_value() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(1_024);
        assert!(histogram.counts.capacity() <= 40);
        histogram.record(u64::MAX);
        assert_eq!(histogram.counts.len(), 252);
        histogram.record_n(1, u64::MAX);
        assert_eq!(histogram.total(), u64::MAX, "counts do not wrap");
    }
}
