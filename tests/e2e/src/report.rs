//! The list before and the table after.

use std::time::Duration;

use crate::scenarios::{SCENARIOS, Scenario};

/// How a scenario ended.
pub(crate) enum Outcome {
    /// Everything was as asserted.
    Passed,
    /// Something was not: what.
    Failed(String),
    /// It cannot run here: why.
    Skipped(&'static str),
}

impl Outcome {
    /// In one word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// One line of the table.
pub(crate) struct Row {
    /// What ran.
    pub(crate) scenario: &'static Scenario,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How long it took, with cleaning up.
    pub(crate) took: Duration,
    /// What it measured.
    pub(crate) notes: Vec<String>,
}

/// Prints every scenario with its expected time.
pub(crate) fn list() {
    println!("{:<40} {:<5} {:>8}  what it shows", "scenario", "set", "expected");
    for scenario in SCENARIOS {
        let set = if scenario.core { "core" } else { "all" };
        println!("{:<40} {set:<5} {:>6} s  {}", scenario.name, scenario.expected_s, scenario.summary);
    }
    let sum = |core: bool| SCENARIOS.iter().filter(|s| s.core || !core).map(|s| s.expected_s).sum::<u64>();
    println!("core: {} s, all: {} s", sum(true), sum(false));
}

/// Prints the table, what was measured and why something failed, and the line that ends it all.
pub(crate) fn table(rows: &[Row], took: Duration) {
    println!("\n{:<40} {:<8} {:>8} {:>9}", "scenario", "result", "seconds", "expected");
    for row in rows {
        println!(
            "{:<40} {:<8} {:>8.1} {:>9}",
            row.scenario.name,
            row.outcome.word(),
            row.took.as_secs_f64(),
            row.scenario.expected_s
        );
        for note in &row.notes {
            println!("    {note}");
        }
        match &row.outcome {
            Outcome::Failed(reason) => println!("    {}", reason.lines().next().unwrap_or_default()),
            Outcome::Skipped(reason) => println!("    {reason}"),
            Outcome::Passed => {}
        }
    }
    let count = |word: &str| rows.iter().filter(|row| row.outcome.word() == word).count();
    let skipped = match count("skipped") {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    println!("\ntook {:.0} s", took.as_secs_f64());
    println!("{} passed, {} failed{skipped}", count("passed"), count("FAILED"));
}
