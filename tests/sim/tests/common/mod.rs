//! Runs the simulator, each seed in a process of its own.

use std::process::Command;

/// What a run printed, and said at its end.
pub struct Run {
    pub passed: bool,
    pub trace: String,
    pub said: String,
}

pub fn simulate(arguments: &[&str]) -> Run {
    let output =
        Command::new(env!("CARGO_BIN_EXE_coterie-sim")).args(arguments).output().expect("the simulator starts");
    Run {
        passed: output.status.success(),
        trace: String::from_utf8(output.stdout).expect("a trace is text"),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A run that must pass.
pub fn passed(arguments: &[&str]) -> Run {
    let run = simulate(arguments);
    let arguments = arguments.join(" ");
    assert!(run.passed, "{arguments}: {}\nreplay: cd tests/sim && cargo run --release -- {arguments}", run.said);
    run
}

/// Runs the same twice, which must give the same trace.
pub fn repeated(arguments: &[&str]) -> String {
    let (first, second) = (passed(arguments).trace, passed(arguments).trace);
    for (number, (one, two)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(one, two, "line {number}");
    }
    assert_eq!(first, second);
    first
}
