//! The line that sums up a run of chaos: it is printed for people, and read by who runs many.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use coterie_mutants::Point;
use coterie_workloads::totals::Totals;

use crate::chaos::Report;
use crate::faults::Kind;
use crate::history::Snapshot;

/// What a run came to, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What decided it.
    pub seed: u64,
    /// What clients were told.
    pub totals: Totals,
    /// How often a partition got another leader.
    pub changes: u64,
    /// Snapshots that replicas made.
    pub made: u64,
    /// Snapshots that replicas were sent.
    pub installed: u64,
    /// Writes that a disk had no room for.
    pub refused_writes: u64,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<Kind, u64>,
    /// How often each rare branch was taken.
    pub points: BTreeMap<Point, u64>,
}

impl Summary {
    /// Of the run of a seed.
    pub fn of(seed: u64, report: &Report) -> Self {
        let snapshots = |kind| report.snapshots.get(&kind).copied().unwrap_or_default().into();
        Self {
            seed,
            totals: report.totals,
            changes: report.changes as u64,
            made: snapshots(Snapshot::Made),
            installed: snapshots(Snapshot::Installed),
            refused_writes: report.refused_writes.into(),
            faults: report.faults.iter().map(|(kind, count)| (*kind, (*count).into())).collect(),
            points: report.points.iter().map(|(point, count)| (*point, (*count).into())).collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, totals, changes, made, installed, refused_writes, faults, points } = self;
        let faults: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        let points: Vec<String> = points.iter().map(|(point, count)| format!("{point:?} {count}")).collect();
        write!(
            f,
            "seed {seed}: {totals}, {changes} changes of leader, {made} snapshots made, \
             {installed} installed, {refused_writes} writes without room; {}; {}",
            faults.join(", "),
            points.join(", ")
        )
    }
}

/// This line is no summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSummary;

impl FromStr for Summary {
    type Err = NoSummary;

    fn from_str(line: &str) -> Result<Self, NoSummary> {
        let (numbers, counted) = line.strip_prefix("seed ").and_then(|rest| rest.split_once(';')).ok_or(NoSummary)?;
        let numbers = numbers.split(|it: char| !it.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| NoSummary)?;
        let [seed, ref totals @ .., changes, made, installed, refused_writes] = numbers[..] else {
            return Err(NoSummary);
        };
        let totals = Totals::from_numbers(totals).ok_or(NoSummary)?;
        let (faults, points) = counted.split_once(';').ok_or(NoSummary)?;
        let faults = counts(faults, &Kind::ALL).ok_or(NoSummary)?;
        let points = counts(points, &Point::ALL).ok_or(NoSummary)?;
        Ok(Self { seed, totals, changes, made, installed, refused_writes, faults, points })
    }
}

/// Reads names and how often there was something of each.
fn counts<T: Copy + Ord + fmt::Debug>(text: &str, names: &[T]) -> Option<BTreeMap<T, u64>> {
    let count = |word: &str| {
        let (name, count) = word.trim().split_once(' ')?;
        let known = names.iter().find(|known| format!("{known:?}") == name)?;
        Some((*known, count.parse().ok()?))
    };
    text.split(',').filter(|it| !it.trim().is_empty()).map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_as_it_was_printed() {
        let faults = BTreeMap::from([(Kind::Crash, 3), (Kind::TightDisk, 12)]);
        let summary = Summary {
            seed: 7,
            totals: Totals { acknowledged: 812, unknown: 9, grants: 31, terms: 40, events: 5_000, closest_ms: 17 },
            changes: 14,
            made: 20,
            installed: 1,
            refused_writes: 2,
            faults,
            points: BTreeMap::from([(Point::LinkEnds, 2), (Point::CutRound, 40)]),
        };
        assert_eq!(summary.to_string().parse(), Ok(summary.clone()));
        let without_faults = Summary { faults: BTreeMap::new(), points: BTreeMap::new(), ..summary };
        assert_eq!(without_faults.to_string().parse(), Ok(without_faults));
        for line in [
            "",
            "seed 7: 812 acknowledged",
            "seed 7: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; Flood 3;",
            "waited 60s for answers; none",
        ] {
            assert_eq!(line.parse::<Summary>(), Err(NoSummary), "{line}");
        }
    }
}
