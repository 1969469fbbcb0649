//! The smoke simulation, by seed, each in a process of its own.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coterie-sim")).args(arguments).output().expect("the simulator starts")
}

/// The trace of a seed that must pass.
fn trace(seed: &str) -> String {
    let output = simulate(&[seed, "--smoke"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {said}\nreplay: cd tests/sim && cargo run -- {seed} --smoke");
    String::from_utf8(output.stdout).expect("a trace is text")
}

#[test]
fn s113_what_was_acknowledged_survives_crashes_that_lose_every_byte_not_flushed() {
    for seed in ["1", "2", "3"] {
        let trace = trace(seed);
        let count = |what: &str| trace.lines().filter(|line| line.contains(what)).count();
        assert!(count(" acknowledged ") > 100, "seed {seed}: only {} acknowledged", count(" acknowledged "));
        assert_eq!(count("CRASH"), 4, "seed {seed}: the leader, then all three");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let (first, second) = (trace("7"), trace("7"));
    for (number, (one, two)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(one, two, "line {number}");
    }
    assert_eq!(first, second);
    assert_ne!(first, trace("8"));
}

#[test]
fn s113_without_the_flush_the_loss_is_noticed() {
    let output = simulate(&["1", "--smoke", "--without-flush"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a flush that does nothing went unnoticed");
    assert!(said.contains("acknowledged groups are gone"), "{said}");
}
