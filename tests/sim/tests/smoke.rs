//! The smoke simulation, by seed.

mod common;

use common::{passed, repeated, simulate};

#[test]
fn s113_what_was_acknowledged_survives_crashes_that_lose_every_byte_not_flushed() {
    for seed in ["1", "2", "3"] {
        let trace = passed(&[seed, "--smoke"]).trace;
        let count = |what: &str| trace.lines().filter(|line| line.contains(what)).count();
        assert!(count(" acknowledged ") > 100, "seed {seed}: only {} acknowledged", count(" acknowledged "));
        assert_eq!(count("CRASH"), 4, "seed {seed}: the leader, then all three");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    assert_ne!(repeated(&["7", "--smoke"]), passed(&["8", "--smoke"]).trace);
}

#[test]
fn s113_without_the_flush_the_loss_is_noticed() {
    // With small segments of the log the damage is seen before the loss.
    for (seed, said) in [("1", "this member's data cannot be trusted"), ("6", "acknowledged groups are gone")] {
        let run = simulate(&[seed, "--smoke", "--without-flush"]);
        assert!(!run.passed, "a flush that does nothing went unnoticed");
        assert!(run.said.contains(said), "seed {seed}: {}", run.said);
    }
}
