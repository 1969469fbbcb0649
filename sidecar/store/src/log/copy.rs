//! Frees old segments, and copies what holds them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::format::Change;
use super::segment::{Location, Segment};
use super::state::{Partition, State};
use super::writer::Writer;
use crate::limits;

/// What is to be done once everything that was queued is written.
pub(super) struct Plan {
    /// Oldest first.
    needless: Vec<Arc<Segment>>,
    copies: Vec<Copies>,
}

/// What one partition needs from the oldest segment.
struct Copies {
    key: Arc<str>,
    /// Votes, commit and purge positions.
    small: Vec<Change>,
    entries: Vec<(u64, Location)>,
    from: Arc<Segment>,
}

/// Looks at the memory as it will be on the disk, up to and without the active segment.
pub(super) fn plan(state: &State, active: u32, segment_bytes: u64) -> Plan {
    let needed = state.oldest_needed().unwrap_or(active).min(active);
    let needless: Vec<_> = state.segments.range(..needed).map(|(_, segment)| segment.clone()).collect();
    let kept = (state.segments.len() - needless.len()) as u64;
    let allowed = limits::SEGMENTS_BEFORE_COPYING + 2 * state.live_bytes() / segment_bytes;
    let copies = match state.segments.get(&needed) {
        Some(oldest) if kept > allowed => {
            let partitions = state.partitions.iter();
            partitions.filter_map(|(key, partition)| copies_of(key, partition, oldest)).collect()
        }
        _ => Vec::new(),
    };
    Plan { needless, copies }
}

fn copies_of(key: &Arc<str>, partition: &Partition, oldest: &Arc<Segment>) -> Option<Copies> {
    let is_here = |segment: Option<u32>| segment == Some(oldest.seq);
    let vote = partition.vote.value.clone().filter(|_| is_here(partition.vote.segment)).map(Change::Vote);
    let committed = partition.committed.value.clone().filter(|_| is_here(partition.committed.segment));
    let purged = partition.purged.value.clone().filter(|_| is_here(partition.purged.segment));
    let purged = purged.map(|(index, log_id)| Change::Purge(index, log_id));
    let small: Vec<_> = vote.into_iter().chain(committed.map(Change::Committed)).chain(purged).collect();
    let entries: Vec<_> = partition.written_entries().filter(|(_, at)| at.segment == oldest.seq).collect();
    let is_needed = !(small.is_empty() && entries.is_empty());
    is_needed.then(|| Copies { key: key.clone(), small, entries, from: oldest.clone() })
}

/// Carries out a plan; the memory may have gone on since, by what is queued now.
pub(super) fn carry_out(writer: &mut Writer, plan: Plan) -> io::Result<()> {
    writer.needless = plan.needless.into();
    if plan.copies.is_empty() {
        return Ok(());
    }
    writer.look_again();
    for copies in plan.copies {
        copy_small(writer, &copies)?;
        copy_entries(writer, &copies)?;
    }
    Ok(())
}

fn copy_small(writer: &mut Writer, copies: &Copies) -> io::Result<()> {
    if copies.small.is_empty() {
        return Ok(());
    }
    let changes: Vec<_> = copies.small.iter().map(|change| (&*copies.key, change)).collect();
    let (segment, _) = writer.put(&changes)?;
    let mut state = writer.shared.lock();
    let Some(partition) = state.partitions.get_mut(&copies.key) else { return Ok(()) };
    for change in &copies.small {
        match change {
            Change::Vote(_) => partition.vote.written(segment),
            Change::Committed(_) => partition.committed.written(segment),
            Change::Purge(..) => partition.purged.written(segment),
            Change::Entries(_) | Change::Truncate(_) | Change::Remove => {}
        }
    }
    Ok(())
}

fn copy_entries(writer: &mut Writer, copies: &Copies) -> io::Result<()> {
    let mut left = copies.entries.as_slice();
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(chunk_len(left));
        left = rest;
        let entries = read(&copies.from, chunk)?;
        let (_, places) = writer.put(&[(&copies.key, &Change::Entries(entries))])?;
        let were: BTreeMap<u64, Location> = chunk.iter().copied().collect();
        let mut state = writer.shared.lock();
        for (index, to) in places.into_iter().flatten() {
            state.moved(&copies.key, index, were[&index], to);
        }
    }
    Ok(())
}

/// How many of these make one batch: at least one.
fn chunk_len(entries: &[(u64, Location)]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|(_, at)| {
        bytes += at.footprint();
        bytes <= limits::BATCH_BYTES_MAX as u64
    });
    fits.count().max(1)
}

fn read(segment: &Segment, entries: &[(u64, Location)]) -> io::Result<Vec<(u64, Bytes)>> {
    let mut found = Vec::with_capacity(entries.len());
    for run in entries.chunk_by(|(_, one), (_, next)| one.is_followed_by(next)) {
        found.extend(segment.read_run(run)?);
    }
    Ok(found)
}
