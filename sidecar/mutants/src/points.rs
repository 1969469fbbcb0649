//! Rare branches that a simulator takes more often than they come by themselves.
//!
//! None of them is a bug: each is what may happen at any time, to every sidecar, and nothing that is promised may depend on
//! that it does not. A seed decides which of them there are in a run, and when.

/// A branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Point {
    /// A round of commands is proposed without those that wait behind its first.
    CutRound,
    /// The log goes on to another segment though there is room in this one.
    NextSegment,
    /// A follower refuses entries, as it does when its volume takes nothing.
    AppendRefused,
    /// A leader asks the others before a read that its lease would allow.
    ReadConfirmed,
    /// The link to a peer ends after a message.
    LinkEnds,
    /// A watcher counts as too slow, and has to resync.
    WatchFull,
    /// A partition counts as having too much on its way, and says `overloaded`.
    Overloaded,
    /// A session's keep-alive is sent late.
    LateKeepAlive,
    /// A follower begins to time a leader that is not silent.
    EarlyTimer,
    /// A snapshot that is due is made later.
    SnapshotLater,
    /// A snapshot is broken off while it is sent.
    SnapshotCut,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CutRound,
        Self::NextSegment,
        Self::AppendRefused,
        Self::ReadConfirmed,
        Self::LinkEnds,
        Self::WatchFull,
        Self::Overloaded,
        Self::LateKeepAlive,
        Self::EarlyTimer,
        Self::SnapshotLater,
        Self::SnapshotCut,
    ];
}

/// Whether this branch is taken now.
#[cfg(not(coterie_mutants))]
#[must_use]
#[inline(always)]
pub const fn rarely(_: Point) -> bool {
    false
}

#[cfg(coterie_mutants)]
pub use chance::{begin, end, rarely, taken};

#[cfg(coterie_mutants)]
mod chance {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::Point;

    /// Which points there are, by their bits. A process simulates one seed, on one thread.
    static PRESENT: AtomicU32 = AtomicU32::new(0);
    static CHANCE: AtomicU64 = AtomicU64::new(0);
    static TAKEN: [AtomicU32; Point::ALL.len()] = [const { AtomicU32::new(0) }; Point::ALL.len()];

    /// From now on about half of the points are there, as this decides.
    pub fn begin(seed: u64) {
        CHANCE.store(seed, Ordering::Relaxed);
        PRESENT.store(next() as u32, Ordering::Relaxed);
    }

    /// From now on none is.
    pub fn end() {
        PRESENT.store(0, Ordering::Relaxed);
    }

    /// How often a branch was taken.
    pub fn taken(point: Point) -> u32 {
        TAKEN[point as usize].load(Ordering::Relaxed)
    }

    /// Whether this branch is taken now.
    #[must_use]
    pub fn rarely(point: Point) -> bool {
        let is_taken = PRESENT.load(Ordering::Relaxed) & 1 << point as u8 != 0 && next().is_multiple_of(one_of(point));
        if is_taken {
            TAKEN[point as usize].fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// In one of how many cases.
    const fn one_of(point: Point) -> u64 {
        match point {
            Point::CutRound | Point::SnapshotCut => 2,
            Point::SnapshotLater => 3,
            Point::ReadConfirmed | Point::LateKeepAlive => 10,
            Point::EarlyTimer => 20,
            Point::NextSegment | Point::AppendRefused | Point::WatchFull => 50,
            Point::Overloaded => 100,
            Point::LinkEnds => 300,
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next() -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let z = CHANCE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
