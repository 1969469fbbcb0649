//! Histograms as text.

use std::collections::BTreeSet;
use std::fmt;

use crate::{Histogram, bounds};

/// One character for each series, again from the first after the last.
const MARKS: [char; 5] = ['█', '▒', '░', '▓', '▞'];
/// The longest bar, in characters; rounding may add one for each series.
const WIDTH: u64 = 40;

/// Histograms side by side: a line for each bucket, a bar for each series.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// Without any series.
    pub fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// With one more series.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// What is printed; nothing if nothing was recorded.
    pub fn detailed(&self) -> Detailed<'_, T> {
        Detailed(self)
    }
}

/// A chart, when it is printed.
#[derive(Debug)]
pub struct Detailed<'a, T>(&'a AsciiChart<T>);

impl<T> fmt::Display for Detailed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series = &self.0.series;
        let buckets: BTreeSet<usize> =
            series.iter().flat_map(|(_, it)| it.counts().map(|(bucket, _)| bucket)).collect();
        let counts = |bucket: usize| series.iter().map(move |(_, it)| it.counts.get(bucket).copied().unwrap_or(0));
        let sum = |bucket| counts(bucket).fold(0, u64::saturating_add);
        let Some(most) = buckets.iter().map(|bucket| sum(*bucket)).max() else { return Ok(()) };
        for ((name, histogram), mark) in series.iter().zip(MARKS.iter().cycle()) {
            writeln!(f, "{mark} {name}: {}", histogram.percentile_stats())?;
        }
        for bucket in buckets {
            let bounds = bounds(bucket);
            write!(f, "[{}, {}] | ", bounds.start(), bounds.end())?;
            for (count, mark) in counts(bucket).zip(MARKS.iter().cycle()) {
                // Whatever there is can be seen.
                let length = (count as f64 / most as f64 * WIDTH as f64).ceil() as usize;
                write!(f, "{}", mark.to_string().repeat(length))?;
            }
            writeln!(f, " {}", sum(bucket))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_for_each_series_and_bucket() {
        let (mut quick, mut slow) = (Histogram::<()>::new(), Histogram::new());
        quick.record_n(10, 5);
        slow.record_n(100, 10);
        let text = AsciiChart::new().add("quick", quick).add("slow", slow).detailed().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("█ quick: [samples: 5,"), "{text}");
        assert_eq!(lines[2], format!("[10, 11] | {} 5", "█".repeat(20)));
        assert_eq!(lines[3], format!("[96, 111] | {} 10", "▒".repeat(40)));
    }

    #[test]
    fn a_chart_of_nothing_is_empty() {
        assert_eq!(AsciiChart::new().add("nothing", Histogram::<()>::new()).detailed().to_string(), "");
    }
}
