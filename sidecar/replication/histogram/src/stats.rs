//! Percentiles at a glance.

use std::fmt;

/// Percentiles of one histogram. The names are those that openraft reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were recorded.
    pub samples: u64,
    /// 0.1 of 100 values are not larger.
    pub p0_1: u64,
    /// 1 of 100 values is not larger; and so on.
    pub p1: u64,
    /// 5 of 100.
    pub p5: u64,
    /// 10 of 100.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 99.9 of 100.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(f, "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, P50: {p50}, ")?;
        write!(f, "P90: {p90}, P99: {p99}, P99.9: {p99_9}]")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_percentiles_are_shown() {
        let mut histogram = crate::Histogram::<()>::new();
        histogram.record_n(5, 3);
        assert_eq!(
            histogram.percentile_stats().to_string(),
            "[samples: 3, P0.1: 5, P1: 5, P5: 5, P10: 5, P50: 5, P90: 5, P99: 5, P99.9: 5]"
        );
    }
}
