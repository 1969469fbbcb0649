//! Raft's timers and openraft's configuration.

use std::time::Duration;

use coterie_core::config;
use openraft::{Config, ConfigError, SnapshotPolicy};

/// Raft's timers, in milliseconds; the same on all replicas, since leases rest on them (`lease.rs`).
///
/// A crash of the leader is noticed after `election_max_ms` (followers do not vote before) and the next leader is there
/// after at most `election_max_ms` more, unless votes are split: about 650 ms by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life of a leader.
    pub heartbeat_ms: u64,
    /// A follower campaigns after a random time from here, counted from the end of the leader's lease ...
    pub election_min_ms: u64,
    /// ... to here; also the leader's lease. Must be more than `election_min_ms`, which must be more than `heartbeat_ms`.
    pub election_max_ms: u64,
}

impl Timing {
    /// For pods with a core of their own, or most of one.
    pub const NORMAL: Self = Self { heartbeat_ms: 100, election_min_ms: 250, election_max_ms: 400 };
    /// For cores that nothing else keeps busy, and disks that flush within a few milliseconds: a vote must be asked for,
    /// flushed and answered within 45 ms, and a leader that stands still for 100 ms loses its followers.
    pub const FAST: Self = Self { heartbeat_ms: 25, election_min_ms: 60, election_max_ms: 100 };
    /// For pods that are throttled to a fifth of a core or less: a throttled leader must not lose its followers.
    pub const SLOW: Self = Self { heartbeat_ms: 150, election_min_ms: 500, election_max_ms: 800 };

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// The shortest time after which a follower campaigns.
    pub(crate) fn election_min(&self) -> Duration {
        Duration::from_millis(self.election_min_ms)
    }

    /// The leader's lease: without a majority's sign of life for this long, a leader takes no proposals.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// When a new leader is there for sure if a majority is: lease, time-out, and one split vote.
    pub(crate) fn failover_max(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 4)
    }

    /// How long entries may be on their way to a follower that says nothing. Not less than a busy disk may take for a
    /// flush: sending them once more would only keep it busier.
    pub(crate) fn append_timeout(&self) -> Duration {
        self.lease().max(APPEND_TIMEOUT_MIN)
    }

    /// How long to wait before a follower that could not be reached is tried again: a heartbeat, then two, then five.
    fn backoff(&self) -> String {
        let Self { heartbeat_ms, .. } = self;
        format!("{heartbeat_ms}ms {}ms ..{}ms", heartbeat_ms * 2, heartbeat_ms * 5)
    }
}

impl From<config::Timing> for Timing {
    fn from(timing: config::Timing) -> Self {
        match timing {
            config::Timing::Normal => Self::NORMAL,
            config::Timing::Fast => Self::FAST,
            config::Timing::Slow => Self::SLOW,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// Heartbeats that may be missing before a follower begins to time its leader.
pub(crate) const SILENT_HEARTBEATS: u64 = 2;
/// The longest lease that any voter may have granted: one that restarts does not know what its timers were before.
pub(crate) const LEASE_MAX: Duration = Duration::from_millis(Timing::SLOW.election_max_ms);
/// See [`Timing::append_timeout`].
const APPEND_TIMEOUT_MIN: Duration = Duration::from_millis(400);
/// Between two tries of a leader whose volume is full to give the lead to a replica that has room. The one that gets it
/// may be full soon after; so the lead of a cluster that is nearly full moves about this often at most.
pub(crate) const HAND_OVER_PAUSE: Duration = Duration::from_secs(5);
/// Log entries (rounds of commands) that stay behind a snapshot, so that a follower that is a little behind needs no snapshot.
pub(crate) const ENTRIES_KEPT: u64 = 64;
/// Bytes of bodies in one append request: a heartbeat that is behind it on the connection is not late for that.
pub(crate) const APPEND_BYTES_MAX: usize = 256 * 1024;
/// Append requests on their way to one follower.
pub(crate) const PIPELINE_MAX: usize = 64;
/// Bytes of append requests on their way to one follower, after which it is sent no more: its queues stay short.
pub(crate) const PIPELINE_BYTES_MAX: usize = 1024 * 1024;
/// How long a message that says only how far the log is committed waits for entries that say it too.
pub(crate) const COMMIT_HELD_MAX: Duration = Duration::from_millis(1);
/// Entries in one append request.
const APPEND_ENTRIES_MAX: u64 = 1024;
/// Messages that wait for openraft's core; proposals are admitted before, so this only has to be ample.
const API_QUEUE: u64 = 8 * 1024;
/// Notes that openraft's tasks send to its core; the core sends some itself, so this must never be full.
const NOTIFICATION_QUEUE: u64 = 16 * 1024;
/// How long either side of a snapshot waits for a sign that it goes on, however large it is: a slow network takes seconds
/// for a piece.
pub(crate) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// Pieces of a snapshot that are sent and not yet written by the receiver: a network with 20 ms to the other side is used
/// for 50 MB in a second.
pub(crate) const SNAPSHOT_AHEAD: u64 = 4;
/// Answers to pieces that may wait for the sender.
pub(crate) const SNAPSHOT_ANSWERS: usize = 8;
/// For how long a snapshot counts as being sent after the last sign of its receiver, which may come back and go on.
pub(crate) const SNAPSHOT_LINGER: Duration = Duration::from_secs(20);
/// For how long a part of a snapshot is kept whose sender broke off.
pub(crate) const PARTIAL_KEPT: Duration = Duration::from_secs(600);

const _: () = assert!(SNAPSHOT_LINGER.as_secs() > SNAPSHOT_PATIENCE.as_secs());

/// openraft's configuration for one partition.
pub(crate) fn config(name: String, timing: &Timing) -> Result<Config, ConfigError> {
    Config {
        cluster_name: name,
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        max_payload_entries: APPEND_ENTRIES_MAX,
        max_append_entries: Some(APPEND_ENTRIES_MAX),
        // Snapshots are taken by entries and bytes: see `Replica::count`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: ENTRIES_KEPT,
        api_channel_size: Some(API_QUEUE),
        api_batch_capacity: APPEND_ENTRIES_MAX,
        notification_channel_size: Some(NOTIFICATION_QUEUE),
        state_machine_channel_size: Some(64),
        // Statistics that are not read here; openraft would keep 150 kB of them per partition.
        log_stage_capacity: Some(1),
        // Followers flush while the leader flushes.
        broadcast_submitted_on_append: Some(true),
        enable_pre_vote: Some(true),
        // A restarted leader might serve a state that is older than what it served before.
        enable_leader_restore: Some(false),
        backoff: timing.backoff(),
        ..Config::default()
    }
    .validate()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;

    const ALL: [Timing; 3] = [Timing::NORMAL, Timing::FAST, Timing::SLOW];

    #[test]
    fn openraft_takes_all_timings() {
        for timing in ALL {
            let config = config("p".to_owned(), &timing).unwrap_or_else(|error| panic!("{timing:?}: {error}"));
            assert_eq!(config.election_timeout_max, timing.election_max_ms);
        }
    }

    #[test]
    fn every_timing_of_the_configuration_has_its_timers() {
        assert_eq!(config::Timing::ALL.map(Timing::from), ALL);
        assert_eq!(Timing::from(config::Timing::default()), Timing::default());
    }

    /// openraft's timer of elections looks this often (`Config::tick_interval`).
    fn election_tick(timing: &Timing) -> Duration {
        Duration::from_millis((timing.heartbeat_ms * 13 / 64).max(1))
    }

    #[test]
    fn a_lost_heartbeat_costs_neither_the_lead_nor_the_lease_of_reads() {
        for timing in ALL {
            assert!(timing.lease() > timing.heartbeat() * 3, "{timing:?}");
            assert!(Lease::used(timing.lease()) > timing.heartbeat() * 2, "{timing:?}");
        }
    }

    #[test]
    fn elections_are_timed_before_the_lease_of_a_silent_leader_ends() {
        for timing in ALL {
            // Silence is seen at the ticker's next tick, and openraft's timer starts then.
            let silence = timing.heartbeat() * (u32::try_from(SILENT_HEARTBEATS).expect("it is small") + 1);
            assert!(silence + election_tick(&timing) <= timing.lease(), "{timing:?}");
            // Time-outs of two followers differ by more than the timer's precision, or they would split every vote.
            let spread = timing.lease() - timing.election_min();
            assert!(spread > election_tick(&timing) * 4, "{timing:?}");
        }
    }

    #[test]
    fn a_failover_takes_as_long_as_the_documentation_says() {
        let longest = |timing: Timing| (timing.lease() * 2 + election_tick(&timing)).as_millis();
        assert_eq!(ALL.map(longest), [820, 205, 1_630]);
        for timing in ALL {
            assert!(timing.failover_max() > timing.lease() * 3, "{timing:?}: there is time for a split vote");
            assert!(timing.append_timeout() >= timing.lease(), "{timing:?}");
            assert!(timing.lease() <= LEASE_MAX, "{timing:?}: a restarted voter keeps still for every lease");
        }
    }
}
