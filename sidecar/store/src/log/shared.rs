//! What the handles and the writer share.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use coterie_env::Disk;
use tokio::sync::{Notify, watch};

use super::format::Change;
use super::segment::{Location, Segment};
use super::space::{Demand, Space};
use super::state::{Found, Op, Phase, State};
use super::{Done, completion};
use crate::limits;

/// The state, and the ways to wait for its changes.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub(super) folder: PathBuf,
    pub(super) segment_bytes: u64,
    queue_bytes_max: usize,
    /// Wakes the writer.
    pub(super) work: Notify,
    stage: watch::Sender<Stage>,
}

/// The writer's life, for those who wait for its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Failed(Arc<str>),
    Ended,
}

impl Shared {
    pub(super) fn new(
        state: State,
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        segment_bytes: u64,
        queue_bytes_max: usize,
    ) -> Self {
        Shared {
            state: Mutex::new(state),
            disk,
            folder,
            segment_bytes,
            queue_bytes_max,
            work: Notify::new(),
            stage: watch::Sender::new(Stage::Running),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if an append of this many bytes is one that can be written at all.
    fn open_for(&self, bytes: usize) -> io::Result<MutexGuard<'_, State>> {
        let state = self.open()?;
        if bytes > limits::APPEND_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("an append of {bytes} bytes is too large"),
            ));
        }
        Ok(state)
    }

    /// Whether an append of this many bytes may be promised.
    pub(super) fn admit(&self, demand: Demand, bytes: usize) -> io::Result<()> {
        let state = self.open_for(bytes)?;
        // Only here: whoever was promised something must be able to append it, however many were promised at once.
        if state.queued_bytes > 0 && state.queued_bytes + bytes > self.queue_bytes_max {
            let sentence = format!("{} bytes wait for the log's disk already", state.queued_bytes);
            return Err(io::Error::new(io::ErrorKind::WouldBlock, sentence));
        }
        let wanted = (state.queued_bytes + bytes) as u64;
        let free = state.free_bytes.clone();
        let space = Space { free, prepared: state.prepared_bytes, segment: self.segment_bytes };
        space.take(demand, wanted).map_err(|shortage| io::Error::new(io::ErrorKind::StorageFull, shortage))
    }

    /// Asks the volume what is free. Only the writer does, and whoever opens the log: it is a call of the system.
    pub(super) fn look(&self) {
        let free = self.disk.free_bytes(&self.folder).map_err(|error| Arc::from(error.to_string()));
        let mut state = self.lock();
        state.look_due = false;
        if let (Err(sentence), Ok(_)) = (&free, &state.free_bytes) {
            tracing::warn!(folder = %self.folder.display(), %sentence, "the volume does not say what is free");
        }
        state.free_bytes = free;
    }

    /// Has the writer look when it is idle. False when there is nothing to look for any more.
    fn ask_to_look(&self) -> bool {
        let is_open = {
            let mut state = self.lock();
            state.look_due = true;
            matches!(state.phase, Phase::Open)
        };
        self.work.notify_one();
        is_open
    }

    pub(super) fn append(&self, key: &Arc<str>, entries: Vec<(u64, Bytes)>, done: Done) {
        let change = Change::Entries(entries);
        let bytes = change.encoded_len(key);
        let refused = match self.open_for(bytes) {
            Ok(mut state) => match state.check_append(key, &change) {
                Ok(()) => {
                    state.enqueue(key, change, Some(done));
                    drop(state);
                    self.work.notify_one();
                    return;
                }
                Err(sentence) => io::Error::new(io::ErrorKind::InvalidInput, sentence),
            },
            Err(error) => error,
        };
        done(Err(refused));
    }

    /// Queues a change and waits for its flush.
    pub(super) async fn change(&self, key: &Arc<str>, change: Change) -> io::Result<()> {
        let (done, flushed) = completion();
        self.open()?.enqueue(key, change, Some(done));
        self.work.notify_one();
        match flushed.await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the log's writer has ended")),
        }
    }

    pub(super) fn ride(&self, key: &Arc<str>, committed: Bytes) {
        // A commit position is a hint; a log that takes nothing more needs no hint.
        let Ok(mut state) = self.open() else { return };
        state.ride(key, committed);
        if state.queue.len() > limits::RIDERS_MAX {
            drop(state);
            self.work.notify_one();
        }
    }

    pub(super) fn read(&self, key: &Arc<str>, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let (found, segments) = {
            let state = self.lock();
            if let Phase::Failed(kind, sentence) = &state.phase {
                return Err(io::Error::new(*kind, sentence.to_string()));
            }
            let Some(partition) = state.partitions.get(key) else { return Ok(Vec::new()) };
            let found = partition.find(start, end, bytes_max);
            // Held, so that a segment that is removed now stays readable.
            let mut segments: Vec<Arc<Segment>> = Vec::new();
            for (_, entry) in &found {
                if let Found::At(at) = entry
                    && segments.last().is_none_or(|last| last.seq != at.segment)
                {
                    segments.push(state.segments[&at.segment].clone());
                }
            }
            (found, segments)
        };
        read_found(found, segments).map_err(|error| self.fail("read an entry", &error))
    }

    fn open(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.phase {
            Phase::Open => Ok(state),
            Phase::Closing => Err(io::Error::other("the log is closed")),
            Phase::Failed(kind, sentence) => Err(io::Error::new(*kind, sentence.to_string())),
        }
    }

    /// Ends the log for good; the first failure is the one that is told. Everything queued fails.
    pub(super) fn fail(&self, step: &str, error: &io::Error) -> io::Error {
        let sentence: Arc<str> = format!("the log has failed: {step}: {error}").into();
        let (kind, sentence, queued) = {
            let mut state = self.lock();
            if let Phase::Failed(kind, sentence) = &state.phase {
                (*kind, sentence.clone(), Vec::new())
            } else {
                tracing::error!(folder = %self.folder.display(), %error, step, "the log has failed");
                state.phase = Phase::Failed(error.kind(), sentence.clone());
                let queued = state.take(usize::MAX);
                (error.kind(), sentence, queued)
            }
        };
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Running;
            if is_first {
                *stage = Stage::Failed(sentence.clone());
            }
            is_first
        });
        self.work.notify_one();
        complete(queued, &Err(io::Error::new(kind, sentence.to_string())));
        io::Error::new(kind, sentence.to_string())
    }

    pub(super) fn failure(&self) -> Option<String> {
        match &self.lock().phase {
            Phase::Failed(_, sentence) => Some(sentence.to_string()),
            Phase::Open | Phase::Closing => None,
        }
    }

    pub(super) async fn failed(&self) -> String {
        let mut stage = self.stage.subscribe();
        loop {
            if let Some(sentence) = self.failure() {
                return sentence;
            }
            if stage.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    pub(super) fn begin_closing(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.work.notify_one();
    }

    /// The writer's last act. What is still queued then (its task was dropped) is not completed: nobody knows how it
    /// would have gone.
    pub(super) fn end(&self) {
        self.begin_closing();
        let orphaned = self.lock().take(usize::MAX);
        // Not under the lock: what they hold may end handles of this log.
        drop(orphaned);
        self.stage.send_replace(Stage::Ended);
    }

    pub(super) async fn ended(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives as long as `self`.
        let _ = stage.wait_for(|stage| *stage == Stage::Ended).await;
    }
}

/// Has the volume looked at also while nothing is written, for as long as the log lives.
pub(super) async fn look_now_and_then(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(limits::SPACE_LOOK_PAUSE).await;
        if !shared.upgrade().is_some_and(|shared| shared.ask_to_look()) {
            return;
        }
    }
}

/// Tells the callers of these ops.
pub(super) fn complete(ops: Vec<Op>, result: &io::Result<()>) {
    for done in ops.into_iter().filter_map(|op| op.done) {
        done(match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        });
    }
}

/// Fetches what is not in memory, neighbours in one read.
fn read_found(found: Vec<(u64, Found)>, segments: Vec<Arc<Segment>>) -> io::Result<Vec<(u64, Bytes)>> {
    let mut entries = Vec::with_capacity(found.len());
    let mut run: Vec<(u64, Location)> = Vec::new();
    for (index, entry) in found {
        match entry {
            Found::Content(content) => {
                read_run(&mut run, &segments, &mut entries)?;
                entries.push((index, content));
            }
            Found::At(location) => {
                if run.last().is_some_and(|(_, last)| !last.is_followed_by(&location)) {
                    read_run(&mut run, &segments, &mut entries)?;
                }
                run.push((index, location));
            }
        }
    }
    read_run(&mut run, &segments, &mut entries)?;
    Ok(entries)
}

fn read_run(
    run: &mut Vec<(u64, Location)>,
    segments: &[Arc<Segment>],
    entries: &mut Vec<(u64, Bytes)>,
) -> io::Result<()> {
    if let Some((_, first)) = run.first() {
        let segment = segments.iter().find(|segment| segment.seq == first.segment);
        entries.extend(segment.expect("the segment of every entry is held").read_run(run)?);
        run.clear();
    }
    Ok(())
}
