//! Which replicas have room for what applications write, as their leader knows it.
//!
//! ```text
//!  follower ── every answer to a heartbeat or an append carries its Room ──▶ leader: Rooms
//!                                                                             │ a majority short: growth is refused
//!                                                                             └ itself short, another not: gives the lead away
//! ```
//!
//! A follower says that it is short as soon as its own volume would refuse growth. It then still takes what a leader sends
//! from its reserve, so there is room left for what ends sessions, and nothing that is promised waits for a majority that
//! cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use coterie_core::MemberName;
use serde::{Deserialize, Serialize};

use crate::transport::Target;

/// For how long a follower's word counts: several heartbeats. One that is silent for longer is no matter of room.
const ROOM_MS: u64 = 2_000;

/// Whether a replica's volume takes what applications write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Room {
    /// It does.
    Ample,
    /// It does not; a sentence says how much is missing.
    Short(String),
}

/// An answer to an append or a heartbeat.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answered<A> {
    /// Raft's answer.
    pub(crate) answer: A,
    /// Of the one who answers.
    pub(crate) room: Room,
}

/// What the followers of this replica said last.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    heard: Mutex<BTreeMap<u64, Heard>>,
    refused: AtomicBool,
}

#[derive(Debug)]
struct Heard {
    member: MemberName,
    room: Room,
    at_ms: u64,
}

impl Rooms {
    /// Notes what a follower said, at this monotonic time.
    pub(crate) fn note(&self, from: &Target, room: Room, at_ms: u64) {
        self.heard().insert(from.node.0, Heard { member: from.member.clone(), room, at_ms });
    }

    /// Why these voters cannot take what applications write although this replica, one of them, can: those that are short,
    /// each with its sentence. `None` if a majority can.
    pub(crate) fn short_majority(&self, voters: impl FnOnce() -> BTreeSet<u64>, now_ms: u64) -> Option<String> {
        let heard = self.heard();
        let short: Vec<_> = heard.iter().filter_map(|(node, heard)| Some((node, heard.short(now_ms)?))).collect();
        if short.is_empty() {
            return None;
        }
        let voters = voters();
        let short: Vec<_> = short.into_iter().filter(|(node, _)| voters.contains(node)).collect();
        if 2 * (voters.len() - short.len()) > voters.len() {
            return None;
        }
        let sentences = short.iter().map(|(node, sentence)| format!("{}: {sentence}", heard[node].member));
        Some(sentences.collect::<Vec<_>>().join("; "))
    }

    /// Whether a follower has said lately that it has room.
    pub(crate) fn is_ample(&self, node: u64, now_ms: u64) -> bool {
        self.heard().get(&node).is_some_and(|heard| heard.is_fresh(now_ms) && heard.room == Room::Ample)
    }

    /// A command was refused because this replica's own volume is full.
    pub(crate) fn note_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether that happened since this was last asked.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.heard.lock().expect("no holder panics")
    }
}

impl Heard {
    fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) < ROOM_MS
    }

    fn short(&self, now_ms: u64) -> Option<&str> {
        match &self.room {
            Room::Short(sentence) if self.is_fresh(now_ms) => Some(sentence),
            Room::Short(_) | Room::Ample => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use coterie_core::NodeId;

    use super::*;

    fn target(node: u64) -> Target {
        Target { node: NodeId(node), member: MemberName(format!("member-{node}")) }
    }

    fn short() -> Room {
        Room::Short("7 bytes left".to_owned())
    }

    #[test]
    fn growth_stops_when_so_many_are_short_that_the_others_are_no_majority() {
        // Voters, and how many of the followers are short: is that a reason?
        for (voters, shorts, is_reason) in
            [(1, 0, false), (2, 0, false), (2, 1, true), (3, 1, false), (3, 2, true), (5, 2, false), (5, 3, true)]
        {
            let rooms = Rooms::default();
            for node in 2..=voters {
                rooms.note(&target(node), if node < 2 + shorts { short() } else { Room::Ample }, 100);
            }
            let reason = rooms.short_majority(|| (1..=voters).collect(), 100);
            assert_eq!(reason.is_some(), is_reason, "{voters} {shorts}");
            assert!(reason.is_none_or(|reason| reason.contains("member-2: 7 bytes left")));
        }
    }

    #[test]
    fn what_a_follower_said_is_forgotten_after_a_while_and_when_it_has_room_again() {
        let rooms = Rooms::default();
        let voters = || BTreeSet::from([1, 2]);
        rooms.note(&target(2), short(), 100);
        assert!(rooms.short_majority(voters, 100 + ROOM_MS - 1).is_some());
        assert!(rooms.short_majority(voters, 100 + ROOM_MS).is_none());
        assert!(!rooms.is_ample(2, 100));
        rooms.note(&target(2), Room::Ample, 200);
        assert!(rooms.short_majority(voters, 200).is_none());
        assert!(rooms.is_ample(2, 200) && !rooms.is_ample(2, 200 + ROOM_MS));
        // One that is no voter is not counted.
        rooms.note(&target(9), short(), 300);
        assert!(rooms.short_majority(voters, 300).is_none());
    }
}
