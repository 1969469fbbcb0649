//! What this replica has applied, and what its Raft tasks and its users share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use coterie_core::Revision;
use coterie_core::command::{Envelope, Outcome};
use coterie_core::machine::Machine;
use coterie_core::machine::snapshot::Image;
use coterie_core::{ErrorCode, Rejection};
use coterie_env::Env;
use tokio::sync::{Notify, watch};

use crate::types::{LogId, SnapshotMeta, StoredMembership};
use crate::watch::Hub;

/// The applied state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl State {
    /// How far it has come.
    pub(crate) fn applied(&self) -> Progress {
        Progress { index: self.last.map_or(0, |id| id.index), revision: self.machine.revision() }
    }
}

/// How far a replica has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last entry of the log. Index 0 is the first membership, which is there before anything is asked.
    pub index: u64,
    /// The last command: an entry has as many as went in one round, or none.
    pub revision: Revision,
}

/// One entry, made ready outside of the lock.
pub(crate) enum Change {
    Blank,
    Membership(StoredMembership),
    Round { ts_ms: u64, envelopes: Vec<Result<Envelope, Rejection>> },
}

impl Change {
    /// How many commands it has.
    pub(crate) fn commands(&self) -> usize {
        match self {
            Self::Round { ts_ms: _, envelopes } => envelopes.len(),
            Self::Blank | Self::Membership(_) => 0,
        }
    }
}

/// Commands after which those who wait for the lock get their turn, passed by the last entry: long enough to be cheap, short
/// enough that readers wait for a millisecond or two.
pub(crate) const LOCKED_COMMANDS: usize = 256;

/// What the commands of one entry gave, in their order.
type Outcomes = Vec<(Revision, Outcome)>;

/// Progress commands and bytes of them after which a snapshot is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotPolicy {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// What a command takes in the log beside itself, about: an entry has one or many.
const COMMAND_BYTES: u64 = 16;

/// A state to make a snapshot of.
pub(crate) struct Shot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) image: Image,
    /// What was counted towards it.
    entries: u64,
    bytes: u64,
}

impl Shot {
    /// Entries and bytes that were counted towards it.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }
}

/// One replica's shared part.
pub(crate) struct Replica {
    pub(crate) env: Env,
    state: RwLock<State>,
    /// Locked inside the state's lock only.
    hub: Mutex<Hub>,
    applied: watch::Sender<Progress>,
    policy: SnapshotPolicy,
    commands_since_snapshot: AtomicU64,
    bytes_since_snapshot: AtomicU64,
    /// Bytes of the last snapshot's file.
    snapshot_bytes: AtomicU64,
    /// Wakes the maintenance task when a snapshot is due.
    pub(crate) snapshot_due: Notify,
    has_snapshot: AtomicBool,
    /// Monotonic milliseconds of the last sign of life from a leader.
    heard_ms: AtomicU64,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("applied", &*self.applied.borrow()).finish_non_exhaustive()
    }
}

impl Replica {
    /// `state` came from a snapshot if `state.last` is set.
    pub(crate) fn new(env: Env, state: State, policy: SnapshotPolicy) -> Arc<Self> {
        let from_snapshot = state.last.map(|_| state.machine.revision());
        Arc::new(Self {
            heard_ms: AtomicU64::new(env.clock.monotonic_ms()),
            env,
            hub: Mutex::new(Hub::new(from_snapshot)),
            applied: watch::Sender::new(state.applied()),
            state: RwLock::new(state),
            policy,
            commands_since_snapshot: AtomicU64::new(0),
            bytes_since_snapshot: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            snapshot_due: Notify::new(),
            has_snapshot: AtomicBool::new(from_snapshot.is_some()),
        })
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("a replica whose state machine panicked must not go on")
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("a replica whose state machine panicked must not go on")
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Progress> {
        self.applied.subscribe()
    }

    /// Runs `f` while nothing is applied or published.
    pub(crate) fn with_state_and_hub<R>(&self, f: impl FnOnce(&State, &mut Hub) -> R) -> R {
        let state = self.state();
        let mut hub = self.hub.lock().expect("no holder panics");
        f(&state, &mut hub)
    }

    /// Applies entries that follow on the last one. Gives the outcomes of the commands of each.
    ///
    /// A gap is an error: going on would make this replica another machine than the others.
    pub(crate) fn apply(&self, changes: Vec<(LogId, Change)>) -> Result<Vec<Outcomes>, LogGap> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            self.apply_some(&mut changes, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// As many as are applied under one lock.
    fn apply_some(
        &self,
        changes: &mut impl Iterator<Item = (LogId, Change)>,
        outcomes: &mut Vec<Outcomes>,
    ) -> Result<(), LogGap> {
        let mut commands = 0;
        let mut state = self.state_mut();
        let mut hub = self.hub.lock().expect("no holder panics");
        while commands < LOCKED_COMMANDS {
            let Some((id, change)) = changes.next() else { break };
            let expected = state.last.map_or(0, |last| last.index + 1);
            if id.index != expected {
                return Err(LogGap { expected, found: id.index });
            }
            commands += change.commands();
            outcomes.push(match change {
                Change::Blank => Vec::new(),
                Change::Membership(membership) => {
                    state.membership = membership;
                    Vec::new()
                }
                Change::Round { ts_ms, envelopes } => {
                    let machine = &mut state.machine;
                    envelopes.into_iter().map(|envelope| apply_one(machine, &mut hub, ts_ms, envelope)).collect()
                }
            });
            state.last = Some(id);
        }
        let applied = state.applied();
        drop(hub);
        drop(state);
        self.applied.send_replace(applied);
        Ok(())
    }

    /// Counts towards the next snapshot, and asks for it when it is due.
    pub(crate) fn count(&self, entries: u64, bytes: u64) {
        self.commands_since_snapshot.fetch_add(entries, Ordering::Relaxed);
        self.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        if self.is_snapshot_due() {
            self.snapshot_due.notify_one();
        }
    }

    /// Whether enough was applied since the last snapshot for another one. A large one is not written again before half as
    /// much as it has was applied: else a partition would write its whole state for every few megabytes of changes.
    pub(crate) fn is_snapshot_due(&self) -> bool {
        let entries = self.commands_since_snapshot.load(Ordering::Relaxed);
        let bytes = self.bytes_since_snapshot.load(Ordering::Relaxed);
        let enough = entries >= self.policy.entries || bytes >= self.policy.bytes;
        enough && self.log_bytes() >= self.snapshot_bytes.load(Ordering::Relaxed) / 2
    }

    /// Whether so much was applied since the last snapshot that the next one waits for nobody: as much as that one has.
    pub(crate) fn is_snapshot_overdue(&self) -> bool {
        self.log_bytes() >= self.snapshot_bytes.load(Ordering::Relaxed).max(self.policy.bytes)
    }

    /// What was applied since the last snapshot takes about as much in the log.
    fn log_bytes(&self) -> u64 {
        let entries = self.commands_since_snapshot.load(Ordering::Relaxed);
        self.bytes_since_snapshot.load(Ordering::Relaxed) + entries * COMMAND_BYTES
    }

    /// The state as it is now, for a snapshot.
    pub(crate) fn image(&self) -> Shot {
        let state = self.state();
        Shot {
            meta: SnapshotMeta { last_log_id: state.last, last_membership: state.membership.clone() },
            image: state.machine.image(),
            entries: self.commands_since_snapshot.load(Ordering::Relaxed),
            bytes: self.bytes_since_snapshot.load(Ordering::Relaxed),
        }
    }

    /// A snapshot was made, of `bytes` on the disk; what was counted before its image counts no more.
    pub(crate) fn note_made(&self, counted: (u64, u64), bytes: u64) {
        let (entries, applied) = counted;
        for (count, less) in [(&self.commands_since_snapshot, entries), (&self.bytes_since_snapshot, applied)] {
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(less)));
        }
        self.note_snapshot(bytes);
    }

    /// Replaces the state by one that came from the leader; watchers are told to resync. Gives the one before: dropping it
    /// may take long.
    pub(crate) fn install(&self, new: State) -> State {
        let mut state = self.state_mut();
        let mut hub = self.hub.lock().expect("no holder panics");
        let old = std::mem::replace(&mut *state, new);
        let applied = state.applied();
        hub.reset(Some(applied.revision));
        drop(hub);
        drop(state);
        self.commands_since_snapshot.store(0, Ordering::Relaxed);
        self.bytes_since_snapshot.store(0, Ordering::Relaxed);
        self.applied.send_replace(applied);
        old
    }

    /// There is a snapshot of this many bytes on the disk.
    pub(crate) fn note_snapshot(&self, bytes: u64) {
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
        self.has_snapshot.store(true, Ordering::Release);
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::Acquire)
    }

    /// A leader of this partition has just given a sign of life.
    pub(crate) fn heard(&self) {
        self.heard_ms.fetch_max(self.env.clock.monotonic_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since a leader's last sign of life, or since the replica was opened.
    pub(crate) fn unheard_ms(&self) -> u64 {
        self.env.clock.monotonic_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Replica {
    /// A large state takes long to drop: that is not for a thread on which others wait.
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if let Ok(state) = self.state.get_mut() {
            let nothing = State { machine: Machine::new(0), last: None, membership: StoredMembership::default() };
            let state = std::mem::replace(state, nothing);
            self.env.spawn.dedicated("drop-state", Box::pin(async move { drop(state) }));
        }
    }
}

/// A command has the revision after that of the one before it, in whatever entry that was.
fn apply_one(
    machine: &mut Machine,
    hub: &mut Hub,
    ts_ms: u64,
    envelope: Result<Envelope, Rejection>,
) -> (Revision, Outcome) {
    match envelope {
        Ok(envelope) => {
            let revision = Revision(machine.revision().0 + 1);
            let applied = machine.apply(revision, ts_ms, &envelope);
            hub.publish(applied.events);
            (revision, applied.outcome)
        }
        Err(rejection) => (machine.skip(), Err(rejection)),
    }
}

/// Entries are missing in what was to be applied.
#[derive(Debug, thiserror::Error)]
#[error("apply entry {found}: expected {expected}")]
pub(crate) struct LogGap {
    expected: u64,
    found: u64,
}

/// What everybody who applies a body that cannot be decoded answers: the same on every replica.
pub(crate) fn undecodable() -> Rejection {
    Rejection::new(ErrorCode::Internal, "the command in the log cannot be decoded; it changed nothing")
}
