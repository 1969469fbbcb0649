//! Seeded bugs: each breaks one promise, and the simulator shows that its checkers find it (`make sim-mutants`).
//!
//! Only a build with `--cfg coterie_mutants`, which `tests/sim` makes, can switch one on. In every other build
//! [`is_on`] is the constant `false` and nothing of them is left. The same holds of rare branches ([`points`]).

pub mod points;

pub use points::{Point, rarely};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// The log says that it has flushed, and has not.
    AcknowledgeBeforeFlush = 1,
    /// A release frees its lock, whoever's token it has.
    SkipFence,
    /// A write is done whatever its condition says.
    SkipCondition,
    /// A group's next member gets the id of the last one again once that has left.
    ReuseMemberIdentity,
    /// The next leader of a group leads in the term of the last.
    ReuseTerm,
    /// The last in the queue of candidates leads next.
    ElectOutOfTurn,
    /// A request that comes again is applied again.
    ForgetDeduplication,
    /// A leader answers linearizable reads without asking whether it still leads.
    ReadWithoutLease,
    /// A leader that is about to give its lead away goes on using its lease.
    KeepLeaseOnTransfer,
    /// A follower waits for the leader that it knew, however long that is silent.
    TrustSilentLeader,
    /// A session expires after an eighth of its time.
    ExpireEarly,
    /// Some events never get to those who watch.
    LoseEvent,
    /// A watch that is resumed begins with the event that was seen last.
    ReplayEvent,
    /// The commands of a round are applied in the opposite order.
    ApplyOutOfOrder,
    /// A vote is not kept on disk.
    ForgetVote,
    /// A snapshot leaves out the last entry of each map.
    CutSnapshotShort,
    /// A member whose volume is empty forms the cluster once more, and the others agree.
    FormTwice,
    /// A sign of life of a process counts as one of all leaders that were there.
    HideDeadPartition,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AcknowledgeBeforeFlush,
        Self::SkipFence,
        Self::SkipCondition,
        Self::ReuseMemberIdentity,
        Self::ReuseTerm,
        Self::ElectOutOfTurn,
        Self::ForgetDeduplication,
        Self::ReadWithoutLease,
        Self::KeepLeaseOnTransfer,
        Self::TrustSilentLeader,
        Self::ExpireEarly,
        Self::LoseEvent,
        Self::ReplayEvent,
        Self::ApplyOutOfOrder,
        Self::ForgetVote,
        Self::CutSnapshotShort,
        Self::FormTwice,
        Self::HideDeadPartition,
    ];
}

/// Whether this bug is there.
#[cfg(not(coterie_mutants))]
#[must_use]
#[inline(always)]
pub const fn is_on(_: Mutant) -> bool {
    false
}

#[cfg(coterie_mutants)]
pub use switch::{is_on, switch_on};

#[cfg(coterie_mutants)]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Mutant;

    static ON: AtomicU8 = AtomicU8::new(0);

    /// Has this bug, and no other, in all that this process runs.
    pub fn switch_on(mutant: Mutant) {
        ON.store(mutant as u8, Ordering::Relaxed);
    }

    /// Whether this bug is there.
    #[must_use]
    pub fn is_on(mutant: Mutant) -> bool {
        ON.load(Ordering::Relaxed) == mutant as u8
    }
}
