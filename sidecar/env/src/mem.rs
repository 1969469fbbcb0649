//! A disk in memory that crashes, and chance from a seed: for tests and for the simulator.
//!
//! The disk keeps, per file, what is durable and what was written since the last [`File::sync_data`]; and per folder the
//! creations, renames and removals since the last [`Disk::sync_dir`]. [`MemDisk::crash`] drops all of that,
//! [`MemDisk::crash_torn`] keeps an arbitrary part of it, as a real disk may: unsynced writes survive or not in any
//! order and in pieces, changes of a folder survive in their order up to some point. Folders themselves are durable at
//! once. Same calls and same seed, same bytes.
//!
//! Handles and locks from before a crash are dead: they fail, and dropping them changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, File, Lock};
use crate::random::Random;

mod inode;

use inode::Inode;

/// A file system in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    /// Rises with every crash; handles carry the one they were made in.
    life: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    /// How many handles each inode has.
    handles: BTreeMap<u64, usize>,
    /// What a program sees.
    names: BTreeMap<PathBuf, u64>,
    /// What a crash leaves.
    durable_names: BTreeMap<PathBuf, u64>,
    /// What turns the latter into the former, oldest first.
    changes: Vec<Change>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    free_bytes: u64,
    /// What all files together may hold.
    capacity: u64,
    silent_sync: bool,
    failing: Option<io::ErrorKind>,
    /// Changing calls that still succeed before the power goes.
    power: Option<u64>,
    syncs: u64,
    looks: u64,
    failing_looks: Option<io::ErrorKind>,
}

impl Default for State {
    fn default() -> Self {
        State {
            life: 0,
            next_inode: 0,
            inodes: BTreeMap::new(),
            handles: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            folders: BTreeSet::new(),
            locks: BTreeSet::new(),
            free_bytes: u64::MAX,
            capacity: u64::MAX,
            silent_sync: false,
            failing: None,
            power: None,
            syncs: 0,
            looks: 0,
            failing_looks: None,
        }
    }
}

/// A change of a folder that is not durable yet.
#[derive(Clone)]
enum Change {
    Link { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
    Unlink { path: PathBuf },
}

impl Change {
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Change::Link { path, inode: _ } | Change::Unlink { path } => path.parent() == Some(folder),
            Change::Rename { from, to, inode: _ } => from.parent() == Some(folder) || to.parent() == Some(folder),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Link { path, inode } => {
                names.insert(path, inode);
            }
            Change::Rename { from, to, inode } => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Change::Unlink { path } => {
                names.remove(&path);
            }
        }
    }
}

impl MemDisk {
    /// An empty disk without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Crashes the machine and starts it again: everything that was not synced is gone, handles are dead, locks are
    /// free. Ends [`MemDisk::power_off_after`] and [`MemDisk::fail`].
    pub fn crash(&self) {
        let mut state = self.locked();
        for inode in state.inodes.values_mut() {
            inode.crash();
        }
        state.changes.clear();
        state.restart();
    }

    /// As [`MemDisk::crash`], but an arbitrary part of what was not synced survives, chosen by the seed.
    pub fn crash_torn(&self, seed: u64) {
        let chance = SeededRandom::new(seed);
        let mut state = self.locked();
        for inode in state.inodes.values_mut() {
            inode.crash_torn(&chance);
        }
        let changes = std::mem::take(&mut state.changes);
        let kept = below(&chance, changes.len() + 1);
        for change in changes.into_iter().take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.restart();
    }

    /// Crashes the machine, whose volume is lost with everything on it, and starts it with an empty one.
    pub fn lose(&self) {
        let mut state = self.locked();
        state.durable_names.clear();
        state.changes.clear();
        state.folders.clear();
        state.restart();
    }

    /// While set, `sync_data` answers that all is well and does nothing: what a disk does that lies, and what a program
    /// does that forgot to flush. A test of durability that still passes under it proves nothing.
    pub fn fail_sync_silently(&self, lie: Lie) {
        self.locked().silent_sync = lie == Lie::On;
    }

    /// From now on every changing call fails with this error; `None` ends it.
    pub fn fail(&self, error: Option<io::ErrorKind>) {
        self.locked().failing = error;
    }

    /// Lets `calls` more changing calls succeed (writes, syncs, creations, renames, removals) and fails every later one
    /// until the next crash: a power cut between any two steps of a program.
    pub fn power_off_after(&self, calls: u64) {
        self.locked().power = Some(calls);
    }

    /// What [`Disk::free_bytes`] answers at most. Writes do not change it and are not bounded by it.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.locked().free_bytes = bytes;
    }

    /// From now on [`Disk::free_bytes`] fails with this error, and nothing else does; `None` ends it.
    pub fn fail_free_bytes(&self, error: Option<io::ErrorKind>) {
        self.locked().failing_looks = error;
    }

    /// How often [`Disk::free_bytes`] was asked.
    pub fn free_bytes_asked(&self) -> u64 {
        self.locked().looks
    }

    /// How many bytes all files together may hold; a write beyond fails with `StorageFull`, as on a real volume.
    pub fn set_capacity(&self, bytes: u64) {
        self.locked().capacity = bytes;
    }

    /// Flips all bits of one durable byte: bit rot. `NotFound` if there is no such file, `UnexpectedEof` if it is shorter.
    pub fn corrupt(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut state = self.locked();
        let inode = state.names.get(path).copied().ok_or_else(|| missing(path))?;
        state.inode(inode)?.corrupt(offset)
    }

    /// How many files there are, with those that have no name any more and are open.
    pub fn files(&self) -> usize {
        self.locked().inodes.len()
    }

    /// How often a file was synced: what a program's durability costs.
    pub fn syncs(&self) -> u64 {
        self.locked().syncs
    }

    /// Another disk with the same content, names and settings; changes of one do not reach the other.
    pub fn fork(&self) -> MemDisk {
        let state = State { handles: BTreeMap::new(), ..self.locked().clone() };
        MemDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether [`MemDisk::fail_sync_silently`] is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs do nothing.
    On,
    /// Syncs make durable.
    Off,
}

impl State {
    fn restart(&mut self) {
        self.life += 1;
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number));
        self.handles.clear();
        self.locks.clear();
        self.failing = None;
        self.power = None;
    }

    /// Every changing call passes here first.
    fn may_change(&mut self) -> io::Result<()> {
        if let Some(kind) = self.failing {
            return Err(io::Error::new(kind, "the disk was told to fail"));
        }
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Forgets what has no name left, also after a crash, and no handle.
    fn forget(&mut self) {
        let changing = self.changes.iter().filter_map(|change| match change {
            Change::Link { path: _, inode } | Change::Rename { from: _, to: _, inode } => Some(*inode),
            Change::Unlink { path: _ } => None,
        });
        let named: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().chain(changing).collect();
        let handles = &self.handles;
        self.inodes.retain(|number, _| named.contains(number) || handles.contains_key(number));
    }

    /// What can still be written before [`MemDisk::set_capacity`] is reached.
    fn room(&self) -> u64 {
        let held = |inode: &u64| self.inodes.get(inode).map_or(0, |inode| inode.bytes().len() as u64);
        self.capacity.saturating_sub(self.names.values().map(held).sum())
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.changes.push(change);
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(|| io::Error::other("the file is from before the crash"))
    }

    fn needs_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.has_folder(parent) => Ok(()),
            _ => Err(missing(path)),
        }
    }

    fn has_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.folders.contains(path)
    }

    /// The inode of a path, made if it is missing.
    fn made(&mut self, path: &Path) -> io::Result<u64> {
        if let Some(inode) = self.names.get(path) {
            return Ok(*inode);
        }
        self.needs_folder(path)?;
        self.may_change()?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change(Change::Link { path: path.to_owned(), inode });
        Ok(inode)
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

/// A number below `bound` (which is at least 1).
fn below(chance: &dyn Random, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("a length fits 64 bits");
    usize::try_from(chance.next_u64() % bound).expect("it is below a usize")
}

impl Disk for MemDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.may_change()?;
        state.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.locked();
        let inode = state.made(path)?;
        *state.handles.entry(inode).or_default() += 1;
        Ok(Arc::new(MemFile { disk: self.clone(), life: state.life, inode }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.locked();
        let inode = state.names.get(path).copied().ok_or_else(|| missing(path))?;
        Ok(state.inode(inode)?.bytes().to_vec())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.may_change()?;
        state.needs_folder(to)?;
        let inode = state.names.get(from).copied().ok_or_else(|| missing(from))?;
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.may_change()?;
        if !state.names.contains_key(path) {
            return Err(missing(path));
        }
        state.change(Change::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.may_change()?;
        let inside: Vec<PathBuf> = state.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for path in inside {
            state.change(Change::Unlink { path });
        }
        state.folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.locked();
        if !state.has_folder(path) {
            return Err(missing(path));
        }
        let names = state.names.keys().chain(&state.folders);
        let inside: BTreeSet<PathBuf> = names.filter(|name| name.parent() == Some(path)).cloned().collect();
        Ok(inside.into_iter().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.may_change()?;
        let (synced, rest) = std::mem::take(&mut state.changes).into_iter().partition(|change| change.is_in(path));
        state.changes = rest;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        state.forget();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.locked();
        state.made(path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is locked", path.display())));
        }
        Ok(Box::new(MemLock { disk: self.clone(), life: state.life, path: path.to_owned() }))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let mut state = self.locked();
        state.looks += 1;
        match state.failing_looks {
            Some(kind) => Err(io::Error::new(kind, "the disk was told not to say what is free")),
            None => Ok(state.free_bytes.min(state.room())),
        }
    }
}

struct MemFile {
    disk: MemDisk,
    life: u64,
    inode: u64,
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.disk.locked();
        if state.life != self.life {
            return;
        }
        let left = state.handles.get_mut(&self.inode).map_or(0, |handles| {
            *handles -= 1;
            *handles
        });
        if left == 0 {
            state.handles.remove(&self.inode);
            state.forget();
        }
    }
}

impl MemFile {
    fn with<R>(&self, kind: Call, act: impl FnOnce(&mut Inode) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.disk.locked();
        if state.life != self.life {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        if kind == Call::Changing {
            state.may_change()?;
        }
        act(state.inode(self.inode)?)
    }
}

impl MemFile {
    /// Whether there is room for the file to become as long as this.
    fn may_hold(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.locked();
        if state.capacity == u64::MAX {
            return Ok(());
        }
        let room = state.room();
        let grows = len.saturating_sub(state.inode(self.inode)?.bytes().len() as u64);
        if grows > room { Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full")) } else { Ok(()) }
    }
}

#[derive(PartialEq, Eq)]
enum Call {
    Changing,
    Reading,
}

impl File for MemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.may_hold(offset + bytes.len() as u64)?;
        self.with(Call::Changing, |inode| inode.write(offset, bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(Call::Reading, |inode| inode.read(offset, buffer))
    }

    fn sync_data(&self) -> io::Result<()> {
        let lies = {
            let mut state = self.disk.locked();
            state.syncs += 1;
            state.silent_sync
        };
        self.with(Call::Changing, |inode| {
            if !lies {
                inode.sync();
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Call::Reading, |inode| Ok(inode.bytes().len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.may_hold(len)?;
        self.with(Call::Changing, |inode| inode.set_len(len))
    }
}

struct MemLock {
    disk: MemDisk,
    life: u64,
    path: PathBuf,
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.locked();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

/// Random numbers that a seed decides (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
pub struct SeededRandom {
    state: Mutex<u64>,
}

impl SeededRandom {
    /// The sequence of this seed, from its start.
    pub fn new(seed: u64) -> Self {
        SeededRandom { state: Mutex::new(seed) }
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
