//! By which sentences each seeded bug may be found. A failure that says something else found something else.

use coterie_mutants::Mutant;

/// Parts of the sentences, of which one is enough.
pub fn sentences(mutant: Mutant) -> &'static [&'static str] {
    const NOT_LINEARIZABLE: &str = "is not linearizable";
    const NO_PROGRESS: &str = "of simulated time for";
    match mutant {
        Mutant::AcknowledgeBeforeFlush => {
            &[NOT_LINEARIZABLE, "cannot be trusted", "which was acknowledged", "differs on"]
        }
        Mutant::SkipFence => &["held by two"],
        Mutant::SkipCondition => &[NOT_LINEARIZABLE],
        Mutant::ReuseMemberIdentity => &["joined again", "is elected while"],
        Mutant::ReuseTerm => &["both led in term", "after term", "no larger term"],
        Mutant::ElectOutOfTurn => &["stands for longer"],
        Mutant::ForgetDeduplication => &["was answered", NOT_LINEARIZABLE],
        Mutant::ReadWithoutLease | Mutant::KeepLeaseOnTransfer => &[NOT_LINEARIZABLE, "was answered"],
        Mutant::TrustSilentLeader => &[NO_PROGRESS],
        Mutant::ExpireEarly => &["held by two", "two led at one time"],
        Mutant::LoseEvent => &["was not told"],
        Mutant::ReplayEvent => &["again or out of order"],
        Mutant::ApplyOutOfOrder => &["was answered", NOT_LINEARIZABLE, "was told"],
        Mutant::ForgetVote => &["panicked", "two leaders in term", NOT_LINEARIZABLE],
        Mutant::CutSnapshotShort => &["differs on", "has no replica on", NOT_LINEARIZABLE, "was told", "was not told"],
        Mutant::FormTwice => &["must not be on", "does not have the log", "cannot go on", "the log", "cluster"],
        Mutant::HideDeadPartition => &["changes without a dead replica"],
    }
}

/// Whether a seeded bug may be found by a failure that says this.
pub fn is_found_by(mutant: Mutant, said: &str) -> bool {
    sentences(mutant).iter().any(|sentence| said.contains(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_found_by_its_own_sentences_only() {
        assert!(is_found_by(Mutant::SkipFence, "exit status: 1: lock lock-1: held by two, the first of whom"));
        assert!(!is_found_by(Mutant::SkipFence, "exit status: 1: waited 60s of simulated time for the first changes"));
        assert!(Mutant::ALL.into_iter().all(|mutant| !sentences(mutant).is_empty()));
    }
}
