//! What was measured, and what is said of it: medians over the rounds, with the spread.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::load::nearest_rank;
use crate::system::System;

/// What was done, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// A durable write.
    Write,
    /// A read as of now.
    ReadLinearizable,
    /// A read as of now while clocks run at one rate.
    ReadLeased,
    /// An event that one of many watchers was given.
    WatchFanout,
    /// A lock that was taken and given back.
    LockCycle,
}

impl Op {
    /// Its word in results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::ReadLinearizable => "read_linearizable",
            Self::ReadLeased => "read_leased",
            Self::WatchFanout => "watch_fanout",
            Self::LockCycle => "lock_cycle",
        }
    }

    /// What etcd does instead.
    pub fn compared_with(self) -> Self {
        match self {
            // etcd has no lease for reads.
            Self::ReadLeased => Self::ReadLinearizable,
            Self::Write | Self::ReadLinearizable | Self::WatchFanout | Self::LockCycle => self,
        }
    }
}

/// A row: one operation at one number in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Whether peers spoke mTLS.
    pub peer_tls: bool,
    /// What was done.
    pub op: Op,
    /// How many at a time; for watches, how many watchers.
    pub in_flight: usize,
}

/// A single figure, by what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Whether peers spoke mTLS.
    pub peer_tls: bool,
    /// What it is.
    pub what: What,
}

/// What a single figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// From SIGKILL of the leader until every key can be written.
    Failover,
    /// The longest that a write took while the leader was stopped by SIGTERM.
    Handover,
    /// Writes that failed in one such stop.
    HandoverFailed,
    /// From the start of three fresh processes until every key can be written.
    ColdStart,
    /// The largest resident memory of an idle member.
    IdleRss,
    /// The largest CPU use of an idle member.
    IdleCpu,
    /// The largest resident memory of a member after all load.
    LoadedRss,
}

impl What {
    /// Its word in results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Handover => "handover",
            Self::HandoverFailed => "handover_failed_writes",
            Self::ColdStart => "cold_start",
            Self::IdleRss => "idle_rss",
            Self::IdleCpu => "idle_cpu",
            Self::LoadedRss => "rss_after_load",
        }
    }

    /// Of what the number counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Failover | Self::Handover | Self::ColdStart => "ms",
            Self::HandoverFailed => "writes",
            Self::IdleRss | Self::LoadedRss => "MiB",
            Self::IdleCpu => "percent of a core",
        }
    }
}

/// One measurement of a row.
#[derive(Clone, Debug)]
pub struct Run {
    /// Operations in a second.
    pub ops_per_s: f64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: f64,
    /// Flushes of the block device, all members together, for each operation.
    pub flushes_per_op: f64,
    /// CPU time of all members together, in microseconds; the load's own is not counted.
    pub cpu_us_per_op: f64,
    /// Operations that failed.
    pub failed: u64,
    /// What the first of them said.
    pub failure: Option<String>,
    /// The machine's load at its end.
    pub load: String,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Results {
    rows: BTreeMap<(Row, System), Vec<Run>>,
    figures: BTreeMap<(Figure, System), Vec<f64>>,
}

/// The medians of a row's runs.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// As in [`Run`]; so are the others.
    pub ops_per_s: f64,
    /// The slowest run's rate.
    pub least_ops_per_s: f64,
    /// The fastest run's rate.
    pub most_ops_per_s: f64,
    /// Median of the runs' medians.
    pub p50_us: f64,
    /// Median of the runs' 99th percentiles.
    pub p99_us: f64,
    /// Median.
    pub flushes_per_op: f64,
    /// CPU time of all members together, in microseconds; the load's own is not counted.
    pub cpu_us_per_op: f64,
    /// Sum.
    pub failed: u64,
}

impl Results {
    /// One more run of a row.
    pub fn add(&mut self, row: Row, system: System, run: Run) {
        self.rows.entry((row, system)).or_default().push(run);
    }

    /// One more sample of a figure.
    pub fn note(&mut self, figure: Figure, system: System, sample: f64) {
        self.figures.entry((figure, system)).or_default().push(sample);
    }

    /// All rows, of either system.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }

    /// All figures, of either system.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures: Vec<Figure> = self.figures.keys().map(|(figure, _)| *figure).collect();
        figures.dedup();
        figures
    }

    /// The runs of a row.
    pub fn runs(&self, row: Row, system: System) -> &[Run] {
        self.rows.get(&(row, system)).map_or(&[], Vec::as_slice)
    }

    /// The medians of a row.
    pub fn summary(&self, row: Row, system: System) -> Option<Summary> {
        let runs = self.runs(row, system);
        let all = |value: fn(&Run) -> f64| sorted(runs.iter().map(value).collect());
        let middle = |value| median(&all(value));
        let rates = all(|run| run.ops_per_s);
        Some(Summary {
            ops_per_s: median(&rates)?,
            least_ops_per_s: *rates.first()?,
            most_ops_per_s: *rates.last()?,
            p50_us: middle(|run| run.p50_us)?,
            p99_us: middle(|run| run.p99_us)?,
            flushes_per_op: middle(|run| run.flushes_per_op)?,
            cpu_us_per_op: middle(|run| run.cpu_us_per_op)?,
            failed: runs.iter().map(|run| run.failed).sum(),
        })
    }

    /// What etcd is compared by in a row of Coterie's.
    pub fn reference(&self, row: Row) -> Option<Summary> {
        self.summary(Row { op: row.op.compared_with(), ..row }, System::Etcd)
    }

    /// The median and the 99th percentile of a figure.
    pub fn figure(&self, figure: Figure, system: System) -> Option<(f64, f64)> {
        let samples = sorted(self.figures.get(&(figure, system))?.clone());
        Some((median(&samples)?, *nearest_rank(&samples, 99.0)?))
    }

    /// `results.json`.
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().filter_map(|((row, system), runs)| {
            let summary = self.summary(*row, *system)?;
            let runs = runs.iter().map(|run| {
                json!({"ops_per_s": run.ops_per_s, "p50_us": run.p50_us, "p99_us": run.p99_us,
                    "flushes_per_op": run.flushes_per_op, "cpu_us_per_op": run.cpu_us_per_op,
                    "failed": run.failed, "failure": run.failure, "machine": run.load})
            });
            Some(json!({
                "op": row.op.label(), "in_flight": row.in_flight, "system": system.label(), "peer_tls": row.peer_tls,
                "ops_per_s": summary.ops_per_s, "p50_us": summary.p50_us, "p99_us": summary.p99_us,
                "flushes_per_op": summary.flushes_per_op, "cpu_us_per_op": summary.cpu_us_per_op, "failed": summary.failed,
                "durable": summary.is_durable(row.op), "runs": runs.collect::<Vec<Value>>(),
            }))
        });
        let figures = self.figures.iter().filter_map(|((figure, system), samples)| {
            let (median, p99) = self.figure(*figure, *system)?;
            Some(json!({
                "op": figure.what.label(), "system": system.label(), "peer_tls": figure.peer_tls,
                "median": median, "p99": p99, "unit": figure.what.unit(), "samples": samples,
            }))
        });
        Value::Array(rows.chain(figures).collect())
    }
}

impl Summary {
    /// Whether what was written was flushed; `None` for what writes nothing.
    pub fn is_durable(&self, op: Op) -> Option<bool> {
        match op {
            Op::Write | Op::LockCycle | Op::WatchFanout => Some(self.flushes_per_op > 0.0),
            Op::ReadLinearizable | Op::ReadLeased => None,
        }
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Of two in the middle, their mean.
fn median(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => None,
        (_, 1) => Some(sorted[half]),
        (_, _) => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn run(ops_per_s: f64, flushes_per_op: f64) -> Run {
        let (p50_us, p99_us, load) = (1e6 / ops_per_s, 2e6 / ops_per_s, String::new());
        Run { ops_per_s, p50_us, p99_us, flushes_per_op, cpu_us_per_op: 10.0, failed: 0, failure: None, load }
    }

    #[test]
    fn rounds_count_by_their_median_and_results_have_the_agreed_keys() {
        let mut results = Results::default();
        let row = Row { peer_tls: false, op: Op::Write, in_flight: 64 };
        for rate in [100.0, 900.0, 200.0] {
            results.add(row, System::Etcd, run(rate, 0.5));
        }
        results.note(Figure { peer_tls: false, what: What::Failover }, System::Coterie, 600.0);
        let json = results.to_json();
        let (write, failover) = (&json[0], &json[1]);
        assert_eq!(
            (&write["op"], &write["in_flight"], &write["system"]),
            (&json!("write"), &json!(64), &json!("etcd"))
        );
        assert_eq!((&write["ops_per_s"], &write["flushes_per_op"]), (&json!(200.0), &json!(0.5)));
        assert_eq!((&write["p50_us"], &write["p99_us"]), (&json!(5_000.0), &json!(10_000.0)));
        assert_eq!(
            (&failover["op"], &failover["median"], &failover["unit"]),
            (&json!("failover"), &json!(600.0), &json!("ms"))
        );
    }

    #[test]
    fn a_run_without_flushes_is_not_durable_and_a_leased_read_is_compared_with_a_linearizable_one() {
        let mut results = Results::default();
        let row = |op| Row { peer_tls: false, op, in_flight: 64 };
        results.add(row(Op::Write), System::Coterie, run(10.0, 0.0));
        results.add(row(Op::ReadLinearizable), System::Etcd, run(30.0, 0.0));
        assert_eq!(results.to_json()[0]["durable"], json!(false));
        assert_eq!(results.reference(row(Op::ReadLeased)).unwrap().ops_per_s, 30.0);
    }
}
