//! The one task that writes.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use coterie_env::{Disk, Env, Random};
use coterie_mutants::{Mutant, Point, is_on, rarely};

use super::error::Error;
use super::format::{self, BatchWriter, Change, SECTOR_BYTES, SegmentHeader};
use super::recover::{self, Recovered};
use super::segment::{self, Blank, Location, Segment};
use super::shared::{self, Shared};
use super::state::{Op, Phase, State};
use super::{Options, copy};
use crate::limits;

/// The name of the segment that is being prepared.
const SPARE: &str = "spare.tmp";
/// The name of a former segment that will be one again.
const RECYCLED: &str = "recycled.tmp";
/// The name of one made for a single large batch.
const LARGE: &str = "large.tmp";

/// What the writer alone knows.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    random: Arc<dyn Random>,
    active: Arc<Segment>,
    /// Where the next batch goes, and its number.
    offset: u64,
    next_batch: u64,
    spare: Option<Blank>,
    /// Goes before the spare, so that none has to be filled while one is freed as often as one is needed.
    recycled: Option<Blank>,
    buffer: Vec<u8>,
    /// Segments may have become needless since the last look.
    untidy: bool,
    /// Segments that nobody needs any more, oldest first. Freed one at a time, between batches: after a snapshot there may
    /// be dozens, and removing one takes as long as a flush.
    pub(super) needless: VecDeque<Arc<Segment>>,
}

/// Opens the log and starts its writer.
pub(super) fn start(env: &Env, dir: &Path, options: Options) -> Result<Arc<Shared>, Error> {
    let disk = env.disk.clone();
    let folder = dir.join("wal");
    let segment_bytes = options.segment_bytes.max(limits::SEGMENT_BYTES_MIN).next_multiple_of(SECTOR_BYTES as u64);
    let prepare = |source| Error::Prepare { path: folder.clone(), source };

    disk.create_dir_all(&folder).map_err(prepare)?;
    disk.sync_dir(dir).map_err(prepare)?;
    let mut recovered = recover::scan(disk.as_ref(), &folder)?;
    repair(disk.as_ref(), &folder, &recovered).map_err(prepare)?;
    if recovered.segments.is_empty() {
        let blank = Blank::begin(disk.as_ref(), &folder, SPARE, segment_bytes).map_err(prepare)?;
        let salt = blank.salt(env.random.as_ref());
        let header = SegmentHeader { seq: 1, salt, first_batch: recovered.next_batch, len: Some(blank.len()) };
        let first = blank.become_segment(disk.as_ref(), header).map_err(prepare)?;
        recovered.tail = SECTOR_BYTES as u64;
        recovered.segments.insert(first.seq, Arc::new(first));
    }

    let (_, active) = recovered.segments.last_key_value().expect("there is one by now");
    let (active, offset, next_batch) = (active.clone(), recovered.tail, recovered.next_batch);
    let mut state = State::new(options.cache_bytes);
    state.segments = recovered.segments.clone();
    state.partitions = recovered.into_partitions();
    state.prepared_bytes = active.len - offset;
    let shared = Arc::new(Shared::new(state, disk, folder, segment_bytes, options.queue_bytes_max));
    let writer = Writer {
        shared: shared.clone(),
        random: env.random.clone(),
        active,
        offset,
        next_batch,
        spare: None,
        recycled: None,
        buffer: Vec::new(),
        untidy: true,
        needless: VecDeque::new(),
    };
    shared.look();
    env.spawn.spawn("free-space", Box::pin(shared::look_now_and_then(Arc::downgrade(&shared))));
    env.spawn.dedicated("coterie-log", Box::pin(writer.run()));
    Ok(shared)
}

/// Removes what is prepared, clears what lies behind the end, and flushes what was found: it may be in the system's memory only.
fn repair(disk: &dyn Disk, folder: &Path, recovered: &Recovered) -> io::Result<()> {
    for path in disk.list(folder)? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            disk.remove(&path)?;
        }
    }
    disk.sync_dir(folder)?;
    let Some((_, newest)) = recovered.segments.last_key_value() else { return Ok(()) };
    if let Some(torn) = &recovered.torn {
        tracing::info!(segment = %newest.path.display(), offset = torn.start, "clear what lies behind the end of the log");
        segment::write_zeros(newest.file.as_ref(), torn.clone())?;
    }
    newest.file.sync_data()
}

/// What there is to do.
enum Work {
    Write(Vec<Op>),
    /// All that is queued, and what to do about old segments once it is written.
    Tidy(Vec<Op>, copy::Plan),
    Look,
    Free,
    Prepare,
    End,
}

/// How to go on after a step.
enum Next {
    Again,
    Wait,
    End,
}

/// Where the entries of a record went; nothing for other records.
pub(super) type Places = Vec<(u64, Location)>;

impl Writer {
    async fn run(mut self) {
        loop {
            match self.step() {
                // Where the task is not alone on its thread, others get their turn.
                Ok(Next::Again) => tokio::task::yield_now().await,
                Ok(Next::Wait) => self.shared.work.notified().await,
                // Whoever had to know of an error was told where it happened.
                Ok(Next::End) | Err(_) => return,
            }
        }
    }

    fn step(&mut self) -> io::Result<Next> {
        match self.next_work() {
            Work::Write(ops) => {
                self.write_all(ops)?;
                self.free_one()?;
                Ok(Next::Again)
            }
            Work::Tidy(ops, plan) => {
                self.write_all(ops)?;
                copy::carry_out(self, plan).map_err(|error| self.shared.fail("copy old segments", &error))?;
                self.free_one()?;
                Ok(Next::Again)
            }
            Work::Look => {
                self.shared.look();
                Ok(Next::Again)
            }
            Work::Free => {
                self.free_one()?;
                Ok(Next::Again)
            }
            Work::Prepare => {
                self.buffer.clear();
                self.buffer.shrink_to(SECTOR_BYTES);
                self.prepare_spare(limits::FILL_STEP_BYTES)
            }
            Work::End => Ok(Next::End),
        }
    }

    fn next_work(&mut self) -> Work {
        let mut state = self.shared.lock();
        let is_closing = match state.phase {
            Phase::Failed(..) => return Work::End,
            Phase::Closing => true,
            Phase::Open => false,
        };
        if is_closing && state.queue.is_empty() {
            return Work::End;
        }
        if self.untidy {
            self.untidy = false;
            // The memory is ahead of the disk by what is queued. Once all of that is written, what the memory does not
            // need the disk does not either.
            let ops = state.take(usize::MAX);
            let plan = copy::plan(&state, self.active.seq, self.shared.segment_bytes);
            return Work::Tidy(ops, plan);
        }
        if state.urgent > 0 || is_closing || state.queue.len() > limits::RIDERS_MAX {
            return Work::Write(state.take(limits::BATCH_BYTES_MAX));
        }
        if state.look_due {
            Work::Look
        } else if !self.needless.is_empty() {
            Work::Free
        } else {
            Work::Prepare
        }
    }

    /// Frees the oldest segment that nobody needs. One by one and each durable: recovery takes a gap for a loss.
    fn free_one(&mut self) -> io::Result<()> {
        let Some(segment) = self.needless.pop_front() else { return Ok(()) };
        self.shared.lock().segments.remove(&segment.seq);
        self.let_go(segment).map_err(|error| self.shared.fail("free an old segment", &error))
    }

    /// Writes ops in as many batches as they need, and completes each batch after its flush.
    fn write_all(&mut self, ops: Vec<Op>) -> io::Result<()> {
        let mut ops = ops.into_iter().peekable();
        let mut result = Ok(());
        while let Some(first) = ops.next() {
            let mut bytes = first.bytes;
            let mut batch = vec![first];
            while let Some(op) = ops.next_if(|op| bytes + op.bytes <= limits::BATCH_BYTES_MAX) {
                bytes += op.bytes;
                batch.push(op);
            }
            if result.is_ok() {
                result = self.write_batch(&batch).map_err(|error| self.shared.fail("write and flush", &error));
            }
            shared::complete(batch, &result);
        }
        result
    }

    fn write_batch(&mut self, ops: &[Op]) -> io::Result<()> {
        let changes: Vec<_> = ops.iter().map(|op| (&*op.key, &op.change)).collect();
        let (segment, places) = self.put(&changes)?;
        self.untidy |= ops.iter().any(|op| matches!(op.change, Change::Purge(..) | Change::Remove));
        let mut state = self.shared.lock();
        for (op, places) in ops.iter().zip(places) {
            state.written(op, segment, &places);
        }
        state.evict();
        state.prepared_bytes = self.prepared_bytes();
        drop(state);
        self.shared.look();
        // In step with what is written, so that the next segment is ready when this one is full.
        self.prepare_spare(2 * self.buffer.len() as u64).map(drop)
    }

    /// Writes one batch and flushes it. Returns the segment that it went to and where the entries of each change are.
    pub(super) fn put(&mut self, changes: &[(&str, &Change)]) -> io::Result<(u32, Vec<Places>)> {
        let records: usize = changes.iter().map(|(key, change)| change.encoded_len(key)).sum();
        self.make_room(format::batch_len(records) as u64)?;
        let (segment, base) = (self.active.seq, self.offset);
        let narrow = |number: u64| u32::try_from(number).expect("segments are shorter than 4 GiB");
        let mut places = Vec::with_capacity(changes.len());
        let mut batch = BatchWriter::new(&mut self.buffer, self.active.salt);
        for (key, change) in changes {
            let mut of_change = Places::new();
            batch.put(key, change, |index, offset, len| {
                let offset = narrow(base + offset as u64);
                of_change.push((index, Location { segment, offset, len: narrow(len as u64) }));
            });
            places.push(of_change);
        }
        batch.finish(self.next_batch);
        assert_eq!(self.buffer.len(), format::batch_len(records), "a batch is as long as was computed");
        self.active.file.write_at(base, &self.buffer)?;
        if !is_on(Mutant::AcknowledgeBeforeFlush) {
            self.active.file.sync_data()?;
        }
        self.offset += self.buffer.len() as u64;
        self.next_batch += 1;
        Ok((segment, places))
    }

    /// Goes on to a new segment if this many bytes do not fit the active one.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let goes_on = self.offset > SECTOR_BYTES as u64 && rarely(Point::NextSegment);
        if self.offset + bytes <= self.active.len && !goes_on {
            return Ok(());
        }
        let disk = self.shared.disk.clone();
        let len = segment::len_for(self.shared.segment_bytes, bytes);
        let mut ready = self.recycled.take_if(|recycled| recycled.len() == len);
        if ready.is_none() {
            ready = self.spare.take_if(|spare| spare.len() == len);
        }
        let blank = match ready {
            Some(ready) => ready,
            None if len == self.shared.segment_bytes => Blank::begin(disk.as_ref(), &self.shared.folder, SPARE, len)?,
            None => Blank::begin(disk.as_ref(), &self.shared.folder, LARGE, len)?,
        };
        let seq = self.active.seq.checked_add(1).expect("nobody writes 2^32 segments");
        let salt = blank.salt(self.random.as_ref());
        let header = SegmentHeader { seq, salt, first_batch: self.next_batch, len: Some(blank.len()) };
        let segment = Arc::new(blank.become_segment(disk.as_ref(), header)?);
        self.shared.lock().segments.insert(seq, segment.clone());
        self.active = segment;
        self.offset = SECTOR_BYTES as u64;
        self.untidy = true;
        Ok(())
    }

    /// Fills some more of the next segment, unless the disk is nearly full: then the room is left to others.
    fn prepare_spare(&mut self, bytes: u64) -> io::Result<Next> {
        let prepared = self.fill_spare(bytes);
        prepared.map_err(|error| self.shared.fail("prepare the next segment", &error))
    }

    fn fill_spare(&mut self, bytes: u64) -> io::Result<Next> {
        if self.spare.as_ref().is_some_and(Blank::is_full) {
            return Ok(Next::Wait);
        }
        let disk = self.shared.disk.as_ref();
        let mut spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                if !self.has_ample_room() {
                    return Ok(Next::Wait);
                }
                Blank::begin(disk, &self.shared.folder, SPARE, self.shared.segment_bytes)?
            }
        };
        match spare.fill(bytes) {
            // Somebody else fills the volume. What was prepared of this segment is given back, for those who need it now.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(folder = %self.shared.folder.display(), "the volume is full");
                spare.discard(disk)?;
                return Ok(Next::Wait);
            }
            filled => filled?,
        }
        self.spare = Some(spare);
        self.shared.lock().prepared_bytes = self.prepared_bytes();
        Ok(Next::Again)
    }

    /// What can be written without another byte of the volume.
    fn prepared_bytes(&self) -> u64 {
        let ready = self.spare.iter().chain(&self.recycled).filter(|blank| blank.is_full());
        self.active.len - self.offset + ready.map(Blank::len).sum::<u64>()
    }

    /// Removes a segment that nobody needs, or keeps its file for a later one. Durable when this returns.
    pub(super) fn let_go(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        let (disk, folder) = (self.shared.disk.clone(), &self.shared.folder);
        let path = segment.path.clone();
        let is_wanted = self.recycled.is_none() && segment.len == self.shared.segment_bytes && self.has_ample_room();
        // While somebody reads from it its content has to stay.
        match Arc::into_inner(segment).filter(|_| is_wanted) {
            Some(segment) => self.recycled = Some(Blank::recycle(segment, disk.as_ref(), folder, RECYCLED)?),
            None => {
                disk.remove(&path)?;
                disk.sync_dir(folder)?;
            }
        }
        Ok(())
    }

    /// Whether another file may be kept prepared. A volume that does not say how much is free may have nothing.
    fn has_ample_room(&self) -> bool {
        let free = self.shared.disk.free_bytes(&self.shared.folder).unwrap_or(0);
        free >= self.shared.segment_bytes * (limits::RESERVE_SEGMENTS + 1)
    }

    /// Old segments are looked at again.
    pub(super) fn look_again(&mut self) {
        self.untidy = true;
    }
}

impl Drop for Writer {
    /// Also when the task is dropped in the middle: nobody waits for a writer that is not there.
    fn drop(&mut self) {
        self.shared.end();
    }
}
