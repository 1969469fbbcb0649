//! Chaos, by seed. Those that once failed are among them: README.md says why.

mod common;

use common::{passed, repeated, simulate};

#[test]
fn s113_what_clients_saw_of_a_map_is_linearizable_and_replicas_agree_whatever_fails() {
    for seed in ["1", "2", "3", "49", "64", "120", "1036"] {
        let run = passed(&[seed]);
        let faults = run.trace.lines().filter(|line| line.contains(" FAULT ")).count();
        assert!(faults >= 5, "seed {seed}: {faults} faults");
        let answered = run.said.split_whitespace().nth(2).and_then(|word| word.parse::<u32>().ok());
        assert!(answered.is_some_and(|answered| answered >= 50), "{}", run.said);
    }
}

#[test]
fn the_same_seed_gives_the_same_chaos() {
    repeated(&["4"]);
}

#[test]
fn s113_chaos_on_disks_that_do_not_flush_is_noticed() {
    for seed in ["1", "2"] {
        let run = simulate(&[seed, "--without-flush"]);
        assert!(!run.passed, "seed {seed}: a flush that does nothing went unnoticed");
        assert!(run.said.contains("this member's data cannot be trusted"), "seed {seed}: {}", run.said);
    }
}

#[test]
fn a_seeded_bug_is_noticed_by_the_check_that_is_made_for_it() {
    for (seed, mutant, said) in
        [("1", "LoseEvent", "was not told"), ("1", "ReuseTerm", "both led in term"), ("2", "SkipFence", "held by two")]
    {
        let run = simulate(&[seed, "--mutant", mutant]);
        assert!(!run.passed && run.said.contains(said), "{mutant}: {}", run.said);
    }
}
