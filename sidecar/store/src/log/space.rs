//! What is taken when the volume runs full. Pure: the log measures, this decides.
//!
//! ```text
//!   free bytes of the volume
//!   ──────────────────────────┬──────────────────┬──────────────────┤ 0
//!     all is taken            │ no growth        │ only what is prepared
//!                             2 segments         1 segment
//! ```
//!
//! | who asks | for | is taken |
//! |---|---|---|
//! | [`Demand::Growth`] | what applications write, where the partition's leader is | above two segments |
//! | [`Demand::Reserve`] | entries that a leader sent; who the members are, and which of their sessions live | above one; below it while the file that is prepared already has room |
//! | nobody | votes, truncations, purges, a new leader's first entry | always |
//!
//! A start needs no more than that: its identity is overwritten in place, its registration and its sessions are of the
//! second row, and it leads with an entry of the third.
//!
//! The volume is looked at by the log's writer, after each flush and twice a second, never by who asks: what is known is
//! half a second old, or as old as the flush that is under way. A volume that does not answer has no room.
//!
//! So a volume that runs full stops growing while it can still start, elect leaders, drop its log and take snapshots, and
//! one that somebody else has filled to the last byte still has the room that was prepared. **Limit:** when that is used
//! up as well, or a start finds less than a quarter of it, the member waits for room, or its log fails.

use std::sync::Arc;

use crate::limits::{RESERVE_SEGMENTS, RESERVE_SEGMENTS_HARD};

/// What an append is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// What makes the log grow, and can be refused.
    Growth,
    /// What the reserve is for.
    Reserve,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Of the volume, or why that is not known.
    pub(super) free: Result<u64, Arc<str>>,
    /// Left in the files that are written already, so that a full volume does not take it away.
    pub(super) prepared: u64,
    /// Of one segment.
    pub(super) segment: u64,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Shortage {
    #[error(
        "the volume has {free} bytes left; writes are taken again from {wanted} on: free some of it, or enlarge it"
    )]
    Full {
        /// Free now.
        free: u64,
        /// Free when it is taken.
        wanted: u64,
    },
    #[error("the volume does not say how much of it is free: {0}")]
    Unknown(Arc<str>),
}

impl Space {
    /// Whether this many bytes, with those that wait already, may be appended.
    pub(super) fn take(&self, demand: Demand, bytes: u64) -> Result<(), Shortage> {
        let Space { free, prepared, segment } = self;
        let (prepared, segment) = (*prepared, *segment);
        let (reserve, of_prepared) = match demand {
            Demand::Growth => (RESERVE_SEGMENTS * segment, false),
            // A quarter of a segment stays for what is never refused.
            Demand::Reserve => (RESERVE_SEGMENTS_HARD * segment, prepared >= bytes.saturating_add(segment / 4)),
        };
        let wanted = reserve.saturating_add(bytes);
        match free {
            _ if of_prepared => Ok(()),
            Ok(free) if *free >= wanted => Ok(()),
            Ok(free) => Err(Shortage::Full { free: *free, wanted }),
            Err(sentence) => Err(Shortage::Unknown(sentence.clone())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn growth_stops_first_then_the_reserve_and_what_is_prepared_last() {
        use Demand::{Growth, Reserve};
        const ALL: u64 = u64::MAX;
        // Free, prepared, demand, bytes: taken?
        let cases = [
            (ALL, 0, Growth, ALL, true),
            (2100, 0, Growth, 100, true),
            (2099, 0, Growth, 100, false),
            (2099, ALL, Growth, 100, false),
            (2099, 0, Reserve, 100, true),
            (1100, 0, Reserve, 100, true),
            (1099, 0, Reserve, 100, false),
            (0, 350, Reserve, 100, true),
            (0, 349, Reserve, 100, false),
            (0, ALL, Reserve, 100, true),
            (0, ALL, Growth, 0, false),
        ];
        for (free, prepared, demand, bytes, taken) in cases {
            let space = Space { free: Ok(free), prepared, segment: 1000 };
            assert_eq!(space.take(demand, bytes).is_ok(), taken, "{space:?} {demand:?} {bytes}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_left_and_what_is_needed() {
        let sentence = |free| {
            let space = Space { free, prepared: 0, segment: 1000 };
            space.take(Demand::Growth, 10).unwrap_err().to_string()
        };
        let unknown = sentence(Err("no such device".into()));
        assert!(unknown.contains("no such device"), "{unknown}");
        let sentence = sentence(Ok(7));
        assert!(sentence.contains("7 bytes left") && sentence.contains("2010"), "{sentence}");
    }
}
